/* A reload up to the point where staffing takes over: the file is read, eventd is asked whether it
 * takes its part, the listeners are opened. Nothing changes before all of it is right, and the loop
 * goes on meanwhile. */
#include <errno.h>
#include <string.h>

#include "common/log.h"
#include "master/reload_check.h"
#include "master/supervisor_private.h"

void supervisor_reload_log(enum log_level level, const char *text)
{
    for (const char *line = text; line != NULL && *line != '\0';) {
        int length = (int)strcspn(line, "\n");
        log_write(level, "%.*s", length, line);
        line += length + (line[length] == '\n' ? 1 : 0);
    }
}

/* All that was wrong; nothing has changed. */
static void refuse(struct supervisor *supervisor, struct settings_complaints *complaints)
{
    if (supervisor->is_upgrading)
        settings_complaints_add(complaints, NULL, 0,
            "the master runs the new program, its workers the old one: mend this, then userd "
            "reload");
    const char *text = complaints->text != NULL ? complaints->text : "the service is out of memory";
    (void)staffing_ask(supervisor->staffing, LIFECYCLE_RELOAD_REFUSED);
    supervisor_reload_log(LOG_LEVEL_ERROR, text);
    log_error("reload refused, the old configuration stays in force");
    service_notice_ready(supervisor->notice);
    admin_socket_conclude(supervisor->admin, USERD__IPC__ADMIN_REQUEST__KIND__RELOAD, text, NULL);
    if (supervisor->is_upgrading)
        admin_socket_conclude(
            supervisor->admin, USERD__IPC__ADMIN_REQUEST__KIND__UPGRADE, text, NULL);
    supervisor->is_upgrading = false;
    supervisor_requests_take_up(supervisor);
}

static void replace_generation(
    struct supervisor *supervisor, struct settings *next, struct settings_complaints *complaints)
{
    struct listener_change listeners = {0};
    int result = listener_set_prepare(
        &supervisor->listeners, next, supervisor->file, complaints, &listeners);
    if (result == 0)
        result = staffing_reload(supervisor->staffing, next, &listeners);
    listener_set_abandon(&listeners);
    if (result == -ENOSPC)
        settings_complaints_add(complaints, supervisor->file, 0,
            "the new workers find no room beside the old ones, expected at most %d in all while a "
            "reload is under way",
            SCOREBOARD_WORKER_SLOTS);
    else if (result < 0 && complaints->count == 0)
        settings_complaints_add(complaints, NULL, 0, "%s", strerror(-result));
}

static void on_settings_checked(const struct settings_complaints *found, void *userdata)
{
    struct supervisor *supervisor = userdata;
    struct settings next CLEANUP(settings_cleanup) = supervisor->next_settings;
    supervisor->next_settings = (struct settings){0};
    struct settings_complaints complaints = {0};
    settings_complaints_append(&complaints, found);
    supervisor->settings_check = settings_check_free(supervisor->settings_check);
    if (complaints.count == 0)
        replace_generation(supervisor, &next, &complaints);
    if (complaints.count > 0)
        refuse(supervisor, &complaints);
    settings_complaints_cleanup(&complaints);
}

static void check_settings(struct supervisor *supervisor, struct settings_complaints *complaints)
{
    int result = settings_check_new(supervisor->event, supervisor->file, &supervisor->next_settings,
        on_settings_checked, supervisor, &supervisor->settings_check);
    if (result == 0)
        settings_check_start(supervisor->settings_check);
    else
        settings_complaints_add(complaints, NULL, 0, "%s", strerror(-result));
}

const char *supervisor_reload(struct supervisor *supervisor)
{
    struct staffing *staffing = supervisor->staffing;
    const char *refusal = lifecycle_refusal(staffing_state(staffing));
    if (staffing_ask(staffing, LIFECYCLE_RELOAD_ASKED) != LIFECYCLE_BEGIN_RELOAD) {
        log_error("reload refused reason=\"%s\"", refusal);
        return refusal;
    }
    service_notice_reloading(supervisor->notice);
    struct settings_complaints complaints = {0};
    struct settings_complaints warnings = {0};
    int result = reload_check_file(supervisor->file, staffing_settings(staffing),
        &supervisor->next_settings, &complaints, &warnings);
    supervisor_reload_log(LOG_LEVEL_WARN, warnings.text);
    settings_complaints_cleanup(&supervisor->reload_warnings);
    supervisor->reload_warnings = warnings;
    if (result == 0)
        check_settings(supervisor, &complaints);
    if (complaints.count > 0) {
        settings_cleanup(&supervisor->next_settings);
        refuse(supervisor, &complaints);
    }
    settings_complaints_cleanup(&complaints);
    return NULL;
}

void supervisor_reload_forget(struct supervisor *supervisor)
{
    supervisor->settings_check = settings_check_free(supervisor->settings_check);
    settings_cleanup(&supervisor->next_settings);
    supervisor->is_upgrading = false;
}
