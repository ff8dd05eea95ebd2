/* Streams whose first message has not come. */
#include <criterion/criterion.h>
#include <errno.h>

#include "worker/rpc/rpc_open_requests.h"

#define LIMIT 100

static struct rpc_open_requests requests;

static void fini(void)
{
    rpc_open_requests_cleanup(&requests);
}

TestSuite(rpc_open_requests, .fini = fini);

static void begin(uint32_t stream, uint32_t now_ms)
{
    cr_assert_eq(rpc_open_requests_begin(&requests, stream, LIMIT, now_ms), 0);
}

Test(rpc_open_requests, costs_one_place_where_each_ends_before_the_next)
{
    for (uint32_t stream = 1; stream < 100000; stream += 2) {
        begin(stream, stream);
        cr_assert_eq(requests.count, 1);
        rpc_open_requests_end(&requests, stream);
        cr_assert_eq(requests.count, 0);
    }
    cr_assert_leq(requests.capacity, 8);
}

Test(rpc_open_requests, knows_the_oldest_in_whatever_order_they_end)
{
    for (uint32_t i = 0; i < 10; i++)
        begin(1 + 2 * i, 1000 + i);
    rpc_open_requests_end(&requests, 5);
    cr_assert_eq(rpc_open_requests_oldest_ms(&requests), 1000);
    rpc_open_requests_end(&requests, 1);
    cr_assert_eq(rpc_open_requests_oldest_ms(&requests), 1001);
    rpc_open_requests_end(&requests, 3);
    cr_assert_eq(rpc_open_requests_oldest_ms(&requests), 1003);
    cr_assert_eq(requests.count, 7);
}

Test(rpc_open_requests, counts_an_end_once_and_only_of_those_that_are_here)
{
    begin(1, 0);
    begin(3, 0);
    rpc_open_requests_end(&requests, 1);
    rpc_open_requests_end(&requests, 1);
    rpc_open_requests_end(&requests, 2);
    rpc_open_requests_end(&requests, 0);
    rpc_open_requests_end(&requests, 99);
    cr_assert_eq(requests.count, 1);
}

Test(rpc_open_requests, takes_a_number_that_was_there_for_no_new_stream)
{
    begin(7, 0);
    begin(7, 1);
    begin(5, 1);
    cr_assert_eq(requests.count, 1);
    rpc_open_requests_end(&requests, 7);
    begin(7, 2);
    cr_assert_eq(requests.count, 0);
}

Test(rpc_open_requests, counts_the_bytes_of_those_that_are_here)
{
    begin(1, 0);
    begin(3, 0);
    rpc_open_requests_add(&requests, 1, 1000);
    rpc_open_requests_add(&requests, 3, 200);
    rpc_open_requests_add(&requests, 1, 1000);
    rpc_open_requests_add(&requests, 5, 1000);
    cr_assert_eq(requests.bytes, 2200);
    rpc_open_requests_end(&requests, 1);
    rpc_open_requests_add(&requests, 1, 1000);
    cr_assert_eq(requests.bytes, 200);
    rpc_open_requests_end(&requests, 3);
    cr_assert_eq(requests.bytes, 0);
}

Test(rpc_open_requests, has_a_limit)
{
    uint32_t stream = 1;
    for (uint32_t i = 0; i < LIMIT; i++, stream += 2)
        begin(stream, 0);
    cr_assert_eq(rpc_open_requests_begin(&requests, stream, LIMIT, 0), -ENOSPC);
    rpc_open_requests_end(&requests, 1);
    begin(stream + 2, 0);
}

/* One stays for ever, the others come and go: the table does not grow with them. */
Test(rpc_open_requests, does_not_grow_with_what_has_ended)
{
    begin(1, 0);
    for (uint32_t stream = 3; stream < 200000; stream += 4) {
        begin(stream, 0);
        begin(stream + 2, 0);
        rpc_open_requests_end(&requests, stream);
        rpc_open_requests_end(&requests, stream + 2);
    }
    cr_assert_eq(requests.count, 1);
    cr_assert_leq(requests.capacity, 16);
    for (uint32_t stream = 200001; stream < 400000; stream += 2) {
        begin(stream, 0);
        if (stream >= 200005)
            rpc_open_requests_end(&requests, stream - 4); /* never the last one */
    }
    cr_assert_eq(requests.count, 3);
    cr_assert_leq(requests.capacity, 16);
    cr_assert_eq(rpc_open_requests_oldest_ms(&requests), 0);
}

/* Against a table of flags. */
Test(rpc_open_requests, is_right_about_any_mixture)
{
    static bool is_open[20001];
    uint32_t next = 1;
    uint32_t open = 0;
    uint64_t random = 1;
    for (int i = 0; i < 200000; i++) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        uint32_t draw = (uint32_t)(random >> 33);
        if (draw % 2 == 0 && next < 20000) {
            int result = rpc_open_requests_begin(&requests, next, LIMIT, next);
            cr_assert_eq(result, open < LIMIT ? 0 : -ENOSPC);
            is_open[next] = result == 0;
            open += result == 0 ? 1 : 0;
            next += 2;
        } else {
            uint32_t stream = draw / 2 % 20001;
            open -= is_open[stream] ? 1 : 0;
            is_open[stream] = false;
            rpc_open_requests_end(&requests, stream);
        }
        cr_assert_eq(requests.count, open);
    }
}
