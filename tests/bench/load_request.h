/* One call's request and the answer to it, as bytes: what is asked of whom, and whether the answer
 * is right. The users of a benchmark's database have the ids from 1 on, and names that begin with
 * "user" and the id: so every name shows whose it is. Knows no HTTP/2. */
#ifndef USERD_TESTS_BENCH_LOAD_REQUEST_H
#define USERD_TESTS_BENCH_LOAD_REQUEST_H

#include "tests/bench/load_plan.h"

#define LOAD_PREFIX_BYTES 5 /* gRPC's, before each message */

struct load_request {
    enum load_method method;
    uint32_t id; /* whom it is about; GetByIDs: the last of them */
    size_t length;
    uint8_t *bytes; /* load_request_capacity() of them: with gRPC's prefix */
};

/* The method of this name, or of this path: "GetUser", "/user.User/GetUser". -1: none. */
int load_request_find_method(const char *name);
const char *load_request_path(enum load_method method);

/* Bytes that any request of the plan fits into, and any right answer. */
size_t load_request_capacity(const struct load_plan *plan);
size_t load_request_answer_capacity(const struct load_plan *plan);

/* Draws a method and what it asks for. */
void load_request_fill(
    struct load_request *request, struct load_plan *plan, struct load_random *random);

/* An OK answer's names are counted into *ret_names. False: it is not what was asked for. */
bool load_request_check(const struct load_request *request, struct load_plan *plan,
    const uint8_t *answer, size_t length, uint32_t *ret_names);
/* Whether NOT_FOUND can be a right answer under this plan. */
bool load_request_may_miss(const struct load_request *request, const struct load_plan *plan);

#endif
