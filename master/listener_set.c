#include "master/listener_set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

int listener_set_open(struct listener_set *set, const struct settings *settings, const char *file,
    struct settings_complaints *complaints)
{
    struct listener_inheritance inheritance = {0};
    int result = listener_inheritance_take(&inheritance);
    if (result < 0) {
        settings_complaints_add(
            complaints, NULL, 0, "the sockets from systemd cannot be read: %s", strerror(-result));
        return result;
    }
    for (size_t i = 0; result == 0 && i < settings->listener_count; i++) {
        result =
            listener_open(&settings->listeners[i], file, &inheritance, complaints, &set->items[i]);
        set->count += result == 0 ? 1 : 0;
    }
    listener_inheritance_cleanup(&inheritance);
    return result;
}

void listener_set_close(struct listener_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        listener_close(&set->items[i]);
    set->count = 0;
}

static bool is_taken(const struct listener_change *change, size_t place)
{
    for (size_t i = 0; i < change->count; i++)
        if (change->kept_from[i] == (int)place)
            return true;
    return false;
}

static bool is_same(const struct listener *listener, const struct settings_listener *setting)
{
    return strcmp(listener->name, setting->name) == 0 &&
           (listener->is_inherited || strcmp(listener->address, setting->address) == 0);
}

/* By name first: two may have the same address, as "127.0.0.1:0" is a port of each one's own. A
 * name that stays with another listener of the next configuration is not taken by address. */
static int find_kept(const struct listener_set *set, const struct settings *next, size_t number,
    const struct listener_change *change)
{
    const struct settings_listener *setting = &next->listeners[number];
    for (size_t i = 0; i < set->count; i++)
        if (is_same(&set->items[i], setting) && !is_taken(change, i))
            return (int)i;
    for (size_t i = 0; i < set->count; i++) {
        const struct listener *listener = &set->items[i];
        if (listener->is_inherited || strcmp(listener->address, setting->address) != 0 ||
            is_taken(change, i))
            continue;
        bool is_wanted_by_name = false;
        for (size_t j = 0; j < next->listener_count; j++)
            is_wanted_by_name |= is_same(listener, &next->listeners[j]);
        if (!is_wanted_by_name)
            return (int)i;
    }
    return -1;
}

static int keep(const struct listener *from, const struct settings_listener *setting,
    struct listener *ret_listener)
{
    struct listener listener = *from;
    listener.fd = -1; /* until the commit it is the other set's */
    listener.name = strdup(setting->name);
    listener.address = strdup(setting->address);
    if (listener.name == NULL || listener.address == NULL) {
        listener_close(&listener);
        return -ENOMEM;
    }
    *ret_listener = listener;
    return 0;
}

int listener_set_prepare(const struct listener_set *set, const struct settings *next,
    const char *file, struct settings_complaints *complaints, struct listener_change *ret_change)
{
    struct listener_change change = {0};
    int result = 0;
    for (size_t i = 0; i < next->listener_count && result == 0; i++) {
        int place = find_kept(set, next, i, &change);
        result = place >= 0
                     ? keep(&set->items[place], &next->listeners[i], &change.items[i])
                     : listener_open(&next->listeners[i], file, NULL, complaints, &change.items[i]);
        change.kept_from[i] = place;
        change.count += result == 0 ? 1 : 0;
    }
    if (result < 0) {
        listener_set_abandon(&change);
        return result;
    }
    *ret_change = change;
    return 0;
}

static bool is_same_arrangement(
    const struct listener_set *set, const struct listener_change *change)
{
    bool is_same = set->count == change->count;
    for (size_t i = 0; i < change->count; i++)
        is_same = is_same && change->kept_from[i] == (int)i;
    return is_same;
}

void listener_set_commit(struct listener_set *set, struct listener_change *change)
{
    set->arrangement += is_same_arrangement(set, change) ? 0 : 1;
    for (size_t i = 0; i < change->count; i++) {
        if (change->kept_from[i] < 0)
            continue;
        struct listener *from = &set->items[change->kept_from[i]];
        change->items[i].fd = from->fd;
        from->fd = -1;
    }
    for (size_t i = 0; i < set->count; i++)
        if (set->items[i].fd >= 0)
            log_info("listener closed listener=%s address=%s", set->items[i].name,
                set->items[i].bound_text);
    listener_set_close(set);
    memcpy(set->items, change->items, sizeof(set->items));
    set->count = change->count;
    *change = (struct listener_change){0};
}

void listener_set_abandon(struct listener_change *change)
{
    for (size_t i = 0; i < change->count; i++)
        listener_close(&change->items[i]);
    *change = (struct listener_change){0};
}
