/* What a configuration that is read without a mistake must keep besides: names that Kafka takes,
 * addresses that can be bound beside each other, topics that are not read and written at once. */
#ifndef USERD_COMMON_SETTINGS_RULES_H
#define USERD_COMMON_SETTINGS_RULES_H

#include "common/settings_reader.h"

/* Complaints go to the reader. Call it with the environment applied. */
void settings_rules_check(const struct settings_reader *reader);

#endif
