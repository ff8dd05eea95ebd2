/* `userd check`: reads the configuration as `run` would and says it back, with defaults and
 * environment in it and without secrets, in the syntax of the file. With --connect it has the
 * children's programs try what they would connect to instead. */
#ifndef USERD_MASTER_COMMAND_CHECK_H
#define USERD_MASTER_COMMAND_CHECK_H

#define COMMAND_CHECK_USAGE "check [-c FILE] [--env-file FILE] [--connect]"

int command_check(int argc, char **argv);

#endif
