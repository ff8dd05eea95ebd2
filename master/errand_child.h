/* A child that lives for one question: started with its part of the settings on a scoreboard of its
 * own, and ended with whoever asked. No slot, no place in child_table: nobody else knows it. */
#ifndef USERD_MASTER_ERRAND_CHILD_H
#define USERD_MASTER_ERRAND_CHILD_H

#include <sys/types.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "common/ipc_channel.h"
#include "common/settings.h"

struct scoreboard;

struct errand_child_plan {
    const char *program; /* a name of child_program.h */
    const char *role;    /* its first word */
    enum setting_audience audience;
    uint32_t slot;            /* of the errand's own scoreboard */
    const char *const *words; /* behind the role, ended by NULL */
};

struct errand_child {
    struct scoreboard *scoreboard; /* owned */
    int scoreboard_fd;             /* owned; as pid_fd -1 when there is none */
    struct ipc_channel *control;   /* owned */
    pid_t pid;
    int pid_fd; /* owned: a signal reaches nobody else, whoever reaps */
};

/* Starts it and sends Start. Fills *child also on failure: errand_child_end() in any case. */
MUST_CHECK int errand_child_start(struct errand_child *child, sd_event *event,
    const struct errand_child_plan *plan, const struct settings *settings,
    const struct ipc_channel_handlers *handlers, void *userdata);
/* Kills it if it lives, reaps it if nobody has, and frees all. */
void errand_child_end(struct errand_child *child);

#endif
