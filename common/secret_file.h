/* A secret that is kept in a file: a systemd credential, or a file that the configuration names.
 *
 * Secrets live in malloc'ed memory, are wiped before they are freed, and are never logged.
 */
#ifndef USERD_COMMON_SECRET_FILE_H
#define USERD_COMMON_SECRET_FILE_H

#include "common/attributes.h"

#define SECRET_FILE_MAX_BYTES 65536

/* Reads the credential of that name if systemd has passed one ($CREDENTIALS_DIRECTORY), else the
 * file `path`; "" stands for no file. Line ends at the end are cut off. *ret_place, malloc'ed, is
 * set on failure too, but for -ENODATA: neither a credential nor a file, and -ENOMEM. Other errors:
 * -EMSGSIZE (too long to be a secret), -EILSEQ (holds a NUL), what open and read say. */
MUST_CHECK int secret_file_read(
    const char *credential, const char *path, char **ret_secret, char **ret_place);
/* Wipes and frees; *secret may be NULL. For CLEANUP. */
void secret_file_wipe(char **secret);

#endif
