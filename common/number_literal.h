/* Numbers as they stand in a configuration. libconfig 1.5 reads one without the suffix L modulo
 * 2^32, and one with it modulo 2^64: what it makes of a number is known only from the text. */
#ifndef USERD_COMMON_NUMBER_LITERAL_H
#define USERD_COMMON_NUMBER_LITERAL_H

#include <stdbool.h>
#include <stddef.h>

enum number_literal {
    NUMBER_LITERAL_FITS,       /* as it stands; also any that is no whole number */
    NUMBER_LITERAL_NEEDS_MARK, /* more than 32 bits: it wants an L behind it */
    NUMBER_LITERAL_TOO_LARGE,  /* more than 64 bits */
};

/* Whether a number begins at `text`: a digit, or a sign or point before one. */
bool number_literal_begins(const char *text);
/* `text` begins a number; *ret_length is how long it is, with its suffix. */
enum number_literal number_literal_scan(const char *text, size_t *ret_length);

#endif
