/* The log: one line per event on standard error, lower case, fields as key=value.
 *
 *   error  someone must act          warn   odd but handled; says what we did
 *   info   life cycle                debug  the rest
 *
 * Ids are logged, never names, secrets or other personal data. Under the journal (JOURNAL_STREAM) a
 * line carries its priority as "<N>" and no time stamp. Thread-safe: a line is one write(2).
 */
#ifndef USERD_COMMON_LOG_H
#define USERD_COMMON_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/attributes.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

/* Names the process in every line ("master", "worker-1", "eventd"); copied, at most 31 bytes. */
void log_init(const char *process_name);
void log_configure(enum log_level level, enum log_format format);
bool log_is_enabled(enum log_level level);

/* Writes one line. Values of fields are quoted where they must be (log_format.h); line feeds, other
 * control characters and what is not UTF-8 are shown as \xNN (printable.h). */
void log_write(enum log_level level, const char *format, ...) PRINTF_LIKE(2, 3);

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)                               \
    do {                                             \
        if (log_is_enabled(LOG_LEVEL_DEBUG))         \
            log_write(LOG_LEVEL_DEBUG, __VA_ARGS__); \
    } while (0)

/* For what a peer can make happen at any rate: true at most `per_second` times a second; *limit
 * starts zeroed and belongs to one thread. When lines were held back, *ret_suppressed says how many
 * since the last one. */
struct log_limit {
    int64_t window_start_us;
    unsigned int count;
    unsigned int suppressed;
};
bool log_limit_allows(
    struct log_limit *limit, unsigned int per_second, unsigned int *ret_suppressed);

#endif
