/* `userd status`, `metrics`, `reload` and `stop`: what is asked of the running service, through
 * run_dir/admin.sock.
 *
 * run_dir is named, or the configuration's; a configuration that was named and cannot be read is an
 * error (78). Exit 1: nothing runs there, or what was asked was not done; the reason is on standard
 * error. */
#ifndef USERD_MASTER_COMMAND_ADMIN_H
#define USERD_MASTER_COMMAND_ADMIN_H

#include "common/attributes.h"

#define COMMAND_ADMIN_STATUS_USAGE  "status [-c FILE | --run-dir DIR] [--json]"
#define COMMAND_ADMIN_METRICS_USAGE "metrics [-c FILE | --run-dir DIR] [--listen ADDRESS:PORT]"
#define COMMAND_ADMIN_RELOAD_USAGE  "reload [-c FILE | --run-dir DIR]"
#define COMMAND_ADMIN_UPGRADE_USAGE "upgrade [-c FILE | --run-dir DIR]"
#define COMMAND_ADMIN_STOP_USAGE    "stop [-c FILE | --run-dir DIR]"

struct command_options;

/* For commands that ask the same service: EX_OK, or EX_USAGE with the reason on standard error. */
MUST_CHECK int command_admin_parse(
    int argc, char **argv, const char *usage, struct command_options *ret_options);
/* The caller's to free. EX_OK, or the exit status with the reason on standard error. */
MUST_CHECK int command_admin_find_run_dir(
    const struct command_options *options, char **ret_run_dir);
/* Once: the table, or JSON where the options ask for it. The exit status. */
int command_admin_show_status(const struct command_options *options);

int command_admin_status(int argc, char **argv);
int command_admin_metrics(int argc, char **argv);
int command_admin_reload(int argc, char **argv);
int command_admin_upgrade(int argc, char **argv);
int command_admin_stop(int argc, char **argv);

#endif
