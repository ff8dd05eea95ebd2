/* kafka.options of the configuration, on their way to librdkafka.
 *
 * librdkafka itself says which properties there are and which client each is for; a property of the
 * producer's does not go to the consumer, nor the other way round. Values are never logged.
 */
#ifndef USERD_EVENTD_KAFKA_OPTIONS_H
#define USERD_EVENTD_KAFKA_OPTIONS_H

#include <librdkafka/rdkafka.h>

#include "common/attributes.h"
#include "common/settings.h"

/* One is refused, counted as in `settings`: what is wrong, and what was expected where librdkafka
 * says it. */
typedef void kafka_options_refused(size_t option, const char *reason, void *userdata);

/* Sets what is for a client of this type. -EINVAL: some were refused, and each was said. -ENOMEM.
 */
MUST_CHECK int kafka_options_set(const struct settings *settings, rd_kafka_type_t type,
    rd_kafka_conf_t *configuration, kafka_options_refused *on_refused, void *userdata);
/* The same; what is refused is logged with the option's name and line. */
MUST_CHECK int kafka_options_apply(
    const struct settings *settings, rd_kafka_type_t type, rd_kafka_conf_t *configuration);

#endif
