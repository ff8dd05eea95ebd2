#include "tests/harness/test_status.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

json_t *test_status_read(struct test_userd *userd)
{
    char run_dir[96];
    (void)snprintf(run_dir, sizeof(run_dir), "%s/run", userd->directory);
    /* Not the service's own program: a test may have put another thing in its place. */
    const char *const argv[] = {TEST_USERD, "status", "--json", "--run-dir", run_dir, NULL};
    char *output = NULL;
    int status = test_process_run(argv, NULL, userd->directory, &output);
    json_error_t error;
    json_t *report = json_loads(output, 0, &error);
    cr_assert(status == 0 && report != NULL, "status %d: %s", status, output);
    free(output);
    return report;
}

json_int_t test_status_number(json_t *object, const char *group, const char *name)
{
    json_t *place = group != NULL ? json_object_get(object, group) : object;
    json_t *value = json_object_get(place, name);
    cr_assert(json_is_integer(value), "no number %s", name);
    return json_integer_value(value);
}

json_t *test_status_method(json_t *report, const char *name)
{
    json_t *methods = json_object_get(report, "methods");
    for (size_t i = 0; i < json_array_size(methods); i++) {
        json_t *method = json_array_get(methods, i);
        if (strcmp(json_string_value(json_object_get(method, "name")), name) == 0)
            return method;
    }
    cr_assert_fail("no method %s", name);
    return NULL;
}

json_int_t test_status_calls_begun(struct test_userd *userd)
{
    json_t *report = test_status_read(userd);
    json_int_t count = test_status_number(json_object_get(report, "totals"), "calls", "started");
    json_decref(report);
    return count;
}

void then_calls_have_begun(struct test_userd *userd, json_int_t count)
{
    bool is_so = TEST_WAIT_FOR(test_status_calls_begun(userd) >= count, TEST_TIMEOUT_MS);
    cr_assert(is_so, "%lld calls have not begun", (long long)count);
}

static json_int_t method_ended(struct test_userd *userd, const char *name)
{
    json_t *report = test_status_read(userd);
    json_t *statuses = json_object_get(test_status_method(report, name), "statuses");
    json_int_t count = 0;
    for (void *place = json_object_iter(statuses); place != NULL;
         place = json_object_iter_next(statuses, place))
        count += json_integer_value(json_object_iter_value(place));
    json_decref(report);
    return count;
}

void then_method_has_ended(struct test_userd *userd, const char *name, json_int_t count)
{
    bool is_so = TEST_WAIT_FOR(method_ended(userd, name) >= count, TEST_TIMEOUT_MS);
    cr_assert(is_so, "%lld calls of %s have not ended", (long long)count, name);
}
