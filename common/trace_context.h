/* W3C Trace Context, level 1: the `traceparent` that ties what we do to who asked for it.
 *
 * Pure. A traceparent that breaks the grammar is none: it is ignored, never passed on.
 */
#ifndef USERD_COMMON_TRACE_CONTEXT_H
#define USERD_COMMON_TRACE_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>

#define TRACE_CONTEXT_NAME "traceparent"
#define TRACE_CONTEXT_SIZE 56 /* "00-" trace id "-" parent id "-" flags, and a NUL */

/* Of a later version only what version 00 knows is taken, as version 00. */
bool trace_context_read(const char *text, size_t length, char ret_traceparent[TRACE_CONTEXT_SIZE]);

#endif
