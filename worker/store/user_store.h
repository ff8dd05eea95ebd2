/* Users in PostgreSQL: the questions that can be asked, coalesced into batches (worker/db/), and
 * the outbox rows that are written with them. All SQL about users stands on top of user_read.c,
 * user_write.c and event_store.c as named statements.
 *
 * Queued questions of one shape become one statement; no artificial wait: a batch is what queued up
 * while the one before it was in flight. A question whose deadline has passed or whose asker is
 * gone is answered without the database.
 */
#ifndef USERD_WORKER_STORE_USER_STORE_H
#define USERD_WORKER_STORE_USER_STORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "common/scoreboard.h"
#include "common/settings.h"

enum user_outcome {
    USER_DONE,
    USER_NOT_FOUND,
    USER_NAME_INVALID, /* breaks a rule: question.message says which, for people */
    USER_NAME_TAKEN,
    USER_TOO_MANY,   /* more ids than one question may hold */
    USER_EXPIRED,    /* the deadline passed before the database was asked */
    USER_CANCELLED,  /* the asker went away before the database was asked */
    USER_OVERLOADED, /* the queue is full: nothing was done */
    USER_HOPELESS,   /* its turn would come after its deadline or only just before: nothing was done
                      */
    USER_STANDBY_AWAY, /* commits wait for a synchronous standby: as USER_UNAVAILABLE */
    USER_UNAVAILABLE,  /* no database now: nothing was done, or for a write in flight: not known */
    USER_FAILED,       /* PostgreSQL refused in a way that is nobody's input: logged */
};

enum user_question_kind {
    USER_QUESTION_NAMES,         /* user_name_question and user_names_question share one shape */
    USER_QUESTION_NAMES_OF_MANY, /* those that are too large to go with others; the store sorts
                                    them out */
    USER_QUESTION_ID,
    USER_QUESTION_RENAME,
    USER_QUESTION_DELETE,
};
#define USER_QUESTION_KINDS 5

/* What every question begins with. The caller zeroes it and fills in deadline_us, is_cancelled and
 * on_done. */
struct user_question {
    void (*on_done)(struct user_question *question, enum user_outcome outcome);
    int64_t deadline_us;             /* CLOCK_MONOTONIC; INT64_MAX: none */
    const atomic_bool *is_cancelled; /* set by the asker's thread at any time; NULL: never */
    /* Runs on the loop thread, again and again, while the question waits for longer than a moment:
     * only then is it worth while to watch for a cancellation. May be NULL. */
    void (*on_wait)(struct user_question *question);
    void *asker;         /* for on_wait */
    const char *message; /* with USER_NAME_INVALID: for people; valid during on_done */
    uint32_t source;     /* who asks: sources take turns. Small numbers; 0: nobody in particular */
    uint32_t cost;       /* rows that it asks for; 0: one */
    /* private to the store while queued */
    struct user_question *next;
    enum user_question_kind kind;
    bool is_single; /* asked for one id in `id`; otherwise `ids` */
};

/* GetUser, GetByID. */
struct user_name_question {
    struct user_question question;
    int32_t auth_id;
    const char *ret_username; /* points into the database's answer: valid during on_done */
    size_t ret_username_length;
};

/* GetByIDs: absent ids are left out, duplicates are fine. */
#define USER_NAMES_MAX 10000
struct user_names_question {
    struct user_question question;
    const int32_t *auth_ids; /* the caller's, until on_done */
    size_t auth_id_count;
    /* For each distinct id that exists, in no order: called on the loop thread before
     * on_done(USER_DONE). */
    void (*on_name)(
        struct user_names_question *question, int32_t auth_id, const char *username, size_t length);
};

/* GetByUsername. */
struct user_id_question {
    struct user_question question;
    const char *username; /* UTF-8, the caller's */
    size_t username_length;
    char *canonical; /* set by user_service, malloc'ed, freed by it; NULL: the name can have no
                        canonical form */
    size_t canonical_length;
    int32_t ret_auth_id;
    /* private to user_service: the caller's on_done, around which it cleans up */
    void (*on_found)(struct user_question *question, enum user_outcome outcome);
};

/* UserUpdate. A user that is not there is not found, whatever the name; the name that a user has
 * already is fine, whatever it is. */
#define USER_MESSAGE_SIZE 128
struct user_rename {
    struct user_question question;
    int32_t auth_id;
    const char *username; /* as sent, the caller's */
    size_t username_length;
    bool ret_is_unchanged; /* USER_DONE: the user has had this very name */
    /* Set by user_service. NFC form: malloc'ed, valid during on_done, freed by user_service after
     * it; NULL: it breaks a rule. */
    char *stored;
    size_t stored_length;
    char *canonical; /* likewise */
    size_t canonical_length;
    bool is_text; /* PostgreSQL can hold the name as sent */
    char message[USER_MESSAGE_SIZE];
    /* private to user_service: the caller's on_done, around which it cleans up */
    void (*on_renamed)(struct user_question *question, enum user_outcome outcome);
};

/* DeleteUser. */
struct user_delete {
    struct user_question question;
    int32_t auth_id;
    const char *traceparent; /* of the call, the caller's; NULL: none */
};

/* ---- consumed events ---- */

enum user_event_kind { USER_EVENT_REGISTRATION, USER_EVENT_ADMIN_DELETE };

struct user_event {
    int32_t auth_id;
    const char *username; /* USER_EVENT_REGISTRATION: as sent, UTF-8, no NUL */
    size_t username_length;
    char *canonical; /* set by user_service; NULL: breaks the rules, no claim. malloc'ed, freed by
                        user_service */
    size_t canonical_length;
    const char *traceparent; /* of the record, the caller's; NULL: none */
};

/* A Kafka header; value NULL: null. */
struct event_header {
    const char *name;
    const char *value;
    size_t value_length;
};

/* A record that cannot be applied: goes out again through the outbox, in the same transaction as
 * the position. */
struct user_dead_letter {
    const char *key; /* NULL: none */
    size_t key_length;
    const char *value; /* NULL: none */
    size_t value_length;
    const struct event_header *headers; /* the record's own, then the dlq-* ones */
    size_t header_count;
};

enum user_apply_outcome {
    USER_APPLY_DONE,
    USER_APPLY_POSITION_MISMATCH, /* nothing was applied */
    USER_APPLY_UNUSABLE, /* nothing was applied, and nothing will be before somebody has mended the
                            database: it is read-only, a right or a table is missing */
    USER_APPLY_UNAVAILABLE, /* not known to be applied: ask for the position, or send it again */
    USER_APPLY_REFUSED, /* PostgreSQL refuses these events for what is in them: split and try again;
                           batch.error says why */
};

/* Tells the record below a position from any other that could be at its offset. */
struct position_record {
    bool is_known;
    int64_t offset; /* the position - 1 */
    int64_t timestamp_ms;
    int64_t checksum;
};

/* Without events and dead letters it only moves the position. */
struct user_event_batch {
    enum user_event_kind kind;
    const char *cluster; /* the position's key */
    const char *topic;
    int32_t partition;
    int64_t position; /* must be the stored one (no row counts as equal when is_first) */
    int64_t next_position;
    bool is_first;
    struct position_record record_below; /* next_position */
    struct user_event *events;           /* in offset order */
    size_t event_count;
    const struct user_dead_letter *dead_letters;
    size_t dead_letter_count;
    void (*on_applied)(struct user_event_batch *batch, enum user_apply_outcome outcome);
    void *userdata;
    /* outputs of USER_APPLY_DONE */
    size_t ret_effects;       /* users made or removed */
    size_t ret_tombstoned;    /* registrations of deleted ids */
    size_t ret_without_claim; /* users made whose name is taken or breaks the rules */
    const char *error;        /* USER_APPLY_REFUSED: valid during on_applied */
    /* private to user_service: the caller's on_applied, around which it cleans up */
    void (*on_service_applied)(struct user_event_batch *batch, enum user_apply_outcome outcome);
};

/* One stored position. */
struct stored_position {
    const char *topic;
    int32_t partition;
    int64_t next_offset;
    struct position_record record_below;
};

/* What PostgreSQL knows of a cluster's partitions. */
struct stored_positions {
    const char *database;                    /* its identity: a UUID */
    const struct stored_position *positions; /* all that are stored for the cluster */
    size_t position_count;
    const char *const *other_clusters; /* up to 16 other clusters that have positions */
    size_t other_cluster_count;
};

struct position_question {
    const char *cluster;
    /* `positions` is valid during the call; NULL: the database could not be asked. */
    void (*on_positions)(
        struct position_question *question, const struct stored_positions *positions);
    void *userdata;
};

struct user_store;

struct user_store_options {
    sd_event *event;
    const struct settings *settings; /* worker's part; must outlive the store */
    struct scoreboard_slot *slot;
    uint32_t slot_number;
    int outbox_wake_fd; /* written after COMMIT of an outbox row; the caller's */
    /* The database has become reachable, with the schema that we need, or is no longer: loop
     * thread. */
    void (*on_availability)(bool is_available, void *userdata);
    /* Questions may have been answered, all that the database has answered for now, and what waited
     * has been sent: loop thread. */
    void (*on_answered)(void *userdata);
    void *userdata;
};

/* Starts connecting. Loop thread. */
MUST_CHECK int user_store_new(
    const struct user_store_options *options, struct user_store **ret_store);
/* Answers what is queued with USER_UNAVAILABLE. Loop thread, and no other thread may ask any more.
 */
struct user_store *user_store_free(struct user_store *store);

/* Queues any question (its first member): any thread. */
void user_store_ask(
    struct user_store *store, struct user_question *question, enum user_question_kind kind);
/* Nothing queued and nothing in flight: for the drain. Loop thread. */
bool user_store_is_idle(const struct user_store *store);

/* Loop thread. */
void user_store_apply_events(struct user_store *store, struct user_event_batch *batch);
void user_store_find_positions(struct user_store *store, struct position_question *question);

#endif
