/* `userd run`: the service, in the foreground. */
#ifndef USERD_MASTER_COMMAND_RUN_H
#define USERD_MASTER_COMMAND_RUN_H

#define COMMAND_RUN_USAGE "run [-c FILE] [--env-file FILE] [--migrate]"

int command_run(int argc, char **argv);

#endif
