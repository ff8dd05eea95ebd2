/* Builds the binary parameters of one statement: scalars and one-dimensional arrays, as
 * PostgreSQL's send/recv functions lay them out (array header: ndim, has-null, element oid, length,
 * lower bound; then length-prefixed elements). The buffer is kept between uses: reset, add in
 * order, hand to db_connection_submit().
 */
#ifndef USERD_WORKER_DB_DB_PARAMETERS_H
#define USERD_WORKER_DB_DB_PARAMETERS_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/attributes.h"

#define DB_MAX_PARAMETERS 16

struct db_parameters {
    char *buffer; /* owned */
    size_t length;
    size_t capacity;
    size_t offsets[DB_MAX_PARAMETERS];
    int lengths[DB_MAX_PARAMETERS];
    bool is_null[DB_MAX_PARAMETERS];
    Oid types[DB_MAX_PARAMETERS];
    int count;
    bool has_failed; /* out of memory, or over 1 GiB: db_connection_submit() then answers -ENOMEM */
    /* private: the array being built */
    size_t array_start;
    int32_t array_length;
};

void db_parameters_reset(struct db_parameters *parameters);
void db_parameters_cleanup(struct db_parameters *parameters);

void db_parameters_add_int4(struct db_parameters *parameters, int32_t value);
void db_parameters_add_int8(struct db_parameters *parameters, int64_t value);
void db_parameters_add_bool(struct db_parameters *parameters, bool value);
void db_parameters_add_text(struct db_parameters *parameters, const char *text, size_t length);

/* Arrays: open one with its element type, append, end. A NULL pointer appends SQL's NULL. */
enum db_element {
    DB_ELEMENT_INT4,
    DB_ELEMENT_INT8,
    DB_ELEMENT_TEXT,
    DB_ELEMENT_BYTEA,
    DB_ELEMENT_BOOL
};
void db_parameters_array_begin(struct db_parameters *parameters, enum db_element element);
void db_parameters_array_int4(struct db_parameters *parameters, int32_t value);
void db_parameters_array_int8(struct db_parameters *parameters, int64_t value);
void db_parameters_array_bool(struct db_parameters *parameters, bool value);
void db_parameters_array_bytes(struct db_parameters *parameters, const void *bytes, size_t length);
void db_parameters_array_end(struct db_parameters *parameters);

/* Reading binary results: the caller knows the column's type; asserts on its length. */
int32_t db_result_int4(const PGresult *result, int row, int column);
int64_t db_result_int8(const PGresult *result, int row, int column);
bool db_result_bool(const PGresult *result, int row, int column);
/* Points into the result. */
const char *db_result_bytes(const PGresult *result, int row, int column, size_t *ret_length);
bool db_result_is_null(const PGresult *result, int row, int column);

#endif
