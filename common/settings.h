/* Every setting of userd, once: its name, type, default, bounds, who sees it, and what it is for.
 *
 * settings_table() is that one place. The reader of the file (settings_file.h), the part that each
 * child gets (settings_transfer.h) and the test of etc/userd.conf all walk it; a new setting is one
 * row in settings.c, one member here and one entry in etc/userd.conf. Nothing here reads files or
 * the environment.
 */
#ifndef USERD_COMMON_SETTINGS_H
#define USERD_COMMON_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/attributes.h"
#include "common/log.h"

#define SETTINGS_MAX_LISTENERS     16
#define SETTINGS_MAX_WORKERS       64
#define SETTINGS_MAX_KAFKA_OPTIONS 64

/* The enum members are stored as int: SETTING_CHOICE. */
enum core_bridge_mode { CORE_BRIDGE_AUTO, CORE_BRIDGE_OFF };

struct settings_listener {
    char *name;      /* owned */
    char *address;   /* owned: "[::]:50053", "0.0.0.0:50053", "localhost:50053",
                        "unix:/run/userd/gateway.sock" */
    char **services; /* owned, as are the names: full gRPC service names */
    size_t service_count;
    char *file;        /* owned: where it stands; NULL when unknown, as in a child */
    unsigned int line; /* in the file, 0 when unknown */
};

/* A property that librdkafka gets as it is: kafka.options of the file. */
struct settings_kafka_option {
    char *property; /* owned: "security.protocol" */
    char *value;    /* owned; wiped */
    bool is_secret; /* never shown */
    char *file;     /* owned: where it stands; NULL in a child */
    unsigned int line;
};

struct settings {
    int workers; /* as set; 0: one for each core. settings_worker_count() answers the number meant
                  */
    char *run_dir;
    int core_bridge; /* enum core_bridge_mode */
    int busy_poll_us;
    int reflection; /* bool */
    struct settings_listener listeners[SETTINGS_MAX_LISTENERS];
    size_t listener_count;
    struct {
        char *url;
        char *url_place; /* owned: "userd.conf:12", "environment: DB_URL"; NULL in a child */
        char *password_file;
        int connections;
        int connect_timeout_ms;
        int statement_timeout_ms;
    } database;
    struct {
        char *bootstrap_servers;
        char *group;
        char *client_id;
        char *registration_topic;
        char *admin_delete_topic;
        char *delete_topic;
        char *dead_letter_topic;
        int create_topics; /* bool */
        int topic_partitions;
        int topic_replication;
        int linger_ms;
        int session_timeout_ms;
        int batch_records;
    } kafka;
    struct settings_kafka_option kafka_options[SETTINGS_MAX_KAFKA_OPTIONS]; /* for eventd alone */
    size_t kafka_option_count;
    bool has_standard_servers; /* nobody has said where Kafka is; only where a file was read */
    struct {
        int allow_reregistration; /* bool */
    } events;
    struct {
        int message_bytes;
        int event_bytes;
        int queued_calls;
        int held_megabytes;
        int unread_timeout_ms;
        int cancels_per_second;
        int one_way_bytes;
        int streams_per_connection;
        int open_requests;
        int request_timeout_ms;
        int settings_per_second;
        int connections;
        int connections_per_address;
        int connection_rate_per_address;
        int connection_age_ms;
        int cancel_rate_per_address;
        int ban_seconds;
        int ban_max_seconds;
        int reserved_percent;
        int idle_timeout_ms;
        int idle_shortage_timeout_ms;
        char *exempt_addresses; /* address_list.h */
        int handshake_timeout_ms;
    } limits;
    struct {
        int drain_timeout_ms;
    } shutdown;
    struct {
        int hang_timeout_ms;
    } supervision;
    struct {
        int level;  /* enum log_level */
        int format; /* enum log_format */
    } log;
};

enum setting_type { SETTING_INTEGER, SETTING_BOOLEAN, SETTING_STRING, SETTING_CHOICE };

/* Who gets a setting: what a child is not in the audience of never reaches its memory. */
enum setting_audience {
    SETTING_FOR_MASTER = 1 << 0,
    SETTING_FOR_WORKER = 1 << 1,
    SETTING_FOR_EVENTD = 1 << 2,
};

struct setting_row {
    const char *name; /* "database.connections": the path in the file */
    enum setting_type type;
    unsigned int audience; /* of enum setting_audience; the master reads all */
    size_t offset;         /* of the int or char * in struct settings */
    bool is_secret;        /* never logged, never printed by `userd check` */
    int default_integer;
    const char *default_text;
    int minimum;
    int maximum;
    const char *const *choices; /* SETTING_CHOICE: names in the order of the enum, then NULL */
};

const struct setting_row *settings_table(size_t *ret_count);
const struct setting_row *settings_find(const char *name);

/* Fills in the defaults: all strings are copies. Returns 0 or -ENOMEM. */
MUST_CHECK int settings_init(struct settings *settings);
/* Frees all that settings_init() and later setters put in; secrets are wiped first. Zeroed settings
 * are fine. */
void settings_cleanup(struct settings *settings);

int *settings_integer(struct settings *settings, const struct setting_row *row);
const int *settings_integer_const(const struct settings *settings, const struct setting_row *row);
const char *settings_text(const struct settings *settings, const struct setting_row *row);
/* Replaces a string by a copy. 0 or -ENOMEM. */
MUST_CHECK int settings_set_text(
    struct settings *settings, const struct setting_row *row, const char *text);
/* A SETTING_CHOICE by the name of its value. False: there is none of that name (NULL: no name at
 * all), and ret_reason says which there are. */
MUST_CHECK bool settings_set_choice(struct settings *settings, const struct setting_row *row,
    const char *name, char *ret_reason, size_t reason_size);

/* Appends a listener without services and points *ret_listener at it. -ENOSPC above
 * SETTINGS_MAX_LISTENERS. */
MUST_CHECK int settings_add_listener(struct settings *settings, const char *name,
    const char *address, struct settings_listener **ret_listener);
MUST_CHECK int settings_listener_add_service(
    struct settings_listener *listener, const char *service);

/* Appends copies; `file` may be NULL. -ENOSPC above SETTINGS_MAX_KAFKA_OPTIONS, -ENOMEM. */
MUST_CHECK int settings_add_kafka_option(struct settings *settings, const char *property,
    const char *value, bool is_secret, const char *file, unsigned int line);

/* `workers`, with 0 replaced by the number of cores that this process may run on. */
unsigned int settings_worker_count(const struct settings *settings);

#endif
