/* The files that kafka.options name (certificates, keys, a keytab): librdkafka reads them once,
 * when eventd starts, so that one that was replaced under its name needs a new eventd. Reads none
 * of them: what the file system says of them is enough. */
#ifndef USERD_MASTER_KAFKA_FILES_H
#define USERD_MASTER_KAFKA_FILES_H

#include <stdint.h>

#include "common/settings.h"

/* Changes when one of the files, or an entry of a directory that is named, was written, replaced,
 * made or removed. Never 0. */
uint64_t kafka_files_fingerprint(const struct settings *settings);

#endif
