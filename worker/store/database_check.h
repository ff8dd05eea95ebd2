/* What PostgreSQL's side of the configuration is worth, for the one-shot child behind `userd
 * check`, `run` and `reload`: whether libpq takes database.url, and, asked to, whether the
 * database, its schema and our rights are what a worker needs. Waits, for seconds. Changes nothing.
 */
#ifndef USERD_WORKER_STORE_DATABASE_CHECK_H
#define USERD_WORKER_STORE_DATABASE_CHECK_H

#include "common/process_link.h"

/* Sends the verdict and waits to be dismissed. Returns the exit status for main(). */
MUST_CHECK int database_check(struct process_link *link, bool connects);

#endif
