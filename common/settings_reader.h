/* What the readers of the parts of a configuration share (settings_file.h, settings_listeners.h,
 * settings_kafka.h, settings_rules.h): what they read from, into what, and how they complain. */
#ifndef USERD_COMMON_SETTINGS_READER_H
#define USERD_COMMON_SETTINGS_READER_H

#include <libconfig.h>

#include "common/settings.h"
#include "common/settings_complaints.h"
#include "common/settings_source.h"

struct settings_reader {
    const struct settings_source *source;
    const config_t *config; /* the parsed text of `source` */
    struct settings *settings;
    struct settings_complaints *complaints;
    struct settings_complaints *warnings;
};

struct settings_place {
    const char *file; /* the source's */
    unsigned int line;
};

/* Where a setting of the parsed text stands. */
static inline struct settings_place settings_reader_place(
    const struct settings_reader *reader, const config_setting_t *setting)
{
    struct settings_place place = {0};
    settings_source_place(
        reader->source, config_setting_source_line(setting), &place.file, &place.line);
    return place;
}

/* The same by name; where it is left out: the first file, without a line. */
static inline struct settings_place settings_reader_find(
    const struct settings_reader *reader, const char *name)
{
    const config_setting_t *setting = config_lookup(reader->config, name);
    if (setting != NULL)
        return settings_reader_place(reader, setting);
    return (struct settings_place){.file = reader->source->files[0].path};
}

#define SETTINGS_COMPLAIN(reader, setting, ...)                                             \
    do {                                                                                    \
        struct settings_place complaint_place = settings_reader_place((reader), (setting)); \
        settings_complaints_add(                                                            \
            (reader)->complaints, complaint_place.file, complaint_place.line, __VA_ARGS__); \
    } while (0)

#endif
