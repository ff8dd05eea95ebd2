/* `userd dead-letters list | show | replay | drop`: one run, to its end.
 *
 * A letter is handled once it is back in its topic, or dropped; `list` shows what is not. Talks to
 * Kafka alone, and to no other process of userd.
 */
#ifndef USERD_EVENTD_DEAD_LETTER_COMMAND_H
#define USERD_EVENTD_DEAD_LETTER_COMMAND_H

#include "common/process_link.h"

/* `words`: a verb, then --all or IDs, as the master has checked them. The exit status: EX_OK,
 * EX_DATAERR when something that was named is not there or cannot be done, EX_UNAVAILABLE without
 * Kafka, EX_CONFIG, EX_TEMPFAIL when it was told to end. */
int dead_letter_command(struct process_link *link, int word_count, char **words);

#endif
