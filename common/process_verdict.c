#include "common/process_verdict.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

__attribute__((format(printf, 1, 0))) static char *format_text(
    const char *format, va_list arguments)
{
    char text[PROCESS_VERDICT_TEXT_SIZE];
    (void)vsnprintf(text, sizeof(text), format, arguments);
    char *copy = strdup(text);
    if (copy == NULL)
        abort();
    return copy;
}

void process_verdict_complain(
    struct process_verdict *verdict, size_t option, const char *format, ...)
{
    if (verdict->complaint_count == PROCESS_VERDICT_MAX)
        return;
    va_list arguments;
    va_start(arguments, format);
    Userd__Ipc__Complaint *complaint = &verdict->complaints[verdict->complaint_count++];
    userd__ipc__complaint__init(complaint);
    complaint->option = (uint32_t)option;
    complaint->text = format_text(format, arguments);
    va_end(arguments);
}

void process_verdict_find(struct process_verdict *verdict, const char *format, ...)
{
    if (verdict->finding_count == PROCESS_VERDICT_MAX)
        return;
    va_list arguments;
    va_start(arguments, format);
    verdict->findings[verdict->finding_count++] = format_text(format, arguments);
    va_end(arguments);
}

int process_verdict_send(struct process_verdict *verdict, struct process_link *link)
{
    Userd__Ipc__Complaint *pointers[PROCESS_VERDICT_MAX];
    for (size_t i = 0; i < verdict->complaint_count; i++)
        pointers[i] = &verdict->complaints[i];
    Userd__Ipc__Verdict body;
    userd__ipc__verdict__init(&body);
    body.complaints = pointers;
    body.n_complaints = verdict->complaint_count;
    body.findings = verdict->findings;
    body.n_findings = verdict->finding_count;
    Userd__Ipc__Frame frame;
    userd__ipc__frame__init(&frame);
    frame.body_case = USERD__IPC__FRAME__BODY_VERDICT;
    frame.verdict = &body;
    int result = process_link_send(link, &frame);
    if (result < 0) {
        log_error("verdict not sent error=\"%s\"", strerror(-result));
        return EXIT_FAILURE;
    }
    return process_link_run(link);
}

void process_verdict_cleanup(struct process_verdict *verdict)
{
    for (size_t i = 0; i < verdict->complaint_count; i++)
        free(verdict->complaints[i].text);
    for (size_t i = 0; i < verdict->finding_count; i++)
        free(verdict->findings[i]);
    *verdict = (struct process_verdict){0};
}
