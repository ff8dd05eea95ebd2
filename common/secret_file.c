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

void secret_file_cleanup(struct secret_file *file)
{
    secret_file_wipe(&file->secret);
    free(file->place);
    file->place = NULL;
}

const char *secret_file_reason(int error)
{
    if (error == -EPERM)
        return "it is not a regular file";
    if (error == -EILSEQ)
        return "it holds a NUL byte";
    return strerror(-error);
}

/* Of the file at `file->place`. */
static int read_place(struct secret_file *file)
{
    struct bounded_file content CLEANUP(bounded_file_cleanup) = {0};
    int result = bounded_file_read(file->place, SECRET_FILE_MAX_BYTES, &content);
    if (result < 0)
        return result == -EFBIG ? -EMSGSIZE : result;
    if (strlen(content.text) != content.length)
        return -EILSEQ;
    size_t length = content.length;
    while (length > 0 && (content.text[length - 1] == '\n' || content.text[length - 1] == '\r'))
        length--;
    file->secret = strndup(content.text, length);
    file->is_world_readable = content.is_world_readable;
    return file->secret == NULL ? -ENOMEM : 0;
}

int secret_file_read(const char *credential, const char *path, struct secret_file *ret_file)
{
    *ret_file = (struct secret_file){0};
    const char *directory = getenv("CREDENTIALS_DIRECTORY");
    if (directory != NULL && *directory != '\0') {
        if (asprintf(&ret_file->place, "%s/%s", directory, credential) < 0)
            return -ENOMEM;
        int result = read_place(ret_file);
        if (result != -ENOENT)
            return result;
        free(ret_file->place);
        ret_file->place = NULL;
    }
    if (*path == '\0')
        return -ENODATA;
    ret_file->place = strdup(path);
    return ret_file->place == NULL ? -ENOMEM : read_place(ret_file);
}
