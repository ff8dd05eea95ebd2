/* What child_table.c and child_table_takeover.c share; no one else includes it. */
#ifndef USERD_MASTER_CHILD_TABLE_PRIVATE_H
#define USERD_MASTER_CHILD_TABLE_PRIVATE_H

#include "master/child_program.h"
#include "master/child_table.h"

struct child {
    struct child_table *table;
    uint32_t slot;
    enum process_state state;
    pid_t pid;
    uint32_t generation;
    uint64_t ready_at_us; /* 0: never */
    bool was_asked;
    bool knows_stop; /* and that the whole service stops */
    struct child_program_identity program;
    uint64_t files; /* eventd: of kafka_files_fingerprint() when it was started; 0: not known */
    struct ipc_channel *control; /* owned; NULL after its end */
    sd_event_source *deadline;   /* owned; kills when it fires */
};

struct child_table {
    struct child_table_options options;
    const struct child_table_handlers *handlers;
    void *userdata;
    sd_event_source *reaper; /* owned */
    struct child children[SCOREBOARD_SLOTS];
};

/* A child without a deadline would be waited for without end: when none can be set it is killed
 * now. */
void child_table_set_deadline(struct child *child, uint64_t timeout_ms);
/* Takes the descriptor, also on failure. */
MUST_CHECK int child_table_open_control(struct child *child, int control_fd);

#endif
