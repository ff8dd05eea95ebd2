#include "common/trace_context.h"

#include <string.h>

#define LENGTH        (TRACE_CONTEXT_SIZE - 1)
#define VERSION_END   2
#define TRACE_START   3
#define TRACE_END     35
#define PARENT_START  36
#define PARENT_END    52
#define FLAGS_START   53
#define FIRST_VERSION "00"
#define NO_VERSION    "ff"

/* Lower case hexadecimal digits, as the recommendation asks. */
static bool is_hex(const char *text, size_t start, size_t end)
{
    for (size_t i = start; i < end; i++) {
        bool is_digit = (text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f');
        if (!is_digit)
            return false;
    }
    return true;
}

static bool is_zero(const char *text, size_t start, size_t end)
{
    for (size_t i = start; i < end; i++) {
        if (text[i] != '0')
            return false;
    }
    return true;
}

bool trace_context_read(const char *text, size_t length, char ret_traceparent[TRACE_CONTEXT_SIZE])
{
    if (length < LENGTH || text[VERSION_END] != '-' || text[TRACE_END] != '-' ||
        text[PARENT_END] != '-')
        return false;
    if (!is_hex(text, 0, VERSION_END) || !is_hex(text, TRACE_START, TRACE_END) ||
        !is_hex(text, PARENT_START, PARENT_END) || !is_hex(text, FLAGS_START, LENGTH))
        return false;
    if (is_zero(text, TRACE_START, TRACE_END) || is_zero(text, PARENT_START, PARENT_END))
        return false;
    bool is_first = memcmp(text, FIRST_VERSION, VERSION_END) == 0;
    if (memcmp(text, NO_VERSION, VERSION_END) == 0)
        return false;
    if (length > LENGTH && (is_first || text[LENGTH] != '-'))
        return false;
    memcpy(ret_traceparent, text, LENGTH);
    memcpy(ret_traceparent, FIRST_VERSION, VERSION_END);
    ret_traceparent[LENGTH] = '\0';
    return true;
}
