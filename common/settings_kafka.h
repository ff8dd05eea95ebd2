/* kafka.options of userd.conf: properties that are handed to librdkafka as they are.
 *
 * Knows which properties are not for sale, because a promise of ours stands on them, and refuses
 * those with the reason; whether a property exists at all only eventd can say, since nothing else
 * knows librdkafka (master/settings_check.h asks it). `NAME_file` takes the value of NAME from a
 * file or a systemd credential.
 */
#ifndef USERD_COMMON_SETTINGS_KAFKA_H
#define USERD_COMMON_SETTINGS_KAFKA_H

#include <stdbool.h>

#include "common/settings.h"

#define SETTINGS_KAFKA_OPTIONS   "kafka.options"
#define SETTINGS_KAFKA_NAME_SIZE 128 /* of an option, with its end */

struct settings_reader;
struct config_setting_t; /* libconfig's */

/* Reads the group into kafka_options of the reader's settings. Complaints go to it. */
void settings_kafka_read(const struct settings_reader *all, const struct config_setting_t *group);

/* Why a property ("enable.idempotence") is not to be set, or NULL. */
const char *settings_kafka_refusal(const char *property);
/* The name under which a property stands in the file: "enable_idempotence". Cut off at `size`. */
void settings_kafka_name(const char *property, char *target, size_t size);
/* Whether a property's value must not be shown. */
bool settings_kafka_is_secret(const char *property);

#endif
