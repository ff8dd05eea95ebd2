/* What a load run is to do, shared by all its connections: the mix of methods, the keys, the pace.
 * One thread reads and writes it. */
#ifndef USERD_TESTS_BENCH_LOAD_PLAN_H
#define USERD_TESTS_BENCH_LOAD_PLAN_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/bench/load_keys.h"
#include "tests/bench/load_report.h"

#define LOAD_MAX_ADDRESSES    16
#define LOAD_MAX_IDS_PER_CALL 10000

struct load_plan {
    struct sockaddr_in addresses[LOAD_MAX_ADDRESSES]; /* connections go to them in turn */
    size_t address_count;
    size_t connections;
    size_t streams; /* calls under way on each connection, at most */
    double seconds;
    double warmup_s;
    uint64_t calls; /* the run ends with the answers to so many; 0: with its time */
    double rate;    /* calls per second in all, by the clock; 0: each answer starts the next call */
    uint64_t seed;
    uint32_t weights[LOAD_METHODS]; /* how often each method is drawn */
    uint32_t weight_sum;
    size_t ids_per_call;  /* of GetByIDs */
    const char *timeout;  /* the header grpc-timeout, such as "20m"; NULL: none */
    uint32_t cancel_mill; /* of a thousand calls so many are cancelled right after the start */
    bool verifies;   /* answers must be right, and of users that are there NOT_FOUND is wrong */
    bool reconnects; /* a server that refuses is tried again; else it ends the program */
    bool prints_json;
    struct load_keys keys;

    /* As the run goes on. */
    bool is_measuring;     /* counts go into the report */
    bool is_stopping;      /* no further calls are started */
    uint64_t begun;        /* calls so far */
    uint32_t name_salt;    /* new in each run, so that a rename never repeats a name */
    uint32_t renames;      /* so far */
    uint32_t deletes;      /* so far */
    uint32_t check_number; /* of the last answer of many names that was looked at */
    uint32_t *asked_by_id; /* owned: the number of the check that an id was last asked in */
    struct load_report *report;
};

#endif
