/* Programs under test: started with their output in a file, ended with a deadline, never outliving
 * the test. Every failure here fails the test. */
#ifndef USERD_TESTS_HARNESS_TEST_PROCESS_H
#define USERD_TESTS_HARNESS_TEST_PROCESS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/attributes.h"

#define TEST_TIMEOUT_MS  30000 /* for whatever must happen, on a machine that is slow */
#define TEST_STEP_MS     10
#define TEST_MAX_MEMBERS 64
/* A limit at which none of our programs gets a descriptor, also after it has closed one: it keeps
 * the first ones for life. Not less, for poll(2) refuses more entries than the limit is. */
#define TEST_DESCRIPTORS_FOR_LIFE 8

/* Evaluates `condition` until it holds or the time is over; its last value. */
#define TEST_WAIT_FOR(condition, timeout_ms)                       \
    __extension__({                                                \
        int64_t wait_deadline_ms = test_now_ms() + (timeout_ms);   \
        bool wait_result = (condition);                            \
        while (!wait_result && test_now_ms() < wait_deadline_ms) { \
            test_pause_ms(TEST_STEP_MS);                           \
            wait_result = (condition);                             \
        }                                                          \
        wait_result;                                               \
    })

int64_t test_now_ms(void); /* CLOCK_MONOTONIC */
void test_pause_ms(int64_t duration_ms);

struct test_process {
    pid_t pid;
    char output_path[PATH_MAX];
    bool has_ended;
    int exit_status; /* 128 + N: ended by signal N */
};

/* argv ends with NULL. Each of `environment` (NULL: none) is "NAME=value", or "NAME" to take it
 * away; the rest is ours. Standard output and error are appended to `output_path`; standard input
 * is /dev/null. */
void test_process_start(struct test_process *process, const char *const *argv,
    const char *const *environment, const char *output_path);
/* The exit status, or -1 when it did not end in time. */
int test_process_wait(struct test_process *process, int64_t timeout_ms);
/* Sends `signal` and waits: the exit status, after a SIGKILL when the time is over -1. */
int test_process_stop(struct test_process *process, int signal, int64_t timeout_ms);
bool test_process_is_running(struct test_process *process);

/* Runs a program to its end. *ret_output (both streams, with a NUL behind) is the caller's to free.
 */
int test_process_run(const char *const *argv, const char *const *environment, const char *directory,
    char **ret_output);

/* Pids of the living children of `parent` whose program is called `name`, ascending. */
size_t test_process_children(pid_t parent, const char *name, pid_t ret_pids[TEST_MAX_MEMBERS]);

/* Descriptors from this number on are refused to the process from now on; -1: none is. */
void test_process_limit_descriptors(pid_t pid, int count);
/* The first number that the process would give to a descriptor now. */
int test_process_free_descriptor(pid_t pid);

/* How many descriptors of sockets the process has; 0: it is gone. */
size_t test_process_sockets(pid_t pid);

/* The whole of a file, with a NUL behind; malloc'ed. *ret_length may be NULL. Empty when there is
 * none. */
char *test_file_read(const char *path, size_t *ret_length);
void test_file_write(const char *path, const char *text);

#endif
