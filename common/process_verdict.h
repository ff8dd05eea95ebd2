/* What a child that was asked about its part of the configuration answers: a Verdict frame. */
#ifndef USERD_COMMON_PROCESS_VERDICT_H
#define USERD_COMMON_PROCESS_VERDICT_H

#include "common/attributes.h"
#include "common/process_link.h"

#define PROCESS_VERDICT_CONNECT \
    "connect" /* the word that asks it to try what it would connect to */

#define PROCESS_VERDICT_MAX       128 /* complaints, and findings; more are left out */
#define PROCESS_VERDICT_TEXT_SIZE 512

struct process_verdict {
    Userd__Ipc__Complaint complaints[PROCESS_VERDICT_MAX]; /* their texts are owned */
    size_t complaint_count;
    char *findings[PROCESS_VERDICT_MAX]; /* owned */
    size_t finding_count;
};

/* `option` is the number of one of kafka.options, counted from 1; 0: none in particular. Ends the
 * process without memory: whoever asks takes that for a refusal. The text holds no secret. */
void process_verdict_complain(
    struct process_verdict *verdict, size_t option, const char *format, ...) PRINTF_LIKE(3, 4);
/* What was found to be in order. */
void process_verdict_find(struct process_verdict *verdict, const char *format, ...)
    PRINTF_LIKE(2, 3);
/* Sends it and waits to be dismissed. Returns the exit status for main(). */
MUST_CHECK int process_verdict_send(struct process_verdict *verdict, struct process_link *link);
void process_verdict_cleanup(struct process_verdict *verdict);

#endif
