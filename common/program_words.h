/* What each of our programs answers to a person who runs it by hand. */
#ifndef USERD_COMMON_PROGRAM_WORDS_H
#define USERD_COMMON_PROGRAM_WORDS_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* True: the first word was --version or --help, which is answered on standard output. */
static inline bool program_words_answer(
    int argc, char **argv, const char *program, const char *purpose)
{
    const char *word = argc > 1 ? argv[1] : "";
    if (strcmp(word, "--version") == 0)
        (void)printf("%s %s\n", program, USERD_VERSION);
    else if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        (void)printf("%s: %s\n", program, purpose);
    else
        return false;
    return fflush(stdout) == 0;
}

#endif
