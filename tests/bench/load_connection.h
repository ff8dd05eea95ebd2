/* One HTTP/2 connection of the load generator, with a bounded number of calls under way. In a
 * closed loop each answer starts the next call; by the clock, load_connection_start() does.
 * Everything that a turn of the loop has to say leaves in one write. A connection that ends is made
 * anew; one that cannot be made ends the program, or is tried again where the plan says so. */
#ifndef USERD_TESTS_BENCH_LOAD_CONNECTION_H
#define USERD_TESTS_BENCH_LOAD_CONNECTION_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/bench/load_plan.h"

struct load_connection;

struct load_connection *load_connection_new(
    struct load_plan *plan, const struct sockaddr_in *address, uint64_t seed, int epoll_fd);
struct load_connection *load_connection_free(struct load_connection *connection);

/* The socket is ready: `events` are epoll's. */
void load_connection_handle(struct load_connection *connection, uint32_t events);
/* Begins a call that was due at `due_us`; load_connection_flush() sends it. False: no stream is
 * free here. */
bool load_connection_start(struct load_connection *connection, uint64_t due_us);
void load_connection_flush(struct load_connection *connection);
/* A refused connection is tried again; `now_us` says whether it is time. */
void load_connection_retry(struct load_connection *connection, uint64_t now_us);
size_t load_connection_under_way(const struct load_connection *connection);

#endif
