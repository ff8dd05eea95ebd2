/* `userd migrate`: brings the schema up or down, or says where it stands. */
#ifndef USERD_MASTER_COMMAND_MIGRATE_H
#define USERD_MASTER_COMMAND_MIGRATE_H

#define COMMAND_MIGRATE_USAGE                                                   \
    "migrate up [--dry-run] | down [N] | status [--timeout SECONDS] [-c FILE] " \
    "[--env-file FILE]"

int command_migrate(int argc, char **argv);

#endif
