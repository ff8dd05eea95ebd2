/* A file of NAME=VALUE lines that completes the environment, as python-dotenv reads a ".env" for
 * the legacy service.
 *
 *   # a comment             export NAME=value       NAME="a \"quoted\" value with ${OTHER}"
 *   NAME=value # comment    NAME='as it stands'     NAME=${OTHER:-what holds without OTHER}
 *
 * The environment wins over the file, and of one name in the file the last. Only the variables that
 * userd reads are set; the others are there for ${NAME}.
 */
#ifndef USERD_COMMON_ENVIRONMENT_FILE_H
#define USERD_COMMON_ENVIRONMENT_FILE_H

#include "common/attributes.h"
#include "common/settings_complaints.h"

#define ENVIRONMENT_FILE_MAX_BYTES     65536
#define ENVIRONMENT_FILE_MAX_VARIABLES 256

/* Before there are threads. 0, or a negative errno with complaints, which hold no value. */
MUST_CHECK int environment_file_apply(
    const char *path, struct settings_complaints *complaints, struct settings_complaints *warnings);

#endif
