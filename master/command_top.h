/* `userd top`: what the running service does, live in a terminal; once, as `userd status` says it,
 * where there is none. */
#ifndef USERD_MASTER_COMMAND_TOP_H
#define USERD_MASTER_COMMAND_TOP_H

#define COMMAND_TOP_USAGE "top [-c FILE | --run-dir DIR]"

int command_top(int argc, char **argv);

#endif
