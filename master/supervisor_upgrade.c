/* The master on its way from one program to the next: what it owns goes into a hand-over, and comes
 * out of it on the other side. Notes of connections by address (address_limit.h) stay behind: those
 * connections are the old workers', which the reload that follows drains. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/file_descriptor.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include "common/settings_transfer.h"
#include "master/handover.h"
#include "master/supervisor_private.h"
#include "master/upgrade.h"

#define EVERYONE \
    ((enum setting_audience)(SETTING_FOR_MASTER | SETTING_FOR_WORKER | SETTING_FOR_EVENTD))

static void free_handover(struct handover **handover)
{
    handover_free(*handover);
}

static void free_start(Userd__Ipc__Start **start)
{
    settings_transfer_free(*start);
}

static void free_path(char **path)
{
    free(*path);
}

static void save_listeners(const struct listener_set *set, struct handover *handover)
{
    for (size_t i = 0; i < set->count; i++) {
        handover->listeners[i].fd = set->items[i].fd;
        handover->listeners[i].name = set->items[i].name;
        handover->listeners[i].address = set->items[i].address;
        handover->listeners[i].is_inherited = set->items[i].is_inherited;
    }
    handover->state.n_listeners = set->count;
}

static int save(const struct supervisor *supervisor, struct handover *handover,
    Userd__Ipc__Start *settings, int *ret_fd)
{
    Userd__Handover__State *state = &handover->state;
    state->pid = getpid();
    state->started_at_us = supervisor->started_at_us;
    state->owes_migration = supervisor->migration != NULL;
    state->settings = settings;
    state->run_directory_fd = supervisor->run_directory.fd;
    state->pid_file_fd = supervisor->run_directory.pid_fd;
    state->scoreboard_fd = supervisor->scoreboard_fd;
    state->outbox_wake_fd = supervisor->outbox_wake_fd;
    save_listeners(&supervisor->listeners, handover);
    admin_socket_save(supervisor->admin, handover);
    int result = staffing_save(supervisor->staffing, handover);
    return result < 0 ? result : handover_write(state, ret_fd);
}

static int try_upgrade(struct supervisor *supervisor, struct settings_complaints *complaints)
{
    char *program CLEANUP(free_path) = NULL;
    int result = upgrade_find_program(&program);
    if (result < 0)
        return result;
    struct handover *handover CLEANUP(free_handover) = handover_new();
    if (handover == NULL)
        return -ENOMEM;
    Userd__Ipc__Start *settings CLEANUP(free_start) = NULL;
    result =
        settings_transfer_pack(staffing_settings(supervisor->staffing), EVERYONE, 0, 0, &settings);
    if (result < 0)
        return result;
    int fd CLEANUP(fd_close) = -1;
    result = save(supervisor, handover, settings, &fd);
    if (result == 0)
        result = upgrade_ask(program, supervisor->file, &handover->state, fd, complaints);
    if (result < 0)
        return result;
    log_info("upgrading program=%s", program);
    upgrade_become(program, supervisor->file, &handover->state, fd, complaints);
    return -ENOEXEC;
}

void supervisor_upgrade(struct supervisor *supervisor, struct settings_complaints *complaints)
{
    int result = try_upgrade(supervisor, complaints);
    if (result == -EAGAIN)
        settings_complaints_add(complaints, NULL, 0,
            "a worker has not taken yet what was sent to it, expected it to in a moment");
    else if (complaints->count == 0)
        settings_complaints_add(complaints, NULL, 0, "%s", strerror(-result));
}

static int adopt_listeners(struct listener_set *set, const Userd__Handover__State *state)
{
    if (state->n_listeners > SETTINGS_MAX_LISTENERS)
        return -EPROTO;
    for (size_t i = 0; i < state->n_listeners; i++) {
        const Userd__Handover__Listener *saved = state->listeners[i];
        int result = listener_adopt(
            saved->fd, saved->name, saved->address, saved->is_inherited, &set->items[i]);
        if (result < 0)
            return result;
        set->count++;
    }
    return 0;
}

int supervisor_upgrade_adopt(struct supervisor *supervisor, const Userd__Handover__State *state)
{
    supervisor->started_at_us = state->started_at_us;
    supervisor->run_directory.fd = state->run_directory_fd;
    supervisor->run_directory.pid_fd = state->pid_file_fd;
    supervisor->scoreboard_fd = state->scoreboard_fd;
    supervisor->outbox_wake_fd = state->outbox_wake_fd;
    if (state->pid != getpid())
        return -EPROTO;
    int result = handover_set_inherited(state, false);
    if (result == 0)
        result = settings_transfer_unpack(state->settings, &supervisor->settings);
    if (result == 0)
        result = adopt_listeners(&supervisor->listeners, state);
    if (result == 0)
        result = scoreboard_open(supervisor->scoreboard_fd, &supervisor->scoreboard);
    return result;
}
