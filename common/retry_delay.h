/* How long to wait before something that failed is tried again. */
#ifndef USERD_COMMON_RETRY_DELAY_H
#define USERD_COMMON_RETRY_DELAY_H

#include <stdint.h>
#include <sys/random.h>

#define RETRY_DELAY_FIRST_MS 100
#define RETRY_DELAY_MAX_MS   5000

/* 100 ms, doubled up to 5 s, of which a random part of up to a half is taken off: a fleet does not
 * come back as one. */
static inline int64_t retry_delay_ms(unsigned int failed_attempts)
{
    int64_t delay_ms = RETRY_DELAY_MAX_MS;
    if (failed_attempts < 6)
        delay_ms = (int64_t)RETRY_DELAY_FIRST_MS << failed_attempts;
    if (delay_ms > RETRY_DELAY_MAX_MS)
        delay_ms = RETRY_DELAY_MAX_MS;
    uint32_t random = 0;
    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != (ssize_t)sizeof(random))
        random = 0;
    return delay_ms - (int64_t)(random % (uint32_t)(delay_ms / 2 + 1));
}

#endif
