/* What completes the configuration from outside its file: the environment, systemd credentials and
 * secret files. */
#ifndef USERD_COMMON_SETTINGS_ENVIRONMENT_H
#define USERD_COMMON_SETTINGS_ENVIRONMENT_H

#include "common/settings.h"
#include "common/settings_complaints.h"

/* DB_URL and KAFKA_BOOTSTRAP_SERVERS win over what the settings hold; empty ones count as unset. */
void settings_environment_apply(struct settings *settings, struct settings_complaints *complaints);

/* Normalises database.url and puts the password from the credential "database-password" or from
 * database.password_file into it, unless it carries one. `file` and the lines are where complaints
 * point. */
void settings_environment_complete_url(struct settings *settings, const char *file,
    unsigned int url_line, unsigned int password_line, struct settings_complaints *complaints);

#endif
