/* Asks eventd, as a one-shot child, what librdkafka has against kafka.options: nothing else knows
 * its properties, and the master links none of it.
 *
 * The child gets eventd's part of the settings and no more, and has ten seconds. One that ends,
 * says anything else or nothing at all is a complaint as well: what nobody vouches for is not put
 * in force. Asks only when there are options.
 */
#ifndef USERD_MASTER_KAFKA_CHECK_H
#define USERD_MASTER_KAFKA_CHECK_H

#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "common/settings.h"
#include "common/settings_complaints.h"

/* Over the deadlines of the reload that it comes before. */
#define KAFKA_CHECK_TIMEOUT_MS 10000

struct kafka_check;

/* The answer: complaints by file and line, or none. They are the check's; it may be freed here. */
typedef void kafka_check_done(const struct settings_complaints *complaints, void *userdata);

/* `file` and `settings` must outlive it. `on_done` is called once, perhaps before this returns;
 * never after kafka_check_free(). */
MUST_CHECK int kafka_check_new(sd_event *event, const char *file, const struct settings *settings,
    kafka_check_done *on_done, void *userdata, struct kafka_check **ret_check);
void kafka_check_start(struct kafka_check *check);
/* Ends the child. NULL is fine. Always returns NULL. */
struct kafka_check *kafka_check_free(struct kafka_check *check);

/* For a program without a loop of its own: waits for the answer. -EINVAL with complaints, or
 * another negative errno. */
MUST_CHECK int kafka_check_run(
    const char *file, const struct settings *settings, struct settings_complaints *complaints);

#endif
