/* Reads userd.conf (libconfig) into settings, with every complaint as "file:line: what is wrong,
 * what was expected"; with files that it includes (settings_source.h).
 *
 * Unknown settings are refused with the nearest known name. DB_URL and KAFKA_BOOTSTRAP_SERVERS of
 * the environment win over the file. A secret kept in a file (database.password_file, or the
 * systemd credential "database-password", which is looked for first) is read here, by the master,
 * and becomes part of database.url's audience only.
 */
#ifndef USERD_COMMON_SETTINGS_FILE_H
#define USERD_COMMON_SETTINGS_FILE_H

#include "common/settings.h"
#include "common/settings_complaints.h"

#define SETTINGS_FILE_DEFAULT "/etc/userd/userd.conf"

/* Reads, checks and completes. On success fills *ret_settings (the caller cleans it up) and returns
 * 0. Otherwise -EINVAL, -ENOENT ... with every complaint found, not only the first. *warnings gets
 * what is in force and should not be as it is. */
MUST_CHECK int settings_file_read(const char *path, struct settings *ret_settings,
    struct settings_complaints *complaints, struct settings_complaints *warnings);
/* Where the service of this configuration has its run_dir (malloc'ed): reads as far as that needs,
 * so that a configuration with mistakes elsewhere will do, and no environment and no secret is
 * asked for. 0, or a negative errno with complaints. */
MUST_CHECK int settings_file_find_run_dir(
    const char *path, char **ret_run_dir, struct settings_complaints *complaints);

#endif
