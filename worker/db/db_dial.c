#include "worker/db/db_dial.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/log.h"
#include "common/monotonic_clock.h"
#include "worker/db/db_resolve.h"

#define PARAMETER_SLOTS   64 /* libpq 15 knows 41 keywords */
#define TIMER_ACCURACY_US 10000
#define REASON_SIZE       512
#define SQLSTATE_LENGTH   5

/* Unless the URL says otherwise. */
static const struct {
    const char *keyword;
    const char *value;
} parameter_defaults[] = {
    {"client_encoding", "UTF8"},
    {"gssencmode", "disable"}, /* its handshake may block */
    {"keepalives_idle", "15"},
    {"keepalives_interval", "5"},
    {"keepalives_count", "3"},
    {"target_session_attrs", "read-write"},
    {"tcp_user_timeout", "30000"},
};

struct db_dial {
    sd_event *event; /* owned */
    const struct db_dial_options *options;
    const struct db_dial_handlers *handlers;
    void *userdata;
    PQconninfoOption *parameters;  /* owned: the URL, taken apart */
    struct db_resolve *resolve;    /* owned */
    struct db_target_list targets; /* owned; empty until names are looked up */
    size_t next;                   /* of `targets` */
    PGconn *session;               /* owned, while it connects */
    sd_event_source *io;           /* owned */
    sd_event_source *timer;        /* owned: the start, and then the time limit */
    uint64_t deadline_us;
    bool has_started;
    bool is_turning; /* to the next server: the timer is about to fire */
    bool is_final;   /* of all servers so far */
    bool has_answered;
    char reason[REASON_SIZE]; /* of all servers so far */
};

static const char *or_empty(const char *text)
{
    return text ? text : "";
}

static void stop(struct db_dial *dial)
{
    dial->io = sd_event_source_disable_unref(dial->io);
    (void)sd_event_source_set_enabled(dial->timer, SD_EVENT_OFF);
}

static void fail(struct db_dial *dial, const char *reason, bool is_final)
{
    stop(dial);
    PQfinish(TAKE_PTR(dial->session));
    dial->handlers->on_failed(reason, is_final, dial->has_answered, dial->userdata);
}

static int set_timer(struct db_dial *dial, uint64_t time_us)
{
    int error = sd_event_source_set_time(dial->timer, time_us);
    return error < 0 ? error : sd_event_source_set_enabled(dial->timer, SD_EVENT_ONESHOT);
}

bool db_dial_find_sqlstate(const char *message, char ret_sqlstate[6])
{
    /* "FATAL:  28P01: password authentication failed": the severity may be translated. */
    for (const char *place = strstr(message, ":  "); place; place = strstr(place + 1, ":  ")) {
        const char *state = place + strlen(":  ");
        size_t length = 0;
        while (isdigit((unsigned char)state[length]) || isupper((unsigned char)state[length]))
            length++;
        if (length == SQLSTATE_LENGTH && strncmp(state + length, ": ", 2) == 0) {
            memcpy(ret_sqlstate, state, SQLSTATE_LENGTH);
            ret_sqlstate[SQLSTATE_LENGTH] = '\0';
            return true;
        }
    }
    return false;
}

bool db_dial_is_final(const char *sqlstate)
{
    /* Invalid authorization, no such database, invalid or unknown parameters, no privilege. */
    static const char *const prefixes[] = {"28", "3D000", "22023", "42704", "42601", "42501"};
    for (size_t i = 0; i < ARRAY_LENGTH(prefixes); i++)
        if (strncmp(sqlstate, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}

/* One server would not do. With several of them each reason carries its host. */
static void note_reason(struct db_dial *dial, const char *reason)
{
    size_t used = strlen(dial->reason);
    int length = (int)strcspn(reason, "\n");
    if (dial->targets.count <= 1) {
        (void)snprintf(dial->reason + used, sizeof(dial->reason) - used, "%s%.*s",
            used > 0 ? "; " : "", length, reason);
        return;
    }
    const struct db_target *target = &dial->targets.items[dial->next - 1];
    const char *address = or_empty(target->host_address);
    (void)snprintf(dial->reason + used, sizeof(dial->reason) - used, "%s%s%s%s port %s: %.*s",
        used > 0 ? "; " : "", or_empty(target->host), address[0] ? " at " : "", address,
        or_empty(target->port), length, reason);
}

void db_dial_next(struct db_dial *dial, const char *reason, bool is_final)
{
    stop(dial);
    PQfinish(TAKE_PTR(dial->session));
    note_reason(dial, reason);
    dial->is_final &= is_final;
    if (dial->next == dial->targets.count) {
        fail(dial, dial->reason, dial->is_final);
        return;
    }
    dial->is_turning = true;
    if (set_timer(dial, monotonic_clock_us()) < 0)
        fail(dial, "cannot set a timer", false);
}

/* What libpq itself has against a parameter, before it connects. */
static bool is_about_parameters(const char *message)
{
    static const char *const prefixes[] = {"invalid ", "could not match "};
    for (size_t i = 0; i < ARRAY_LENGTH(prefixes); i++)
        if (strncmp(message, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}

/* What libpq says of a connection that failed: its first line says what happened. */
static void refuse(struct db_dial *dial)
{
    char sqlstate[SQLSTATE_LENGTH + 1] = "";
    const char *message = PQerrorMessage(dial->session);
    bool has_sqlstate = db_dial_find_sqlstate(message, sqlstate);
    bool is_final = PQconnectionNeedsPassword(dial->session) != 0 ||
                    (has_sqlstate && db_dial_is_final(sqlstate)) || is_about_parameters(message);
    dial->has_answered |= has_sqlstate;
    char *kept = strndup(message, strcspn(message, "\n"));
    db_dial_next(dial, kept && kept[0] ? kept : "connection lost", is_final);
    free(kept);
}

/* libpq may go from one socket to another while it connects, so that each step watches anew. */
static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct db_dial *dial = userdata;
    (void)source;
    (void)fd;
    (void)revents;
    dial->io = sd_event_source_disable_unref(dial->io);
    uint32_t events = EPOLLIN;
    switch (PQconnectPoll(dial->session)) {
    case PGRES_POLLING_OK:
        stop(dial);
        (void)PQsetErrorVerbosity(dial->session, PQERRORS_DEFAULT);
        dial->handlers->on_connected(TAKE_PTR(dial->session), dial->userdata);
        return 0;
    case PGRES_POLLING_WRITING:
        events = EPOLLOUT;
        break;
    case PGRES_POLLING_READING:
        break;
    case PGRES_POLLING_ACTIVE:
    case PGRES_POLLING_FAILED:
        refuse(dial);
        return 0;
    }
    if (sd_event_add_io(dial->event, &dial->io, PQsocket(dial->session), events, on_io, dial) < 0)
        db_dial_next(dial, "cannot watch the socket", false);
    return 0;
}

static void on_notice(void *userdata, const PGresult *result)
{
    (void)userdata;
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    log_debug("database notice sqlstate=%s message=\"%s\"", or_empty(sqlstate), or_empty(message));
}

static const char *parameter_value(const struct db_dial *dial, const char *keyword)
{
    for (const PQconninfoOption *option = dial->parameters; option->keyword; option++)
        if (strcmp(option->keyword, keyword) == 0)
            return option->val && option->val[0] ? option->val : NULL;
    return NULL;
}

struct parameter_list {
    const char *keywords[PARAMETER_SLOTS];
    const char *values[PARAMETER_SLOTS];
    size_t count;
};

static void add_parameter(struct parameter_list *list, const char *keyword, const char *value)
{
    assert(list->count < PARAMETER_SLOTS - 1);
    list->keywords[list->count] = keyword;
    list->values[list->count] = value;
    list->count++;
}

/* Whether the target says it in the place of the URL, which may hold a list. libpq skips a keyword
 * with an empty value: to put an empty value behind the list would leave the list in force. */
static bool is_of_target(const struct db_target *target, const char *keyword)
{
    return (target->host && strcmp(keyword, "host") == 0) ||
           (target->host_address && strcmp(keyword, "hostaddr") == 0) ||
           (target->port && strcmp(keyword, "port") == 0);
}

static void start_connecting(struct db_dial *dial, const struct db_target *target)
{
    struct parameter_list list = {0};
    for (size_t i = 0; i < ARRAY_LENGTH(parameter_defaults); i++)
        if (!parameter_value(dial, parameter_defaults[i].keyword))
            add_parameter(&list, parameter_defaults[i].keyword, parameter_defaults[i].value);
    add_parameter(&list, "fallback_application_name", dial->options->application);
    for (const PQconninfoOption *option = dial->parameters; option->keyword; option++)
        if (option->val && option->val[0] && !is_of_target(target, option->keyword))
            add_parameter(&list, option->keyword, option->val);
    if (target->host)
        add_parameter(&list, "host", target->host);
    if (target->host_address)
        add_parameter(&list, "hostaddr", target->host_address);
    if (target->port)
        add_parameter(&list, "port", target->port);

    dial->session = PQconnectStartParams(list.keywords, list.values, 0);
    if (!dial->session) {
        db_dial_next(dial, "out of memory", false);
        return;
    }
    (void)PQsetNoticeReceiver(dial->session, on_notice, NULL);
    (void)PQsetErrorVerbosity(dial->session, PQERRORS_VERBOSE); /* with the SQLSTATE */
    if (PQstatus(dial->session) == CONNECTION_BAD) {
        refuse(dial);
        return;
    }
    if (sd_event_add_io(dial->event, &dial->io, PQsocket(dial->session), EPOLLOUT, on_io, dial) < 0)
        db_dial_next(dial, "cannot watch the socket", false);
}

static int set_deadline(struct db_dial *dial)
{
    dial->deadline_us = monotonic_clock_us() + (uint64_t)dial->options->timeout_ms * 1000;
    return set_timer(dial, dial->deadline_us);
}

static void try_next(struct db_dial *dial)
{
    const struct db_target *target = &dial->targets.items[dial->next++];
    dial->is_turning = false;
    if (set_deadline(dial) < 0) {
        fail(dial, "cannot set a timer", false);
        return;
    }
    start_connecting(dial, target);
}

static void start_with(
    struct db_dial *dial, const char *hosts, const char *addresses, const char *ports)
{
    if (db_target_list_split(hosts, addresses, ports, &dial->targets) < 0) {
        fail(dial, "out of memory", false);
        return;
    }
    dial->is_final = dial->reason[0] == '\0'; /* else a host of several has no address now */
    try_next(dial);
}

static void on_resolved(const struct db_addresses *addresses, void *userdata)
{
    struct db_dial *dial = userdata;
    if (addresses->error) {
        (void)snprintf(dial->reason, sizeof(dial->reason), "cannot resolve %s: %s",
            or_empty(parameter_value(dial, "host")), addresses->error);
        fail(dial, dial->reason, false);
        return;
    }
    if (addresses->unknown)
        (void)snprintf(dial->reason, sizeof(dial->reason), "cannot resolve %s", addresses->unknown);
    start_with(dial, addresses->hosts, addresses->host_addresses, addresses->ports);
}

/* The first step, from the loop, so that no handler ever runs inside db_dial_new(). */
static void start(struct db_dial *dial)
{
    char *error_text = NULL;
    dial->has_started = true;
    dial->parameters = PQconninfoParse(dial->options->url, &error_text);
    if (!dial->parameters) {
        /* libpq repeats the URL in its message, password and all */
        bool is_wrong = error_text != NULL;
        PQfreemem(error_text);
        fail(dial,
            is_wrong ? "libpq cannot read database.url: userd check says more" : "out of memory",
            is_wrong);
        return;
    }
    const struct db_target *only = dial->options->only;
    if (only) {
        start_with(dial, only->host, only->host_address, only->port);
        return;
    }
    const char *hosts = parameter_value(dial, "host");
    const char *addresses = parameter_value(dial, "hostaddr");
    const char *ports = parameter_value(dial, "port");
    if (!hosts || addresses || !db_resolve_is_needed(hosts)) {
        start_with(dial, hosts, addresses, ports);
        return;
    }
    int error = db_resolve_new(dial->event, hosts, ports, on_resolved, dial, &dial->resolve);
    if (error >= 0)
        error = set_deadline(dial);
    if (error < 0)
        fail(dial, strerror(-error), false);
}

static int on_time(sd_event_source *source, uint64_t time_us, void *userdata)
{
    struct db_dial *dial = userdata;
    (void)source;
    (void)time_us;
    if (!dial->has_started)
        start(dial);
    else if (dial->is_turning)
        try_next(dial);
    else if (dial->targets.count == 0)
        fail(dial, "timed out looking up the host", false);
    else
        db_dial_next(dial, "timed out connecting", false);
    return 0;
}

uint64_t db_dial_deadline_us(const struct db_dial *dial)
{
    return dial->deadline_us;
}

int db_dial_new(sd_event *event, const struct db_dial_options *options,
    const struct db_dial_handlers *handlers, void *userdata, struct db_dial **ret_dial)
{
    struct db_dial *dial = calloc(1, sizeof(*dial));
    if (!dial)
        return -ENOMEM;
    dial->event = sd_event_ref(event);
    dial->options = options;
    dial->handlers = handlers;
    dial->userdata = userdata;
    /* Fires at once to start, and then again at each time limit. */
    int error = sd_event_add_time_relative(
        event, &dial->timer, CLOCK_MONOTONIC, 0, TIMER_ACCURACY_US, on_time, dial);
    if (error < 0) {
        db_dial_free(dial);
        return error;
    }
    *ret_dial = dial;
    return 0;
}

struct db_dial *db_dial_free(struct db_dial *dial)
{
    if (!dial)
        return NULL;
    sd_event_source_disable_unref(dial->io);
    sd_event_source_disable_unref(dial->timer);
    db_resolve_free(dial->resolve);
    PQfinish(dial->session);
    for (PQconninfoOption *option = dial->parameters; option && option->keyword; option++)
        if (option->val && strcmp(option->keyword, "password") == 0)
            explicit_bzero(option->val, strlen(option->val));
    PQconninfoFree(dial->parameters);
    db_target_list_cleanup(&dial->targets);
    sd_event_unref(dial->event);
    free(dial);
    return NULL;
}
