/* What worker/events/event_decode says of records, for tests in other languages.
 *
 * Reads records from standard input: a byte 'r' (registration) or 'd' (admin_delete_user), four
 * bytes with the length of the value (little endian), the value. Prints a line for each: "ok ID
 * NAME", the name in hexadecimal digits and "-" where there is none, or "no REASON".
 */
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/events/event_decode.h"

#define LENGTH_BYTES 4

static bool read_record(enum user_event_kind *ret_kind, char **ret_value, size_t *ret_length)
{
    uint8_t length[LENGTH_BYTES];
    int kind = getchar();
    if (kind == EOF || fread(length, 1, sizeof(length), stdin) != sizeof(length))
        return false;
    *ret_kind = kind == 'r' ? USER_EVENT_REGISTRATION : USER_EVENT_ADMIN_DELETE;
    *ret_length = 0;
    for (size_t i = LENGTH_BYTES; i > 0; i--)
        *ret_length = *ret_length << 8 | length[i - 1];
    *ret_value = malloc(*ret_length + 1);
    return *ret_value != NULL && fread(*ret_value, 1, *ret_length, stdin) == *ret_length;
}

static void print_event(const struct decoded_event *event)
{
    (void)printf("ok %" PRIi32 " %s", event->auth_id, event->username == NULL ? "-" : "");
    for (size_t i = 0; event->username != NULL && i < event->username_length; i++)
        (void)printf("%02x", (uint8_t)event->username[i]);
    (void)putchar('\n');
}

int main(void)
{
    enum user_event_kind kind = USER_EVENT_REGISTRATION;
    char *value = NULL;
    size_t length = 0;
    while (read_record(&kind, &value, &length)) {
        struct decoded_event event = {0};
        const char *reason = NULL;
        /* A copy of just the record's size: a sanitizer sees each byte that is read behind it. */
        int result = event_decode(kind, value, length, &event, &reason);
        if (result == 0)
            print_event(&event);
        else
            (void)printf("no %s\n", result == -ENOMEM ? "memory" : reason);
        decoded_event_cleanup(&event);
        free(value);
        value = NULL;
    }
    free(value);
    return 0;
}
