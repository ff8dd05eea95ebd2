/* `userd status`, `metrics`, `reload` and `stop`: what is asked of the running service, through
 * run_dir/admin.sock.
 *
 * run_dir is named, or the configuration's, or the standard one where no configuration can be read.
 * Exit 1: nothing runs there, or what was asked was not done; the reason is on standard error. */
#ifndef USERD_MASTER_COMMAND_ADMIN_H
#define USERD_MASTER_COMMAND_ADMIN_H

#define COMMAND_ADMIN_STATUS_USAGE  "status [-c FILE | --run-dir DIR] [--json]"
#define COMMAND_ADMIN_METRICS_USAGE "metrics [-c FILE | --run-dir DIR] [--listen ADDRESS:PORT]"
#define COMMAND_ADMIN_RELOAD_USAGE  "reload [-c FILE | --run-dir DIR]"
#define COMMAND_ADMIN_UPGRADE_USAGE "upgrade [-c FILE | --run-dir DIR]"
#define COMMAND_ADMIN_STOP_USAGE    "stop [-c FILE | --run-dir DIR]"

int command_admin_status(int argc, char **argv);
int command_admin_metrics(int argc, char **argv);
int command_admin_reload(int argc, char **argv);
int command_admin_upgrade(int argc, char **argv);
int command_admin_stop(int argc, char **argv);

#endif
