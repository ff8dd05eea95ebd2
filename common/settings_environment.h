/* What completes the configuration from outside its file: the environment, systemd credentials and
 * secret files. */
#ifndef USERD_COMMON_SETTINGS_ENVIRONMENT_H
#define USERD_COMMON_SETTINGS_ENVIRONMENT_H

#include "common/secret_file.h"
#include "common/settings_reader.h"

/* DB_URL, and KAFKA_URL or else KAFKA_BOOTSTRAP_SERVERS, win over what the settings hold; empty
 * ones count as unset. */
void settings_environment_apply(const struct settings_reader *reader);
/* Where a setting's value came from: "environment: DB_URL", or the file. */
struct settings_place settings_environment_place(
    const struct settings_reader *reader, const char *setting);

/* Normalises database.url and puts the password from the credential "database-password" or from
 * database.password_file into it, unless it carries one. */
void settings_environment_complete_url(const struct settings_reader *reader);

/* Warns of a secret that everybody can read. */
void settings_environment_warn_of_secret(const struct settings_reader *reader,
    const struct settings_place *place, const char *setting, const struct secret_file *secret);

#endif
