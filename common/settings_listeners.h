/* The list "listeners" of userd.conf. */
#ifndef USERD_COMMON_SETTINGS_LISTENERS_H
#define USERD_COMMON_SETTINGS_LISTENERS_H

#include "common/settings_reader.h"

#define SETTINGS_LISTENERS "listeners"

/* Reads the list into the reader's settings. Complaints go to the reader. */
void settings_listeners_read(const struct settings_reader *reader, const config_setting_t *setting);
/* The platform's two, where the configuration has no such list. */
void settings_listeners_add_standard(const struct settings_reader *reader);

#endif
