/* How many descriptors connections take: the master asks for so many, and a worker takes no more
 * connections than it has descriptors for, so that a connection too many is turned away and nothing
 * else ever lacks one. */
#ifndef USERD_COMMON_DESCRIPTOR_LIMIT_H
#define USERD_COMMON_DESCRIPTOR_LIMIT_H

#include <stdint.h>

#define DESCRIPTORS_OF_A_CONNECTION      2 /* in its worker: the C core's, and one to watch it by */
#define DESCRIPTORS_BESIDE_CONNECTIONS   256 /* channels, listeners, sessions, libraries */
#define DESCRIPTOR_LIMIT_CONNECTIONS_MIN 8   /* are tried with any limit */

/* The limit (RLIMIT_NOFILE) that a process needs for so many connections. */
static inline uint64_t descriptor_limit_for(uint64_t connections)
{
    return connections * DESCRIPTORS_OF_A_CONNECTION + DESCRIPTORS_BESIDE_CONNECTIONS;
}

/* The connections that a limit has room for. */
static inline uint64_t descriptor_limit_connections(uint64_t limit)
{
    if (limit < descriptor_limit_for(DESCRIPTOR_LIMIT_CONNECTIONS_MIN))
        return DESCRIPTOR_LIMIT_CONNECTIONS_MIN;
    return (limit - DESCRIPTORS_BESIDE_CONNECTIONS) / DESCRIPTORS_OF_A_CONNECTION;
}

#endif
