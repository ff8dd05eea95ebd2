#include "worker/user/schema_command.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "common/log.h"
#include "worker/store/schema_store.h"
#include "worker/user/username_adoption.h"

#define LOCK_RETRY_MS 500
#define LOCK_RETRIES  120 /* a minute */
#define LOCK_SAY_AT   20  /* every ten seconds */
#define DOWN_ALL      INT_MAX

enum verb { VERB_UP, VERB_DOWN, VERB_STATUS };

struct command {
    struct schema_session *session; /* owned */
    enum verb verb;
    int down_count;
    struct schema_applied *applied; /* owned */
    size_t applied_count;
    char (*checksums)[SCHEMA_CHECKSUM_SIZE]; /* owned: of the embedded files */
};

static void command_cleanup(struct command *command)
{
    schema_session_free(command->session);
    free(command->applied);
    free(command->checksums);
}

static const struct schema_applied *find_applied(const struct command *command, int32_t version)
{
    for (size_t i = 0; i < command->applied_count; i++)
        if (command->applied[i].version == version)
            return &command->applied[i];
    return NULL;
}

static const struct schema_migration *find_embedded(int32_t version)
{
    for (size_t i = 0; i < schema_migration_count; i++)
        if (schema_migrations[i].version == version)
            return &schema_migrations[i];
    return NULL;
}

static bool is_changed(const struct command *command, const struct schema_migration *migration)
{
    const struct schema_applied *applied = find_applied(command, migration->version);
    size_t index = (size_t)(migration - schema_migrations);
    return applied && strcmp(applied->checksum, command->checksums[index]) != 0;
}

static int read_state(struct command *command)
{
    free(command->applied);
    command->applied = NULL;
    command->applied_count = 0;
    int error = schema_store_read(command->session, &command->applied, &command->applied_count);
    if (error < 0)
        return error;
    if (!command->checksums)
        command->checksums = calloc(schema_migration_count, sizeof(*command->checksums));
    if (!command->checksums)
        return -ENOMEM;
    return schema_store_checksums(command->session, command->checksums);
}

/* -EEXIST: an applied file has changed. */
static int check_checksums(const struct command *command)
{
    int error = 0;
    for (size_t i = 0; i < schema_migration_count; i++) {
        if (!is_changed(command, &schema_migrations[i]))
            continue;
        log_error("migration was changed after it was applied file=%s.up.sql expected_sha256=%s"
                  " action=refused",
            schema_migrations[i].name,
            find_applied(command, schema_migrations[i].version)->checksum);
        error = -EEXIST;
    }
    return error;
}

static void tell_of_unknown(const struct command *command)
{
    for (size_t i = 0; i < command->applied_count; i++)
        if (!find_embedded(command->applied[i].version))
            log_warn("schema has a migration that this program does not know version=%d name=%s",
                command->applied[i].version, command->applied[i].name);
}

/* -EBUSY: someone else has it. */
static int take_lock(const struct command *command)
{
    for (unsigned int attempt = 0; attempt < LOCK_RETRIES; attempt++) {
        bool is_locked = false;
        char holder[192] = "";
        int error = schema_store_try_lock(command->session, &is_locked, holder, sizeof(holder));
        if (error < 0 || is_locked)
            return error;
        if (attempt % LOCK_SAY_AT == 0)
            log_info("waiting for another migration holder=\"%s\"", holder);
        error = schema_session_sleep(command->session, LOCK_RETRY_MS);
        if (error < 0)
            return error;
    }
    return -EBUSY;
}

static void tell_of_refusal(
    const struct command *command, const struct schema_migration *migration, const char *direction)
{
    log_error("migration failed file=%s.%s.sql error=\"%s\" action=rolled_back", migration->name,
        direction, schema_session_error(command->session));
}

static int migrate_up(struct command *command)
{
    int error = schema_store_create_table(command->session);
    if (error == 0)
        error = read_state(command);
    if (error == 0)
        error = check_checksums(command);
    if (error < 0)
        return error;
    tell_of_unknown(command);
    for (size_t i = 0; i < schema_migration_count; i++) {
        const struct schema_migration *migration = &schema_migrations[i];
        if (find_applied(command, migration->version))
            continue;
        error = schema_store_apply(command->session, migration);
        if (error == -EBADMSG) {
            tell_of_refusal(command, migration, "up");
            return -ECANCELED;
        }
        if (error < 0)
            return error;
        log_info("migration applied version=%d name=%s", migration->version, migration->name);
    }
    error = username_adoption_run(command->session);
    if (error == 0)
        log_info("schema is up to date version=%d",
            schema_migrations[schema_migration_count - 1].version);
    return error;
}

static int take_back(struct command *command, const struct schema_applied *applied)
{
    const struct schema_migration *migration = find_embedded(applied->version);
    if (!migration) {
        log_error("migration is unknown to this program version=%d name=%s"
                  " expected=\"the program that applied it\" action=refused",
            applied->version, applied->name);
        return -ECANCELED;
    }
    int error = schema_store_take_back(command->session, migration);
    if (error == -EBADMSG) {
        tell_of_refusal(command, migration, "down");
        return -ECANCELED;
    }
    if (error == 0)
        log_info("migration taken back version=%d name=%s", migration->version, migration->name);
    return error;
}

static int migrate_down(struct command *command)
{
    int error = read_state(command);
    if (error == 0)
        error = check_checksums(command);
    size_t left = command->applied_count;
    for (int i = 0; error == 0 && i < command->down_count && left > 0; i++)
        error = take_back(command, &command->applied[--left]);
    if (error == 0)
        log_info("schema is at version=%d", left > 0 ? command->applied[left - 1].version : 0);
    return error;
}

static int print_status(struct command *command)
{
    int error = read_state(command);
    if (error < 0)
        return error;
    (void)printf("%-8s %-32s %-8s %s\n", "version", "name", "state", "applied at");
    for (size_t i = 0; i < schema_migration_count; i++) {
        const struct schema_migration *migration = &schema_migrations[i];
        const struct schema_applied *applied = find_applied(command, migration->version);
        const char *state = applied ? "applied" : "pending";
        if (is_changed(command, migration))
            state = "CHANGED";
        (void)printf("%-8d %-32s %-8s %s\n", migration->version, migration->name, state,
            applied ? applied->applied_at : "");
    }
    for (size_t i = 0; i < command->applied_count; i++)
        if (!find_embedded(command->applied[i].version))
            (void)printf("%-8d %-32s %-8s %s\n", command->applied[i].version,
                command->applied[i].name, "UNKNOWN", command->applied[i].applied_at);
    (void)fflush(stdout);
    return check_checksums(command);
}

/* Once through, on a connection that is there. */
static int run_verb(struct command *command)
{
    if (command->verb == VERB_STATUS)
        return print_status(command);
    int error = take_lock(command);
    if (error < 0)
        return error;
    return command->verb == VERB_UP ? migrate_up(command) : migrate_down(command);
}

/* `up` and `status` can be done again from the start when the connection was lost on the way;
 * `down` counts, and what it had done by then is not known. */
static int run_command(struct command *command)
{
    for (;;) {
        int error = schema_session_await(command->session);
        if (error == 0)
            error = run_verb(command);
        if (error != -ECONNRESET || command->verb == VERB_DOWN)
            return error;
        log_warn("database lost while migrating action=start_over");
    }
}

static int exit_status(const struct command *command, int error)
{
    switch (error) {
    case 0:
        return EX_OK;
    case -EBADMSG:
        log_error("database refused error=\"%s\"", schema_session_error(command->session));
        return EXIT_FAILURE;
    case -ECANCELED:
    case -EEXIST:
        return EXIT_FAILURE; /* said already */
    case -EBUSY:
        log_error("another migration has been running for too long action=gave_up");
        return EX_UNAVAILABLE;
    case -ECONNRESET:
        log_error("database lost while migrating expected=\"see userd migrate status\"");
        return EX_UNAVAILABLE;
    case -EINTR:
        log_warn("migration interrupted");
        return EX_TEMPFAIL;
    default:
        log_error("migration failed error=\"%s\"", strerror(-error));
        return EXIT_FAILURE;
    }
}

static bool parse_arguments(int argc, char **argv, struct command *command)
{
    static const char *const verbs[] = {
        [VERB_UP] = "up", [VERB_DOWN] = "down", [VERB_STATUS] = "status"};
    size_t verb = 0;
    while (argc > 0 && verb < ARRAY_LENGTH(verbs) && strcmp(argv[0], verbs[verb]) != 0)
        verb++;
    if (argc < 1 || verb == ARRAY_LENGTH(verbs))
        return false;
    command->verb = (enum verb)verb;
    command->down_count = 1;
    if (argc == 1)
        return true;
    char *end = NULL;
    long count = strtol(argv[1], &end, 10);
    if (argc > 2 || command->verb != VERB_DOWN || *end != '\0' || count < 1 || count > DOWN_ALL)
        return false;
    command->down_count = (int)count;
    return true;
}

int schema_command(struct process_link *link, int argc, char **argv)
{
    struct command command CLEANUP(command_cleanup) = {0};
    if (!parse_arguments(argc, argv, &command)) {
        (void)fputs("expected: migrate up | down [N] | status\n", stderr);
        return EX_USAGE;
    }
    int error = schema_session_new(link->event, &link->settings, &command.session);
    if (error == 0)
        error = run_command(&command);
    return exit_status(&command, error);
}
