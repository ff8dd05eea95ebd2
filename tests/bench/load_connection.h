/* One HTTP/2 connection of the load generator, with a fixed number of calls that are always under
 * way: each answer starts the next call (closed loop). Everything that a turn of the loop has to
 * say leaves in one write. Ends the program when the server cannot be reached at all. */
#ifndef USERD_TESTS_BENCH_LOAD_CONNECTION_H
#define USERD_TESTS_BENCH_LOAD_CONNECTION_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/bench/load_report.h"

/* What every call is like; shared by all connections. */
struct load_plan {
    const char *path;         /* "/user.User/GetUser" */
    uint32_t id_count;        /* ids are drawn uniformly from 1 to this */
    size_t ids_per_call;      /* 1: field 1 is the id; more: field 1 is a packed list */
    size_t streams;           /* calls under way on each connection */
    const char *timeout;      /* the header grpc-timeout, such as "20m"; NULL: none */
    unsigned int cancel_mill; /* of a thousand calls so many are cancelled right after the start */
    bool verifies;            /* the reply of id N must hold "user" and the number */
    bool is_measuring;        /* counts go into the report */
    bool is_stopping;         /* no further calls are started */
    struct load_report *report;
};

struct load_connection;

struct load_connection *load_connection_new(
    const struct load_plan *plan, const struct sockaddr_in *address, uint64_t seed, int epoll_fd);
struct load_connection *load_connection_free(struct load_connection *connection);
/* The socket is ready: `events` are epoll's. */
void load_connection_handle(struct load_connection *connection, uint32_t events);
size_t load_connection_under_way(const struct load_connection *connection);

#endif
