/* The scoreboard's rows of methods, as the rpc thread writes them. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "worker/rpc/rpc_meter.h"

static struct scoreboard_slot slot;

Test(rpc_meter, a_method_has_one_row_on_all_listeners)
{
    struct scoreboard_method *get = rpc_meter_open(&slot, "user.User/GetUser");
    struct scoreboard_method *update = rpc_meter_open(&slot, "user.User/UserUpdate");
    cr_assert(get != NULL && update != NULL && get != update);
    cr_assert_eq(rpc_meter_open(&slot, "user.User/GetUser"), get);
    cr_assert_str_eq(get->name, "user.User/GetUser");
    cr_assert_eq(slot.methods[2].is_named, 0);
}

Test(rpc_meter, counts_status_duration_and_sum)
{
    struct scoreboard_method *row = rpc_meter_open(&slot, "user.User/GetUser");
    rpc_meter_add(row, GRPC_STATUS_OK, 100);
    rpc_meter_add(row, GRPC_STATUS_OK, 101);
    rpc_meter_add(row, GRPC_STATUS_NOT_FOUND, 5);
    cr_assert_eq(row->statuses[GRPC_STATUS_OK], 2);
    cr_assert_eq(row->statuses[GRPC_STATUS_NOT_FOUND], 1);
    cr_assert_eq(row->latency[latency_histogram_bucket(100)], 2);
    cr_assert_eq(row->latency[5], 1);
    cr_assert_eq(row->latency_sum_us, 206);
}

Test(rpc_meter, a_status_that_grpc_does_not_know_is_unknown)
{
    struct scoreboard_method *row = rpc_meter_open(&slot, "user.User/GetUser");
    rpc_meter_add(row, GRPC_STATUS__DO_NOT_USE, 1);
    cr_assert_eq(row->statuses[GRPC_STATUS_UNKNOWN], 1);
}

Test(rpc_meter, without_a_row_nothing_is_counted)
{
    char name[SCOREBOARD_NAME_SIZE + 1];
    memset(name, 'x', SCOREBOARD_NAME_SIZE);
    name[SCOREBOARD_NAME_SIZE] = '\0';
    cr_assert_null(rpc_meter_open(&slot, name));
    name[SCOREBOARD_NAME_SIZE - 1] = '\0';
    cr_assert_not_null(rpc_meter_open(&slot, name));
    for (int i = 1; i < SCOREBOARD_METHODS; i++) {
        (void)snprintf(name, sizeof(name), "a.A/%d", i);
        cr_assert_not_null(rpc_meter_open(&slot, name));
    }
    cr_assert_null(rpc_meter_open(&slot, "one.More/Method"));
    rpc_meter_add(NULL, GRPC_STATUS_OK, 1);
}
