#include "eventd/dead_letter_notes.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "common/log.h"
#include "eventd/dead_letter_topic.h"

struct dead_letter_notes {
    const struct settings *settings;
    uint64_t next_us;
    atomic_bool is_running;
    atomic_bool has_failed; /* the last time */
};

/* It waits as long as dead_letter_topic does, which is bounded. */
static bool is_over(void *userdata)
{
    (void)userdata;
    return false;
}

static void *renew(void *userdata)
{
    struct dead_letter_notes *notes = userdata;
    struct dead_letter_topic topic = {
        .name = notes->settings->kafka.dead_letter_topic, .is_over = is_over};
    size_t renewed = 0;
    int result = dead_letter_topic_open(&topic, notes->settings);
    if (result == 0)
        result = dead_letter_topic_renew(&topic, &renewed);
    if (result < 0)
        log_warn("notes of handled dead letters are not renewed error=%d: trying again", result);
    else
        log_debug("notes of handled dead letters renewed partitions=%zu", renewed);
    dead_letter_topic_cleanup(&topic);
    atomic_store(&notes->has_failed, result < 0);
    atomic_store(&notes->is_running, false);
    return NULL;
}

static int start(struct dead_letter_notes *notes)
{
    pthread_t thread;
    atomic_store(&notes->is_running, true);
    int error = pthread_create(&thread, NULL, renew, notes);
    if (error == 0)
        error = pthread_detach(thread);
    else
        atomic_store(&notes->is_running, false);
    return -error;
}

void dead_letter_notes_update(struct dead_letter_notes *notes, bool has_topic, uint64_t now_us)
{
    if (!has_topic || atomic_load(&notes->is_running))
        return;
    if (atomic_exchange(&notes->has_failed, false))
        notes->next_us = now_us + DEAD_LETTER_NOTES_RETRY_US;
    if (now_us < notes->next_us)
        return;
    notes->next_us = now_us + DEAD_LETTER_NOTES_INTERVAL_US;
    int result = start(notes);
    if (result == 0)
        return;
    log_warn("notes of handled dead letters are not renewed error=%d: trying again", result);
    notes->next_us = now_us + DEAD_LETTER_NOTES_RETRY_US;
}

bool dead_letter_notes_is_running(const struct dead_letter_notes *notes)
{
    return atomic_load(&notes->is_running);
}

int dead_letter_notes_new(const struct settings *settings, struct dead_letter_notes **ret_notes)
{
    struct dead_letter_notes *notes = calloc(1, sizeof(*notes));
    if (notes == NULL)
        return -ENOMEM;
    notes->settings = settings;
    *ret_notes = notes;
    return 0;
}
