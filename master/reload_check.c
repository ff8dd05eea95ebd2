#include "master/reload_check.h"

#include <errno.h>
#include <string.h>

#include "common/settings_file.h"

static const struct settings_listener *find_listener(
    const struct settings *settings, const char *name)
{
    for (size_t i = 0; i < settings->listener_count; i++)
        if (strcmp(settings->listeners[i].name, name) == 0)
            return &settings->listeners[i];
    return NULL;
}

/* Listeners live as long as the master does, and workers know them by number: what they are called,
 * where they are and their order cannot change under it. */
static void check_listeners(const char *file, const struct settings *current,
    const struct settings *next, struct settings_complaints *complaints)
{
    for (size_t i = 0; i < next->listener_count; i++) {
        const struct settings_listener *listener = &next->listeners[i];
        const struct settings_listener *before = find_listener(current, listener->name);
        if (before == NULL)
            settings_complaints_add(complaints, file, listener->line,
                "listener %s is new, expected a restart to add it", listener->name);
        else if (strcmp(before->address, listener->address) != 0)
            settings_complaints_add(complaints, file, listener->line,
                "listener %s has moved to \"%s\", expected \"%s\" until a restart", listener->name,
                listener->address, before->address);
        else if (before != &current->listeners[i])
            settings_complaints_add(complaints, file, listener->line,
                "listener %s has another place in the list, expected the order of the start",
                listener->name);
    }
    for (size_t i = 0; i < current->listener_count; i++)
        if (find_listener(next, current->listeners[i].name) == NULL)
            settings_complaints_add(complaints, file, 0,
                "listener %s is gone, expected a restart to remove it", current->listeners[i].name);
}

int reload_check_change(const char *file, const struct settings *current,
    const struct settings *next, struct settings_complaints *complaints)
{
    size_t before = complaints->count;
    check_listeners(file, current, next, complaints);
    if (strcmp(current->run_dir, next->run_dir) != 0)
        settings_complaints_add(complaints, file, 0,
            "run_dir is now \"%s\", expected \"%s\" until a restart", next->run_dir,
            current->run_dir);
    return complaints->count == before ? 0 : -EINVAL;
}

int reload_check_file(const char *file, const struct settings *current, struct settings *ret_next,
    struct settings_complaints *complaints)
{
    struct settings next = {0};
    int result = settings_file_read(file, &next, complaints);
    if (result < 0) {
        if (complaints->count == 0)
            settings_complaints_add(complaints, file, 0, "%s", strerror(-result));
        return result;
    }
    result = reload_check_change(file, current, &next, complaints);
    if (result < 0) {
        settings_cleanup(&next);
        return result;
    }
    *ret_next = next;
    return 0;
}
