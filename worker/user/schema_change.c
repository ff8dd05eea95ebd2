#include "worker/user/schema_change.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "worker/store/schema_shape.h"
#include "worker/user/username_adoption.h"

#define LEGACY_VERSION 1 /* the migration that makes or adopts the legacy service's tables */
#define HOLDER_SIZE    512

void schema_change_cleanup(struct schema_change *change)
{
    free(change->applied);
    free(change->checksums);
}

static const struct schema_applied *find_applied(
    const struct schema_change *change, int32_t version)
{
    for (size_t i = 0; i < change->applied_count; i++)
        if (change->applied[i].version == version)
            return &change->applied[i];
    return NULL;
}

static const struct schema_migration *find_embedded(int32_t version)
{
    for (size_t i = 0; i < schema_migration_count; i++)
        if (schema_migrations[i].version == version)
            return &schema_migrations[i];
    return NULL;
}

static bool is_changed(const struct schema_change *change, const struct schema_migration *migration)
{
    const struct schema_applied *applied = find_applied(change, migration->version);
    size_t index = (size_t)(migration - schema_migrations);
    return applied && strcmp(applied->checksum, change->checksums[index]) != 0;
}

static int read_state(struct schema_change *change)
{
    free(change->applied);
    change->applied = NULL;
    change->applied_count = 0;
    int error = schema_store_read(change->session, &change->applied, &change->applied_count);
    if (error < 0)
        return error;
    if (!change->checksums)
        change->checksums = calloc(schema_migration_count, sizeof(*change->checksums));
    if (!change->checksums)
        return -ENOMEM;
    return schema_store_checksums(change->session, change->checksums);
}

/* -EEXIST: an applied file has changed. */
static int check_checksums(const struct schema_change *change)
{
    int error = 0;
    for (size_t i = 0; i < schema_migration_count; i++) {
        if (!is_changed(change, &schema_migrations[i]))
            continue;
        log_error("migration was changed after it was applied file=%s.up.sql expected_sha256=%s"
                  " action=refused",
            schema_migrations[i].name,
            find_applied(change, schema_migrations[i].version)->checksum);
        error = -EEXIST;
    }
    return error;
}

static void tell_of_unknown(const struct schema_change *change)
{
    for (size_t i = 0; i < change->applied_count; i++)
        if (!find_embedded(change->applied[i].version))
            log_warn("schema has a migration that this program does not know version=%d name=%s",
                change->applied[i].version, change->applied[i].name);
}

/* What PostgreSQL refused: said here, unless it is only a lock that others held. */
static int refusal(const struct schema_change *change, const char *name, const char *direction)
{
    if (schema_session_was_held_up(change->session))
        return -EAGAIN;
    log_error("migration failed file=%s.%s.sql error=\"%s\" action=rolled_back", name, direction,
        schema_session_error(change->session));
    return -ECANCELED;
}

/* A line of the log for each line of `differences`. */
static int refuse_shape(char *differences)
{
    char *rest = NULL;
    for (const char *line = strtok_r(differences, "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest))
        log_error("table is of another shape: %s action=refused", line);
    free(differences);
    return -ECANCELED;
}

/* What is there, and whether it may be built upon. */
static int look(struct schema_change *change)
{
    char *differences = NULL;
    int error = schema_shape_find_differences(change->session, true, &differences);
    if (error == 0 && !differences)
        error = read_state(change);
    if (error < 0)
        return error;
    if (!differences && !find_applied(change, LEGACY_VERSION))
        error = schema_shape_find_differences(change->session, false, &differences);
    if (differences)
        return refuse_shape(differences);
    if (error == 0)
        error = check_checksums(change);
    if (error == 0)
        tell_of_unknown(change);
    return error;
}

int schema_change_up(struct schema_change *change)
{
    int error = look(change);
    if (error == 0)
        error = schema_store_create_table(change->session);
    if (error < 0)
        return error;
    for (size_t i = 0; i < schema_migration_count; i++) {
        const struct schema_migration *migration = &schema_migrations[i];
        if (find_applied(change, migration->version))
            continue;
        error = schema_store_apply(change->session, migration);
        if (error == -EBADMSG)
            return refusal(change, migration->name, "up");
        if (error < 0)
            return error;
        log_info("migration applied version=%d name=%s", migration->version, migration->name);
    }
    error = username_adoption_run(change->session);
    if (error == 0)
        log_info("schema is up to date version=%d",
            schema_migrations[schema_migration_count - 1].version);
    return error;
}

int schema_change_rehearse(struct schema_change *change)
{
    const struct schema_migration **pending =
        calloc(schema_migration_count, sizeof(const struct schema_migration *));
    size_t count = 0;
    int error = pending ? look(change) : -ENOMEM;
    for (size_t i = 0; error == 0 && i < schema_migration_count; i++)
        if (!find_applied(change, schema_migrations[i].version))
            pending[count++] = &schema_migrations[i];
    if (error == 0 && count > 0)
        error = schema_store_rehearse(change->session, pending, count);
    if (error == -EBADMSG)
        error = refusal(change, "dry-run", "up");
    for (size_t i = 0; error == 0 && i < count; i++)
        (void)printf("would apply %d %s\n", pending[i]->version, pending[i]->name);
    if (error == 0 && count == 0)
        (void)printf("nothing to apply\n");
    (void)fflush(stdout);
    free((void *)pending);
    return error;
}

/* The last ones first. -ECANCELED: one is unknown to this program, which is said. */
static int choose_for_down(const struct schema_change *change, size_t count,
    const struct schema_migration **ret_migrations)
{
    for (size_t i = 0; i < count; i++) {
        const struct schema_applied *applied = &change->applied[change->applied_count - 1 - i];
        ret_migrations[i] = find_embedded(applied->version);
        if (ret_migrations[i])
            continue;
        log_error("migration is unknown to this program version=%d name=%s"
                  " expected=\"the program that applied it\" action=refused",
            applied->version, applied->name);
        return -ECANCELED;
    }
    return 0;
}

/* No worker may be connected to the database, wherever it runs: it holds this lock too. */
static int take_database(const struct schema_change *change)
{
    bool is_locked = false;
    char holder[HOLDER_SIZE] = "";
    int error =
        schema_store_try_lock(change->session, SCHEMA_LOCK_USE, &is_locked, holder, sizeof(holder));
    if (error < 0 || is_locked)
        return error;
    log_error("userd runs on this database holder=\"%s\" expected=\"every userd on it stopped, and"
              " then migrate down\" action=refused",
        holder);
    return -ECANCELED;
}

int schema_change_down(struct schema_change *change, int wanted)
{
    int error = take_database(change);
    if (error == 0)
        error = read_state(change);
    if (error == 0)
        error = check_checksums(change);
    if (error < 0)
        return error;
    size_t count = (size_t)wanted < change->applied_count ? (size_t)wanted : change->applied_count;
    const struct schema_migration **migrations =
        calloc(count + 1, sizeof(const struct schema_migration *));
    error = migrations ? choose_for_down(change, count, migrations) : -ENOMEM;
    if (error == 0 && count > 0)
        error = schema_store_take_back(change->session, migrations, count);
    if (error == -EBADMSG)
        error = refusal(change, "all", "down");
    for (size_t i = 0; error == 0 && i < count; i++)
        log_info(
            "migration taken back version=%d name=%s", migrations[i]->version, migrations[i]->name);
    if (error == 0)
        log_info("schema is at version=%d",
            change->applied_count > count
                ? change->applied[change->applied_count - 1 - count].version
                : 0);
    free((void *)migrations);
    return error;
}

int schema_change_print_status(struct schema_change *change)
{
    int error = read_state(change);
    if (error < 0)
        return error;
    (void)printf("%-8s %-32s %-8s %s\n", "version", "name", "state", "applied at");
    for (size_t i = 0; i < schema_migration_count; i++) {
        const struct schema_migration *migration = &schema_migrations[i];
        const struct schema_applied *applied = find_applied(change, migration->version);
        const char *state = applied ? "applied" : "pending";
        if (is_changed(change, migration))
            state = "CHANGED";
        (void)printf("%-8d %-32s %-8s %s\n", migration->version, migration->name, state,
            applied ? applied->applied_at : "");
    }
    for (size_t i = 0; i < change->applied_count; i++)
        if (!find_embedded(change->applied[i].version))
            (void)printf("%-8d %-32s %-8s %s\n", change->applied[i].version,
                change->applied[i].name, "UNKNOWN", change->applied[i].applied_at);
    (void)fflush(stdout);
    return check_checksums(change);
}
