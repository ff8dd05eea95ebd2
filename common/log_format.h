/* printf for lines of key=value fields, in which no value can pass for another field.
 *
 *   error="%s"   quotes and backslashes in the value are escaped by a backslash
 *   file=%s      the value is quoted, and escaped likewise, when it is empty or has a blank, a
 *                quote, an equals sign or a backslash in it
 *   %s elsewhere stays as it is: free text, or a further part of a field (n=%d%s), which must be
 *                the program's own
 *
 * So a line can be taken apart again, whatever a peer has put into a value.
 */
#ifndef USERD_COMMON_LOG_FORMAT_H
#define USERD_COMMON_LOG_FORMAT_H

#include <stdarg.h>
#include <stddef.h>

/* As vsnprintf(), but that the result is the length of what is there. Knows the conversions
 * diouxXcsp, aefg and %, with flags, widths, precisions and lengths. */
size_t log_format(char *target, size_t size, const char *format, va_list arguments)
    __attribute__((format(printf, 3, 0)));

#endif
