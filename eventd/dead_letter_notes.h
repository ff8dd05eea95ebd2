/* Keeps the notes of handled dead letters alive.
 *
 * The notes are what the group "GROUP.dead_letters" has committed (dead_letter_topic.h). It never
 * has a member, and what a group without members has committed Kafka forgets after
 * offsets.retention.minutes, 7 days by default: every letter that the topic still holds would be
 * pending again. So eventd commits each note again, as it is, twice a day. That waits for Kafka,
 * and so has a thread and a client of its own, which both end with it. A command that notes
 * something between the reading and the commit, a few milliseconds, loses its note: those letters
 * are listed again.
 */
#ifndef USERD_EVENTD_DEAD_LETTER_NOTES_H
#define USERD_EVENTD_DEAD_LETTER_NOTES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/attributes.h"
#include "common/settings.h"

#define DEAD_LETTER_NOTES_INTERVAL_US UINT64_C(43200000000) /* 12 h */
#define DEAD_LETTER_NOTES_RETRY_US    UINT64_C(600000000)

struct dead_letter_notes;

/* `settings` must outlive it, and so must the process: a thread may be under way at any time. */
MUST_CHECK int dead_letter_notes_new(
    const struct settings *settings, struct dead_letter_notes **ret_notes);
/* The cluster was looked at: begins to renew the notes when it is time. Never waits. */
void dead_letter_notes_update(struct dead_letter_notes *notes, bool has_topic, uint64_t now_us);
bool dead_letter_notes_is_running(const struct dead_letter_notes *notes);

#endif
