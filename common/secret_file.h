/* A secret that is kept in a file: a systemd credential, or a file that the configuration names.
 *
 * Secrets live in malloc'ed memory, are wiped before they are freed, and are never logged.
 */
#ifndef USERD_COMMON_SECRET_FILE_H
#define USERD_COMMON_SECRET_FILE_H

#include <stdbool.h>

#include "common/attributes.h"

#define SECRET_FILE_MAX_BYTES 65536

struct secret_file {
    char *secret;           /* owned, wiped */
    char *place;            /* owned: the path; set on failure too, but for -ENODATA and -ENOMEM */
    bool is_world_readable; /* everybody may read the file */
};

/* Reads the credential of that name if systemd has passed one ($CREDENTIALS_DIRECTORY), else the
 * file `path`; "" stands for no file. Line ends at the end are cut off. secret_file_cleanup() in
 * any case. -ENODATA: neither a credential nor a file. Other errors: -EMSGSIZE (too long to be a
 * secret), -EILSEQ (holds a NUL), -EPERM (not a regular file), what open and read say. */
MUST_CHECK int secret_file_read(
    const char *credential, const char *path, struct secret_file *ret_file);
/* The error in words. */
const char *secret_file_reason(int error);
/* For CLEANUP. */
void secret_file_cleanup(struct secret_file *file);
/* Wipes and frees; *secret may be NULL. For CLEANUP. */
void secret_file_wipe(char **secret);

#endif
