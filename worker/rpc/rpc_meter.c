#include "worker/rpc/rpc_meter.h"

#include <stdbool.h>
#include <string.h>

#include "common/log.h"

struct scoreboard_method *rpc_meter_open(struct scoreboard_slot *slot, const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; length < SCOREBOARD_NAME_SIZE && i < SCOREBOARD_METHODS; i++) {
        struct scoreboard_method *row = &slot->methods[i];
        bool is_named = atomic_load_explicit(&row->is_named, memory_order_relaxed) != 0;
        if (is_named && strcmp(row->name, name) == 0)
            return row;
        if (is_named)
            continue;
        memcpy(row->name, name, length + 1);
        atomic_store_explicit(&row->is_named, 1, memory_order_release);
        return row;
    }
    log_warn("method not counted method=%s reason=\"no row on the scoreboard\"", name);
    return NULL;
}
