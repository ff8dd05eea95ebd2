/* What the service under test says of itself: `userd status --json`. */
#ifndef USERD_TESTS_HARNESS_TEST_STATUS_H
#define USERD_TESTS_HARNESS_TEST_STATUS_H

#include <jansson.h>

#include "common/attributes.h"

#include "tests/harness/test_userd.h"

/* The whole report; json_decref() it. */
json_t *test_status_read(struct test_userd *userd);
/* The number `name` in the object `group` of `object` (NULL: in `object` itself). */
json_int_t test_status_number(json_t *object, const char *group, const char *name);
/* The entry of a method ("user.User/GetUser"), borrowed from the report. */
json_t *test_status_method(json_t *report, const char *name);

json_int_t test_status_calls_begun(struct test_userd *userd);
/* Waits until the workers have begun, or done with, `count` calls: a client that gave a call up
 * knows so earlier than its worker. */
void then_calls_have_begun(struct test_userd *userd, json_int_t count);
void then_method_has_ended(struct test_userd *userd, const char *name, json_int_t count);

#endif
