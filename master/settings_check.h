/* Asks the children's programs, as one-shot children, what their libraries have against the
 * configuration: libpq's part is userd-worker's to judge, librdkafka's is userd-eventd's. The
 * master links neither.
 *
 * Each child gets its part of the settings and no more, and has ten seconds. One that ends, says
 * anything else or nothing at all is a complaint as well: what nobody vouches for is not put in
 * force. A child is asked only where there is something to judge: parameters in database.url,
 * kafka.options. With `connects` both are asked, and try what they would connect to.
 */
#ifndef USERD_MASTER_SETTINGS_CHECK_H
#define USERD_MASTER_SETTINGS_CHECK_H

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "common/settings.h"
#include "common/settings_complaints.h"

/* Over the deadlines of the reload that it comes before. */
#define SETTINGS_CHECK_TIMEOUT_MS         10000
#define SETTINGS_CHECK_CONNECT_TIMEOUT_MS 60000

struct settings_check;

/* The answer: complaints by file and line, or none. They are the check's; it may be freed here. */
typedef void settings_check_done(const struct settings_complaints *complaints, void *userdata);

/* `file` and `settings` must outlive it. `on_done` is called once, perhaps before
 * settings_check_start() returns; never after settings_check_free(). */
MUST_CHECK int settings_check_new(sd_event *event, const char *file,
    const struct settings *settings, settings_check_done *on_done, void *userdata,
    struct settings_check **ret_check);
void settings_check_start(struct settings_check *check);
/* Ends the children. NULL is fine. Always returns NULL. */
struct settings_check *settings_check_free(struct settings_check *check);

/* For a program without a loop of its own: waits for the answer. -EINVAL with complaints, or
 * another negative errno. `findings` (may be NULL) gets what was tried and is in order. */
MUST_CHECK int settings_check_run(const char *file, const struct settings *settings, bool connects,
    struct settings_complaints *complaints, struct settings_complaints *findings);

#endif
