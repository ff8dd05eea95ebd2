#include "master/reload_check.h"

#include <string.h>

#include "common/settings_file.h"

/* Locks, sockets and the programs that people ask with are found by them. */
static const char *const fixed_settings[] = {"run_dir"};

int reload_check_keep_fixed(const char *file, const struct settings *current, struct settings *next,
    struct settings_complaints *warnings)
{
    for (size_t i = 0; i < ARRAY_LENGTH(fixed_settings); i++) {
        const struct setting_row *row = settings_find(fixed_settings[i]);
        const char *before = settings_text(current, row);
        const char *asked = settings_text(next, row);
        if (strcmp(before, asked) == 0)
            continue;
        settings_complaints_add(warnings, file, 0,
            "%s is now \"%s\" and stays \"%s\" until a restart", row->name, asked, before);
        int result = settings_set_text(next, row, before);
        if (result < 0)
            return result;
    }
    return 0;
}

int reload_check_file(const char *file, const struct settings *current, struct settings *ret_next,
    struct settings_complaints *complaints, struct settings_complaints *warnings)
{
    struct settings next = {0};
    int result = settings_file_read(file, &next, complaints, warnings);
    if (result == 0)
        result = reload_check_keep_fixed(file, current, &next, warnings);
    if (result < 0) {
        if (complaints->count == 0)
            settings_complaints_add(complaints, file, 0, "%s", strerror(-result));
        settings_cleanup(&next);
        return result;
    }
    *ret_next = next;
    return 0;
}
