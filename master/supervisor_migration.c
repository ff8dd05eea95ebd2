/* `run --migrate`: the schema is brought up beside a service that serves already, and says
 * UNAVAILABLE as long as there is no schema. A child does it, which waits for the database for a
 * while only: the next one has the configuration that is in force then. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "common/log.h"
#include "common/process_protocol.h"
#include "common/scoreboard.h"
#include "master/child_program.h"
#include "master/errand_child.h"
#include "master/supervisor_private.h"

#define WAIT_OF_A_CHILD_S "20"
#define NEXT_CHILD_US     2000000
#define TIMER_ACCURACY_US 100000

struct supervisor_migration {
    struct supervisor *supervisor;
    struct errand_child child; /* owned */
    sd_event_source *timer;    /* owned: the start of the next child */
    uint32_t exit_status;
    bool has_told; /* the child's last word has come */
};

static void try_again(struct supervisor_migration *migration)
{
    int result = sd_event_source_set_time_relative(migration->timer, NEXT_CHILD_US);
    if (result >= 0)
        result = sd_event_source_set_enabled(migration->timer, SD_EVENT_ONESHOT);
    if (result < 0)
        log_error("timer of the migration not set error=\"%s\"", strerror(-result));
}

/* A schema that cannot be brought up is nothing that passes: whoever asked for it hears of it. */
static void give_up(struct supervisor *supervisor, uint32_t exit_status)
{
    log_error("migration failed status=%u action=stop", exit_status);
    supervisor->exit_status = (int)exit_status;
    supervisor_requests_stop(supervisor);
}

static void conclude(struct supervisor_migration *migration)
{
    struct supervisor *supervisor = migration->supervisor;
    bool has_told = migration->has_told;
    uint32_t exit_status = migration->exit_status;
    errand_child_end(&migration->child);
    migration->has_told = false;
    if (has_told && exit_status == EX_OK) {
        supervisor_migration_end(supervisor);
        return;
    }
    bool is_passing = !has_told || exit_status == EX_UNAVAILABLE || exit_status == EX_TEMPFAIL;
    if (is_passing) {
        log_warn("schema not brought up yet action=retry");
        try_again(migration);
        return;
    }
    supervisor_migration_end(supervisor);
    give_up(supervisor, exit_status);
}

static int on_frame(
    struct ipc_channel *channel, const Userd__Ipc__Frame *frame, int *fd, void *userdata)
{
    (void)channel;
    (void)fd;
    struct supervisor_migration *migration = userdata;
    if (frame->body_case != USERD__IPC__FRAME__BODY_MIGRATION_END)
        return -EPROTO;
    migration->exit_status = frame->migration_end->exit_status;
    migration->has_told = true;
    return 0;
}

static void on_closed(struct ipc_channel *channel, int error, void *userdata)
{
    (void)channel;
    (void)error;
    conclude(userdata);
}

static int on_timer(sd_event_source *source, uint64_t time_us, void *userdata)
{
    static const struct ipc_channel_handlers handlers = {
        .on_frame = on_frame, .on_closed = on_closed};
    static const char *const words[] = {"up", "--timeout", WAIT_OF_A_CHILD_S, NULL};
    static const struct errand_child_plan plan = {
        .program = CHILD_PROGRAM_WORKER,
        .role = PROCESS_ROLE_MIGRATE,
        .audience = SETTING_FOR_WORKER,
        .slot = SCOREBOARD_SLOT_EVENTD + 1,
        .words = words,
    };
    struct supervisor_migration *migration = userdata;
    struct supervisor *supervisor = migration->supervisor;
    (void)source;
    (void)time_us;
    int result = errand_child_start(&migration->child, supervisor->event, &plan,
        staffing_settings(supervisor->staffing), &handlers, migration);
    if (result == 0)
        return 0;
    log_error("migration cannot be started error=\"%s\" action=retry", strerror(-result));
    errand_child_end(&migration->child);
    try_again(migration);
    return 0;
}

int supervisor_migration_begin(struct supervisor *supervisor)
{
    struct supervisor_migration *migration = calloc(1, sizeof(*migration));
    if (migration == NULL)
        return -ENOMEM;
    *migration = (struct supervisor_migration){
        .supervisor = supervisor,
        .child = {.scoreboard_fd = -1, .pid_fd = -1},
    };
    supervisor->migration = migration;
    return sd_event_add_time_relative(supervisor->event, &migration->timer, CLOCK_MONOTONIC, 0,
        TIMER_ACCURACY_US, on_timer, migration);
}

void supervisor_migration_end(struct supervisor *supervisor)
{
    struct supervisor_migration *migration = supervisor->migration;
    supervisor->migration = NULL;
    if (migration == NULL)
        return;
    errand_child_end(&migration->child);
    (void)sd_event_source_disable_unref(migration->timer);
    free(migration);
}
