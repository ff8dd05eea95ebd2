#include "common/log.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "common/log_format.h"
#include "common/monotonic_clock.h"
#include "common/printable.h"

#define LINE_MAX_BYTES    4096
#define US_PER_SECOND     INT64_C(1000000)
#define NS_PER_MS         1000000
#define PROCESS_NAME_SIZE 32
#define TIMESTAMP_SIZE    40

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const int level_priorities[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};

static struct {
    char process_name[PROCESS_NAME_SIZE];
    _Atomic int level;
    _Atomic int format;
    bool is_journal;
} log_state = {.process_name = "userd", .level = LOG_LEVEL_INFO, .format = LOG_FORMAT_TEXT};

/* The journal says which device and inode its stream is; standard error may have been redirected
 * since (systemd.exec(5), $JOURNAL_STREAM). */
static bool is_stderr_the_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat status;
    if (stream == NULL || fstat(STDERR_FILENO, &status) != 0)
        return false;
    char *end = NULL;
    unsigned long long device = strtoull(stream, &end, 10);
    if (*end != ':')
        return false;
    unsigned long long inode = strtoull(end + 1, NULL, 10);
    return device == status.st_dev && inode == status.st_ino;
}

void log_init(const char *process_name)
{
    (void)snprintf(log_state.process_name, sizeof(log_state.process_name), "%s", process_name);
    log_state.is_journal = is_stderr_the_journal();
}

void log_configure(enum log_level level, enum log_format format)
{
    atomic_store_explicit(&log_state.level, (int)level, memory_order_relaxed);
    atomic_store_explicit(&log_state.format, (int)format, memory_order_relaxed);
}

bool log_is_enabled(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&log_state.level, memory_order_relaxed);
}

static void write_whole(const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(STDERR_FILENO, bytes, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return; /* nobody listens: there is nowhere left to say so */
        bytes += written;
        length -= (size_t)written;
    }
}

static void format_timestamp(char *target, size_t size)
{
    struct timespec now;
    struct tm calendar;
    char seconds[TIMESTAMP_SIZE];
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &calendar);
    (void)strftime(seconds, sizeof(seconds), "%Y-%m-%dT%H:%M:%S", &calendar);
    (void)snprintf(target, size, "%s.%03ldZ", seconds, now.tv_nsec / NS_PER_MS);
}

static void write_json(enum log_level level, const char *timestamp, const char *message)
{
    json_t *object =
        json_pack("{s:s, s:s, s:s, s:i, s:s}", "time", timestamp, "level", level_names[level],
            "process", log_state.process_name, "pid", (int)getpid(), "message", message);
    if (object == NULL) /* not UTF-8: say it without the text rather than not at all */
        object = json_pack("{s:s, s:s, s:s, s:i, s:s}", "time", timestamp, "level",
            level_names[level], "process", log_state.process_name, "pid", (int)getpid(), "message",
            "message is not valid UTF-8");
    char *text = object == NULL ? NULL : json_dumps(object, JSON_COMPACT | JSON_PRESERVE_ORDER);
    json_decref(object);
    if (text == NULL)
        return;
    size_t length = strlen(text);
    text[length] = '\n'; /* the zero's place: the text goes out by length */
    write_whole(text, length + 1);
    free(text);
}

static void write_text(enum log_level level, const char *timestamp, const char *message)
{
    char line[LINE_MAX_BYTES + 128];
    int length;
    if (log_state.is_journal)
        length = snprintf(line, sizeof(line), "<%d>%s: %s\n", level_priorities[level],
            log_state.process_name, message);
    else
        length = snprintf(line, sizeof(line), "%s %s %s[%d]: %s\n", timestamp, level_names[level],
            log_state.process_name, (int)getpid(), message);
    if (length > 0)
        write_whole(line, (size_t)length < sizeof(line) ? (size_t)length : sizeof(line) - 1);
}

void log_write(enum log_level level, const char *format, ...)
{
    if (!log_is_enabled(level))
        return;
    int saved_errno = errno;
    char raw[LINE_MAX_BYTES];
    char message[LINE_MAX_BYTES];
    char timestamp[TIMESTAMP_SIZE * 2];
    va_list arguments;
    va_start(arguments, format);
    (void)log_format(raw, sizeof(raw), format, arguments);
    va_end(arguments);
    (void)printable_copy(raw, message, sizeof(message));
    format_timestamp(timestamp, sizeof(timestamp));
    if (atomic_load_explicit(&log_state.format, memory_order_relaxed) == LOG_FORMAT_JSON)
        write_json(level, timestamp, message);
    else
        write_text(level, timestamp, message);
    errno = saved_errno;
}

bool log_limit_allows(
    struct log_limit *limit, unsigned int per_second, unsigned int *ret_suppressed)
{
    int64_t now_us = (int64_t)monotonic_clock_us();
    if (limit->window_start_us == 0 || now_us - limit->window_start_us >= US_PER_SECOND) {
        limit->window_start_us = now_us;
        limit->count = 0;
    }
    if (limit->count >= per_second) {
        limit->suppressed++;
        return false;
    }
    limit->count++;
    *ret_suppressed = limit->suppressed;
    limit->suppressed = 0;
    return true;
}
