/* Carries one child's part of the settings in the Start frame, by the same table (settings.h). */
#ifndef USERD_COMMON_SETTINGS_TRANSFER_H
#define USERD_COMMON_SETTINGS_TRANSFER_H

#include "common/settings.h"

#include "ipc.pb-c.h"

/* Builds a Start frame body with the settings that `audience` may see (listeners go to workers
 * only). The result points into `settings` and into memory of its own: free with
 * settings_transfer_free(). */
MUST_CHECK int settings_transfer_pack(const struct settings *settings,
    enum setting_audience audience, uint32_t slot, uint32_t generation,
    Userd__Ipc__Start **ret_start);
/* Whether that audience would be sent the same: a process of it has no use for a change. 0 or
 * -ENOMEM. */
MUST_CHECK int settings_transfer_is_same(const struct settings *one, const struct settings *other,
    enum setting_audience audience, bool *ret_is_same);
void settings_transfer_free(Userd__Ipc__Start *start);

/* The reverse. Unknown names, wrong types and values out of bounds are -EPROTO: both ends are of
 * one build. */
MUST_CHECK int settings_transfer_unpack(
    const Userd__Ipc__Start *start, struct settings *ret_settings);

#endif
