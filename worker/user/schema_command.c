#include "worker/user/schema_command.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "common/log.h"
#include "worker/store/schema_blockers.h"
#include "worker/user/schema_change.h"

#define LOCK_RETRY_MS     500
#define LOCK_SAY_AT       20 /* every ten seconds */
#define DOWN_ALL          INT_MAX
#define TIMEOUT_DEFAULT_S 60
#define TIMEOUT_MAX_S     86400
#define HOLDER_SIZE       512
#define MS_OF_S           1000

enum verb { VERB_UP, VERB_DOWN, VERB_STATUS };

struct command {
    struct schema_session *session;   /* owned */
    struct schema_blockers *blockers; /* owned */
    struct schema_change change;      /* owned */
    enum verb verb;
    int down_count;
    int timeout_s; /* of waiting; 0: for as long as it takes */
    bool is_dry_run;
};

static void command_cleanup(struct command *command)
{
    schema_blockers_free(command->blockers);
    schema_change_cleanup(&command->change);
    schema_session_free(command->session);
}

/* -EBUSY: someone else has it. */
static int take_lock(const struct command *command)
{
    for (unsigned int attempt = 0;; attempt++) {
        bool is_locked = false;
        char holder[HOLDER_SIZE] = "";
        int error = schema_store_try_lock(
            command->session, SCHEMA_LOCK_MIGRATION, &is_locked, holder, sizeof(holder));
        if (error < 0 || is_locked)
            return error;
        if (attempt % LOCK_SAY_AT == 0)
            log_info("waiting for another migration holder=\"%s\"", holder);
        if (!schema_session_has_time(command->session))
            return -EBUSY;
        error = schema_session_sleep(command->session, LOCK_RETRY_MS);
        if (error < 0)
            return error;
    }
}

/* Once through, on a connection that is there. */
static int run_verb(struct command *command)
{
    if (command->verb == VERB_STATUS)
        return schema_change_print_status(&command->change);
    int error = take_lock(command);
    if (error < 0)
        return error;
    if (command->verb == VERB_DOWN)
        return schema_change_down(&command->change, command->down_count);
    return command->is_dry_run ? schema_change_rehearse(&command->change)
                               : schema_change_up(&command->change);
}

/* `up` and `status` can be done again from the start when the connection was lost on the way;
 * `down` counts, and what it had done by then is not known. */
static int run_command(struct command *command)
{
    for (;;) {
        int error = schema_session_await(command->session);
        if (error == 0)
            error = run_verb(command);
        /* of what is done around the migrations: reading the state, claiming names */
        if (error == -EBADMSG && schema_session_was_held_up(command->session))
            error = -EAGAIN;
        bool is_lost = error == -ECONNRESET && command->verb != VERB_DOWN;
        if (error != -EAGAIN && !is_lost)
            return error;
        if (is_lost)
            log_warn("database lost while migrating action=start_over");
        if (!schema_session_has_time(command->session))
            return error;
        error = schema_session_sleep(command->session, LOCK_RETRY_MS);
        if (error < 0)
            return error;
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
    case -EACCES:
        log_error("database refuses the connection, and will go on doing so reason=\"%s\""
                  " action=gave_up",
            schema_session_error(command->session));
        return EX_UNAVAILABLE;
    case -ETIMEDOUT:
        log_error("database cannot be reached within the time limit timeout_s=%d reason=\"%s\""
                  " action=gave_up",
            command->timeout_s, schema_session_error(command->session));
        return EX_UNAVAILABLE;
    case -EAGAIN:
        log_error("a lock was not to be had within the time limit timeout_s=%d action=gave_up",
            command->timeout_s);
        return EX_UNAVAILABLE;
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

/* False: it is no number from `low` to `high`. */
static bool read_number(const char *word, long low, long high, int *ret_number)
{
    char *end = NULL;
    long number = strtol(word, &end, 10);
    if (end == word || *end != '\0' || number < low || number > high)
        return false;
    *ret_number = (int)number;
    return true;
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
    command->timeout_s = TIMEOUT_DEFAULT_S;
    for (int i = 1; i < argc; i++) {
        bool is_known = false;
        if (strcmp(argv[i], "--timeout") == 0 && i + 1 < argc)
            is_known = read_number(argv[++i], 0, TIMEOUT_MAX_S, &command->timeout_s);
        else if (strcmp(argv[i], "--dry-run") == 0)
            is_known = command->is_dry_run = command->verb == VERB_UP;
        else if (command->verb == VERB_DOWN)
            is_known = read_number(argv[i], 1, DOWN_ALL, &command->down_count);
        if (!is_known)
            return false;
    }
    return true;
}

int schema_command(struct process_link *link, int argc, char **argv)
{
    struct command command CLEANUP(command_cleanup) = {0};
    if (!parse_arguments(argc, argv, &command)) {
        (void)fputs(
            "expected: migrate up [--dry-run] | down [N] | status [--timeout SECONDS]\n", stderr);
        return EX_USAGE;
    }
    int error = schema_session_new(
        link->event, &link->settings, (int64_t)command.timeout_s * MS_OF_S, &command.session);
    if (error == 0) {
        command.change.session = command.session;
        command.blockers = schema_blockers_new(link->event, &link->settings, command.session);
        error = run_command(&command);
    }
    return exit_status(&command, error);
}
