#include "worker/db/db_target.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SEPARATOR ','

void db_target_cleanup(struct db_target *target)
{
    free(target->host);
    free(target->host_address);
    free(target->port);
    *target = (struct db_target){0};
}

void db_target_list_cleanup(struct db_target_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        db_target_cleanup(&list->items[i]);
    free(list->items);
    *list = (struct db_target_list){0};
}

static bool copy_text(const char *text, char **ret_copy)
{
    *ret_copy = text ? strdup(text) : NULL;
    return *ret_copy || !text;
}

int db_target_copy(const struct db_target *target, struct db_target *ret_copy)
{
    struct db_target copy = {0};
    bool is_whole = copy_text(target->host, &copy.host);
    is_whole &= copy_text(target->host_address, &copy.host_address);
    is_whole &= copy_text(target->port, &copy.port);
    if (!is_whole) {
        db_target_cleanup(&copy);
        return -ENOMEM;
    }
    *ret_copy = copy;
    return 0;
}

/* An empty list has one element, as in libpq. */
static size_t count_elements(const char *list)
{
    if (!list)
        return 0;
    size_t count = 1;
    for (const char *place = strchr(list, SEPARATOR); place; place = strchr(place + 1, SEPARATOR))
        count++;
    return count;
}

/* Element `number` of a list; the only one there is serves all when `is_shared`. NULL stays NULL.
 */
static bool copy_element(const char *list, size_t number, bool is_shared, char **ret_copy)
{
    *ret_copy = NULL;
    if (!list)
        return true;
    size_t skipped = is_shared && count_elements(list) == 1 ? 0 : number;
    for (; skipped > 0; skipped--)
        list = strchr(list, SEPARATOR) + 1;
    *ret_copy = strndup(list, strcspn(list, ","));
    return *ret_copy != NULL;
}

static bool do_lists_fit(size_t count, const char *hosts, const char *addresses, const char *ports)
{
    size_t port_count = count_elements(ports);
    return count > 0 && (!hosts || count_elements(hosts) == count) &&
           (!addresses || count_elements(addresses) == count) &&
           (port_count <= 1 || port_count == count);
}

int db_target_list_split(const char *hosts, const char *host_addresses, const char *ports,
    struct db_target_list *ret_list)
{
    *ret_list = (struct db_target_list){0};
    size_t count = count_elements(host_addresses ? host_addresses : hosts);
    bool is_split = do_lists_fit(count, hosts, host_addresses, ports);
    if (!is_split)
        count = 1;
    struct db_target_list list = {.items = calloc(count, sizeof(*list.items))};
    if (!list.items)
        return -ENOMEM;
    list.count = count;
    bool is_whole = true;
    for (size_t i = 0; is_split && i < count; i++) {
        struct db_target *target = &list.items[i];
        is_whole &= copy_element(hosts, i, false, &target->host);
        is_whole &= copy_element(host_addresses, i, false, &target->host_address);
        is_whole &= copy_element(ports, i, true, &target->port);
        if (target->port && target->port[0] == '\0') {
            free(target->port);
            is_whole &= copy_text(DB_TARGET_DEFAULT_PORT, &target->port);
        }
    }
    if (!is_whole) {
        db_target_list_cleanup(&list);
        return -ENOMEM;
    }
    *ret_list = list;
    return 0;
}
