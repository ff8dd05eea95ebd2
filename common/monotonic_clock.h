/* The time that deadlines and durations are measured by: CLOCK_MONOTONIC, which nobody sets.
 *
 * Also the clock of gRPC's deadlines, of sd-event's timers and of the scoreboard's heartbeats, so
 * that its readings can be compared between processes. */
#ifndef USERD_COMMON_MONOTONIC_CLOCK_H
#define USERD_COMMON_MONOTONIC_CLOCK_H

#include <stdint.h>
#include <systemd/sd-event.h>
#include <time.h>

#define MONOTONIC_CLOCK_US_PER_S  UINT64_C(1000000)
#define MONOTONIC_CLOCK_NS_PER_US 1000
#define MONOTONIC_CLOCK_US_PER_MS 1000

static inline uint64_t monotonic_clock_us(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * MONOTONIC_CLOCK_US_PER_S +
           (uint64_t)now.tv_nsec / MONOTONIC_CLOCK_NS_PER_US;
}

static inline int64_t monotonic_clock_ms(void)
{
    return (int64_t)(monotonic_clock_us() / MONOTONIC_CLOCK_US_PER_MS);
}

/* When the loop's present turn began: cheaper, and the same for all that a turn does. */
static inline uint64_t monotonic_clock_turn_us(sd_event *event)
{
    uint64_t now = 0;
    (void)sd_event_now(event, CLOCK_MONOTONIC, &now);
    return now;
}

#endif
