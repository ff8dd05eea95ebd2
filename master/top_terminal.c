#include "master/top_terminal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/file_descriptor.h"

#define ENTER           "\033[?1049h\033[?25l\033[2J" /* alternate screen, no cursor, clear */
#define LEAVE           "\033[0m\033[?25h\033[?1049l"
#define HOME            "\033[H"
#define CLEAR_LINE      "\033[K"
#define CLEAR_BELOW     "\033[J"
#define NEXT_LINE       "\r\n"
#define ROWS_DEFAULT    24
#define COLUMNS_DEFAULT 80

bool top_terminal_is_there(void)
{
    return isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1;
}

int top_terminal_enter(struct top_terminal *terminal)
{
    if (!terminal->is_entered && tcgetattr(STDIN_FILENO, &terminal->before) != 0)
        return -errno;
    struct termios raw = terminal->before;
    /* keys as they are typed; Ctrl-C and Ctrl-Z stay signals */
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) != 0)
        return -errno;
    terminal->is_entered = true;
    return fd_write_all(STDOUT_FILENO, ENTER, strlen(ENTER));
}

void top_terminal_leave(struct top_terminal *terminal)
{
    if (!terminal->is_entered)
        return;
    terminal->is_entered = false;
    (void)!fd_write_all(STDOUT_FILENO, LEAVE, strlen(LEAVE));
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &terminal->before);
}

struct top_size top_terminal_size(void)
{
    struct winsize size = {0};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0)
        size = (struct winsize){0};
    return (struct top_size){
        .rows = size.ws_row > 0 ? size.ws_row : ROWS_DEFAULT,
        .columns = size.ws_col > 0 ? size.ws_col : COLUMNS_DEFAULT,
    };
}

/* In one write, so that no half of it is seen. */
int top_terminal_show(const char *frame, size_t length)
{
    char *text = NULL;
    size_t text_length = 0;
    FILE *stream = open_memstream(&text, &text_length);
    if (stream == NULL)
        return -errno;
    (void)fputs(HOME, stream);
    const char *end = frame + length;
    for (const char *line = frame; line < end;) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        const char *line_end = newline == NULL ? end : newline;
        (void)fwrite(line, 1, (size_t)(line_end - line), stream);
        (void)fputs(CLEAR_LINE, stream);
        line = newline == NULL ? end : newline + 1;
        /* a newline behind the last line of the screen would scroll it */
        if (line < end)
            (void)fputs(NEXT_LINE, stream);
    }
    (void)fputs(CLEAR_BELOW, stream);
    int result = fclose(stream) == 0 ? 0 : -ENOMEM;
    if (result == 0)
        result = fd_write_all(STDOUT_FILENO, text, text_length);
    free(text);
    return result;
}
