/* Whether the tables that a database has already are of the shape that the migrations expect: those
 * of the legacy service, which are adopted as they are, and schema_migration. */
#ifndef USERD_WORKER_STORE_SCHEMA_SHAPE_H
#define USERD_WORKER_STORE_SCHEMA_SHAPE_H

#include "worker/store/schema_session.h"

/* What differs, a line for each difference, malloc'ed; NULL: nothing. `is_adopted`: the tables of
 * the legacy service are ours already, and are not looked at. As schema_session_run(). */
MUST_CHECK int schema_shape_find_differences(
    struct schema_session *session, bool is_adopted, char **ret_differences);

#endif
