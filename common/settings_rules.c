#include "common/settings_rules.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/address_list.h"
#include "common/listener_address.h"
#include "common/settings_environment.h"

#define SERVERS          "kafka.bootstrap_servers"
#define TOPIC_MAX_LENGTH 249 /* Kafka's: a log's directory is TOPIC-PARTITION */
#define LETTERS          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS           "0123456789"
#define TOPIC_CHARACTERS LETTERS DIGITS "._-"
#define HOST_CHARACTERS  LETTERS DIGITS "._-"
#define PORT_DIGITS_MAX  5
#define ADMIN_SOCKET     "/admin.sock"

#define COMPLAIN_OF(reader, setting, ...)                                                   \
    do {                                                                                    \
        struct settings_place rule_place = settings_environment_place((reader), (setting)); \
        settings_complaints_add(                                                            \
            (reader)->complaints, rule_place.file, rule_place.line, __VA_ARGS__);           \
    } while (0)

/* ---- topics ---- */

static const char *const topic_settings[] = {"kafka.registration_topic", "kafka.admin_delete_topic",
    "kafka.delete_topic", "kafka.dead_letter_topic"};

static bool is_topic_name(const char *name)
{
    size_t length = strlen(name);
    return length > 0 && length <= TOPIC_MAX_LENGTH && strspn(name, TOPIC_CHARACTERS) == length &&
           strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* A topic that is read and written, or written with two kinds of events, feeds itself. */
static void check_topics(const struct settings_reader *reader)
{
    const char *names[ARRAY_LENGTH(topic_settings)];
    for (size_t i = 0; i < ARRAY_LENGTH(topic_settings); i++) {
        names[i] = settings_text(reader->settings, settings_find(topic_settings[i]));
        if (!is_topic_name(names[i]))
            COMPLAIN_OF(reader, topic_settings[i],
                "%s: \"%.250s\" is no name of a topic, expected 1 to %d of a-z, A-Z, 0-9, '.', '_' "
                "and '-'",
                topic_settings[i], names[i], TOPIC_MAX_LENGTH);
        for (size_t j = 0; j < i; j++)
            if (strcmp(names[i], names[j]) == 0)
                COMPLAIN_OF(reader, topic_settings[i],
                    "%s: is the topic of %s too, expected a topic of its own", topic_settings[i],
                    topic_settings[j]);
    }
}

/* ---- brokers ---- */

static bool is_port(const char *text, size_t length)
{
    unsigned int port = 0;
    for (size_t i = 0; i < length && i < PORT_DIGITS_MAX; i++)
        port = port * 10 + (unsigned int)(text[i] - '0');
    return length > 0 && length <= PORT_DIGITS_MAX && strspn(text, DIGITS) >= length && port > 0 &&
           port <= UINT16_MAX;
}

/* "host", "host:port", "[v6]:port", any of them behind "PROTOCOL://", as librdkafka takes it. */
static bool is_server(const char *text, size_t length)
{
    const char *end = text + length;
    const char *mark = memmem(text, length, "://", strlen("://"));
    if (mark != NULL) {
        if (strspn(text, LETTERS "_") != (size_t)(mark - text) || mark == text)
            return false;
        text = mark + strlen("://");
    }
    size_t host = 0;
    if (text < end && *text == '[') {
        host = 1 + strspn(text + 1, DIGITS "abcdefABCDEF:.");
        if (host == 1 || text + host >= end || text[host] != ']')
            return false;
        host++;
    } else {
        host = strspn(text, HOST_CHARACTERS);
    }
    if (host == 0 || text + host > end)
        return false;
    text += host;
    return text == end || (*text == ':' && is_port(text + 1, (size_t)(end - text) - 1));
}

static void check_servers(const struct settings_reader *reader)
{
    const char *next = reader->settings->kafka.bootstrap_servers;
    for (bool is_last = false; !is_last;) {
        next += strspn(next, " ");
        size_t size = strcspn(next, ",");
        is_last = next[size] == '\0';
        size_t length = size;
        while (length > 0 && next[length - 1] == ' ')
            length--;
        if (!is_server(next, length))
            COMPLAIN_OF(reader, SERVERS,
                SERVERS ": \"%.*s\" is no address of a broker, expected HOST:PORT, several "
                        "separated by commas",
                (int)(length > 100 ? 100 : length), next);
        next += size + 1;
    }
}

/* ---- listeners ---- */

static bool is_any(const char *host)
{
    return strcmp(host, "::") == 0 || strcmp(host, "0.0.0.0") == 0;
}

static const char *numeric(const char *host)
{
    return strcmp(host, "localhost") == 0 ? "127.0.0.1" : host;
}

/* Whether both cannot be bound at once. "[::]" takes IPv4 too. */
static bool is_overlap(const struct listener_address *left, const struct listener_address *right)
{
    if (left->is_unix || right->is_unix)
        return left->is_unix && right->is_unix && strcmp(left->path, right->path) == 0;
    if (left->port == 0 || left->port != right->port) /* port 0: a free one each */
        return false;
    if (strcmp(numeric(left->host), numeric(right->host)) == 0)
        return true;
    const struct listener_address *any = is_any(left->host) ? left : right;
    const struct listener_address *other = any == left ? right : left;
    bool takes_ipv6 = strcmp(any->host, "::") == 0;
    return is_any(any->host) &&
           (takes_ipv6 || strchr(other->host, ':') == NULL || strcmp(other->host, "::") == 0);
}

static void check_listeners(const struct settings_reader *reader)
{
    const struct settings *settings = reader->settings;
    struct listener_address addresses[SETTINGS_MAX_LISTENERS];
    bool is_parsed[SETTINGS_MAX_LISTENERS] = {false};
    for (size_t i = 0; i < settings->listener_count; i++) {
        const struct settings_listener *listener = &settings->listeners[i];
        const char *expected = NULL;
        is_parsed[i] = listener_address_parse(listener->address, &addresses[i], &expected) == 0;
        for (size_t j = 0; j < i; j++)
            if (is_parsed[i] && is_parsed[j] && is_overlap(&addresses[i], &addresses[j]))
                settings_complaints_add(reader->complaints, listener->file, listener->line,
                    "listeners: address \"%s\" of \"%s\" is in use by \"%s\" (\"%s\"), expected "
                    "one "
                    "of its own",
                    listener->address, listener->name, settings->listeners[j].name,
                    settings->listeners[j].address);
    }
}

/* ---- the rest ---- */

static void check_run_dir(const struct settings_reader *reader)
{
    const char *run_dir = reader->settings->run_dir;
    if (*run_dir != '/')
        COMPLAIN_OF(reader, "run_dir",
            "run_dir: \"%s\" is not absolute, expected a path that begins with /", run_dir);
    else if (strlen(run_dir) + strlen(ADMIN_SOCKET) > LISTENER_PATH_MAX)
        COMPLAIN_OF(reader, "run_dir",
            "run_dir: is too long for a socket in it, expected at most %zu bytes",
            LISTENER_PATH_MAX - strlen(ADMIN_SOCKET));
}

static void check_exempt_addresses(const struct settings_reader *reader)
{
    static const char setting[] = "limits.exempt_addresses";
    struct address_list list;
    char reason[ADDRESS_LIST_REASON_BYTES];
    if (!address_list_parse(reader->settings->limits.exempt_addresses, &list, reason))
        COMPLAIN_OF(reader, setting, "%s: %s", setting, reason);
}

void settings_rules_check(const struct settings_reader *reader)
{
    check_run_dir(reader);
    check_topics(reader);
    check_servers(reader);
    check_listeners(reader);
    check_exempt_addresses(reader);
}
