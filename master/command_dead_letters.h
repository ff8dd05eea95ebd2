/* `userd dead-letters`: see, send again or set aside the events that could not be applied. */
#ifndef USERD_MASTER_COMMAND_DEAD_LETTERS_H
#define USERD_MASTER_COMMAND_DEAD_LETTERS_H

#define COMMAND_DEAD_LETTERS_USAGE                                                                 \
    "dead-letters list [--json] | show ID | replay ID [--value FILE] | replay ID... | drop ID... " \
    "[--all] [-c FILE] [--env-file FILE]"

int command_dead_letters(int argc, char **argv);

#endif
