/* The load generator's command line. */
#ifndef USERD_TESTS_BENCH_LOAD_OPTIONS_H
#define USERD_TESTS_BENCH_LOAD_OPTIONS_H

#include "tests/bench/load_plan.h"

/* Fills in the plan: defaults, then what the arguments say. Ends the program where they are wrong.
 * `plan->timeout` points into them. */
void load_options_parse(struct load_plan *plan, int argc, char **argv);

#endif
