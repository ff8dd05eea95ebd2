#include "common/secret_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bounded_file.h"

void secret_file_wipe(char **secret)
{
    if (*secret != NULL)
        explicit_bzero(*secret, strlen(*secret));
    free(*secret);
    *secret = NULL;
}

static int read_file(const char *path, char **ret_secret)
{
    struct bounded_file file CLEANUP(bounded_file_cleanup) = {0};
    int result = bounded_file_read(path, SECRET_FILE_MAX_BYTES, &file);
    if (result < 0)
        return result == -EFBIG ? -EMSGSIZE : result;
    if (strlen(file.text) != file.length)
        return -EILSEQ;
    size_t length = file.length;
    while (length > 0 && (file.text[length - 1] == '\n' || file.text[length - 1] == '\r'))
        length--;
    char *secret = strndup(file.text, length);
    if (secret == NULL)
        return -ENOMEM;
    *ret_secret = secret;
    return 0;
}

int secret_file_read(const char *credential, const char *path, char **ret_secret, char **ret_place)
{
    const char *directory = getenv("CREDENTIALS_DIRECTORY");
    char *place = NULL;
    if (directory != NULL && *directory != '\0') {
        if (asprintf(&place, "%s/%s", directory, credential) < 0)
            return -ENOMEM;
        int result = read_file(place, ret_secret);
        if (result != -ENOENT) {
            *ret_place = place;
            return result;
        }
        free(place);
    }
    if (*path == '\0')
        return -ENODATA;
    place = strdup(path);
    if (place == NULL)
        return -ENOMEM;
    *ret_place = place;
    return read_file(path, ret_secret);
}
