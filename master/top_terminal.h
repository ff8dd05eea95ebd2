/* The terminal of `userd top`: the alternate screen without echo, put back as it was on the way
 * out.
 *
 * Plain ANSI sequences that every terminal of today knows, and termios: a terminal library would be
 * linked by the master for one command.
 */
#ifndef USERD_MASTER_TOP_TERMINAL_H
#define USERD_MASTER_TOP_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <termios.h>

#include "common/attributes.h"

struct top_terminal {
    struct termios before;
    bool is_entered;
};

struct top_size {
    unsigned int rows;
    unsigned int columns;
};

/* Whether standard input and output are one. */
bool top_terminal_is_there(void);
/* 0 or negative errno. */
MUST_CHECK int top_terminal_enter(struct top_terminal *terminal);
/* As it was before. Twice is fine. */
void top_terminal_leave(struct top_terminal *terminal);
/* 24 x 80 where the terminal does not say. */
struct top_size top_terminal_size(void);
/* Shows a frame: lines of at most `size`, each ended by a newline. Waits for a slow terminal. 0, or
 * negative errno when the terminal has gone. */
MUST_CHECK int top_terminal_show(const char *frame, size_t length);

#endif
