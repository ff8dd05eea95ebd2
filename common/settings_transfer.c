#include "common/settings_transfer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

/* One allocation for the frame and all that it points to beside the settings' own strings. */
struct packed_start {
    Userd__Ipc__Start start;
    Userd__Ipc__SettingValue *values;
    Userd__Ipc__SettingValue **value_pointers;
    Userd__Ipc__Listener listeners[SETTINGS_MAX_LISTENERS];
    Userd__Ipc__Listener *listener_pointers[SETTINGS_MAX_LISTENERS];
    Userd__Ipc__KafkaOption options[SETTINGS_MAX_KAFKA_OPTIONS];
    Userd__Ipc__KafkaOption *option_pointers[SETTINGS_MAX_KAFKA_OPTIONS];
};

static void pack_value(
    const struct settings *settings, const struct setting_row *row, Userd__Ipc__SettingValue *value)
{
    userd__ipc__setting_value__init(value);
    value->name = borrow_const(row->name);
    if (row->type == SETTING_STRING) {
        value->value_case = USERD__IPC__SETTING_VALUE__VALUE_TEXT;
        value->text = borrow_const(settings_text(settings, row));
    } else {
        value->value_case = USERD__IPC__SETTING_VALUE__VALUE_INTEGER;
        value->integer = *settings_integer_const(settings, row);
    }
}

static void pack_listeners(const struct settings *settings, struct packed_start *packed)
{
    for (size_t i = 0; i < settings->listener_count; i++) {
        const struct settings_listener *from = &settings->listeners[i];
        userd__ipc__listener__init(&packed->listeners[i]);
        packed->listeners[i].name = from->name;
        packed->listeners[i].address = from->address;
        packed->listeners[i].services = from->services;
        packed->listeners[i].n_services = from->service_count;
        packed->listener_pointers[i] = &packed->listeners[i];
    }
    packed->start.listeners = packed->listener_pointers;
    packed->start.n_listeners = settings->listener_count;
}

static void pack_kafka_options(const struct settings *settings, struct packed_start *packed)
{
    for (size_t i = 0; i < settings->kafka_option_count; i++) {
        const struct settings_kafka_option *from = &settings->kafka_options[i];
        userd__ipc__kafka_option__init(&packed->options[i]);
        packed->options[i].property = from->property;
        packed->options[i].value = from->value;
        packed->options[i].is_secret = from->is_secret;
        packed->options[i].line = from->line;
        packed->option_pointers[i] = &packed->options[i];
    }
    packed->start.kafka_options = packed->option_pointers;
    packed->start.n_kafka_options = settings->kafka_option_count;
}

int settings_transfer_pack(const struct settings *settings, enum setting_audience audience,
    uint32_t slot, uint32_t generation, Userd__Ipc__Start **ret_start)
{
    size_t row_count = 0;
    const struct setting_row *rows = settings_table(&row_count);
    struct packed_start *packed = calloc(1, sizeof(*packed));
    if (packed == NULL)
        return -ENOMEM;
    userd__ipc__start__init(&packed->start);
    packed->values = calloc(row_count, sizeof(*packed->values));
    packed->value_pointers = calloc(
        row_count, sizeof(Userd__Ipc__SettingValue
                           *)); /* NOLINT(bugprone-sizeof-expression): an array of pointers */
    if (packed->values == NULL || packed->value_pointers == NULL) {
        settings_transfer_free(&packed->start);
        return -ENOMEM;
    }
    size_t used = 0;
    for (size_t i = 0; i < row_count; i++) {
        if ((rows[i].audience & (unsigned int)audience) == 0)
            continue;
        pack_value(settings, &rows[i], &packed->values[used]);
        packed->value_pointers[used] = &packed->values[used];
        used++;
    }
    packed->start.slot = slot;
    packed->start.generation = generation;
    packed->start.settings = packed->value_pointers;
    packed->start.n_settings = used;
    if ((audience & SETTING_FOR_WORKER) != 0)
        pack_listeners(settings, packed);
    if ((audience & SETTING_FOR_EVENTD) != 0)
        pack_kafka_options(settings, packed);
    *ret_start = &packed->start;
    return 0;
}

void settings_transfer_free(Userd__Ipc__Start *start)
{
    if (start == NULL)
        return;
    struct packed_start *packed = CONTAINER_OF(start, struct packed_start, start);
    free(packed->values);
    free(packed->value_pointers);
    free(packed);
}

/* The packed bytes (the caller's to wipe and free): what is the same is sent as the same, but for
 * the lines of the file, which a comment above moves. */
static int pack_bytes(const struct settings *settings, enum setting_audience audience,
    uint8_t **ret_bytes, size_t *ret_size)
{
    Userd__Ipc__Start *start = NULL;
    int result = settings_transfer_pack(settings, audience, 0, 0, &start);
    if (result < 0)
        return result;
    for (size_t i = 0; i < start->n_kafka_options; i++)
        start->kafka_options[i]->line = 0;
    *ret_size = userd__ipc__start__get_packed_size(start);
    *ret_bytes = malloc(*ret_size + 1); /* never empty: NULL is a failure */
    if (*ret_bytes != NULL)
        (void)userd__ipc__start__pack(start, *ret_bytes);
    settings_transfer_free(start);
    return *ret_bytes == NULL ? -ENOMEM : 0;
}

static void free_bytes(uint8_t *bytes, size_t size)
{
    if (bytes != NULL)
        explicit_bzero(bytes, size);
    free(bytes);
}

int settings_transfer_is_same(const struct settings *one, const struct settings *other,
    enum setting_audience audience, bool *ret_is_same)
{
    uint8_t *bytes[2] = {NULL, NULL};
    size_t sizes[2] = {0, 0};
    int result = pack_bytes(one, audience, &bytes[0], &sizes[0]);
    if (result == 0)
        result = pack_bytes(other, audience, &bytes[1], &sizes[1]);
    if (result == 0)
        *ret_is_same = sizes[0] == sizes[1] && memcmp(bytes[0], bytes[1], sizes[0]) == 0;
    free_bytes(bytes[0], sizes[0]);
    free_bytes(bytes[1], sizes[1]);
    return result;
}

static int unpack_value(const Userd__Ipc__SettingValue *value, struct settings *settings)
{
    const struct setting_row *row = settings_find(value->name);
    if (row == NULL) { /* the master is of another release: what is not known is not used */
        log_debug("setting left out name=%s reason=\"not known in this release\"", value->name);
        return 0;
    }
    if (row->type == SETTING_STRING) {
        if (value->value_case != USERD__IPC__SETTING_VALUE__VALUE_TEXT)
            return -EPROTO;
        return settings_set_text(settings, row, value->text);
    }
    if (value->value_case != USERD__IPC__SETTING_VALUE__VALUE_INTEGER ||
        value->integer < row->minimum || value->integer > row->maximum)
        return -EPROTO;
    *settings_integer(settings, row) = (int)value->integer;
    return 0;
}

static int unpack_listener(const Userd__Ipc__Listener *from, struct settings *settings)
{
    struct settings_listener *listener = NULL;
    int result = settings_add_listener(settings, from->name, from->address, &listener);
    for (size_t i = 0; result == 0 && i < from->n_services; i++)
        result = settings_listener_add_service(listener, from->services[i]);
    return result;
}

int settings_transfer_unpack(const Userd__Ipc__Start *start, struct settings *ret_settings)
{
    struct settings settings CLEANUP(settings_cleanup) = {0};
    int result = settings_init(&settings);
    for (size_t i = 0; result == 0 && i < start->n_settings; i++)
        result = unpack_value(start->settings[i], &settings);
    for (size_t i = 0; result == 0 && i < start->n_listeners; i++)
        result = unpack_listener(start->listeners[i], &settings);
    for (size_t i = 0; result == 0 && i < start->n_kafka_options; i++) {
        const Userd__Ipc__KafkaOption *from = start->kafka_options[i];
        result = settings_add_kafka_option(
            &settings, from->property, from->value, from->is_secret, NULL, from->line);
    }
    if (result < 0)
        return result;
    *ret_settings = settings;
    memset(&settings, 0, sizeof(settings));
    return 0;
}
