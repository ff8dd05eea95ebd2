/* What the service manager hears of us (sd_notify): the phase that we are in, a line of numbers,
 * signs of life, and while draining that we need the time. Without a manager nobody hears it. */
#ifndef USERD_MASTER_SERVICE_NOTICE_H
#define USERD_MASTER_SERVICE_NOTICE_H

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "common/scoreboard.h"

struct service_notice;

/* `is_answering`: whether every child that should answer does. While it says no, the manager's
 * watchdog is not fed. */
MUST_CHECK int service_notice_new(sd_event *event, const struct scoreboard *scoreboard,
    bool (*is_answering)(void *userdata), void *userdata, struct service_notice **ret_notice);
/* NULL is fine. Always returns NULL. */
struct service_notice *service_notice_free(struct service_notice *notice);

void service_notice_ready(struct service_notice *notice);
void service_notice_reloading(struct service_notice *notice);
void service_notice_stopping(struct service_notice *notice);
/* In place of the line of numbers, from now on. */
void service_notice_say(struct service_notice *notice, const char *format, ...) PRINTF_LIKE(2, 3);

/* 1234567 as "1,234,567". */
#define SERVICE_NOTICE_NUMBER_SIZE 32
void service_notice_format_number(uint64_t number, char ret_text[SERVICE_NOTICE_NUMBER_SIZE]);

#endif
