#include "worker/db/db_parameters.h"

#include <assert.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>

/* What one PostgreSQL message, and one value in it, may hold. */
#define PARAMETERS_MAX_BYTES   ((size_t)1 << 30)
#define PARAMETERS_FIRST_BYTES 4096

/* Of catalog/pg_type.dat: fixed for ever, since they travel in every binary array. */
#define OID_BOOL        16
#define OID_BYTEA       17
#define OID_INT8        20
#define OID_INT4        23
#define OID_TEXT        25
#define OID_BOOL_ARRAY  1000
#define OID_BYTEA_ARRAY 1001
#define OID_INT4_ARRAY  1007
#define OID_TEXT_ARRAY  1009
#define OID_INT8_ARRAY  1016

/* The array header is five big-endian 32 bit words; array_start is where it ends, so that 0 says
 * "none is open". */
#define ARRAY_HEADER_BYTES    20
#define ARRAY_HAS_NULL_OFFSET (4 - ARRAY_HEADER_BYTES)
#define ARRAY_LENGTH_OFFSET   (12 - ARRAY_HEADER_BYTES)
#define ARRAY_IS_CLOSED       0

static const struct {
    Oid element;
    Oid array;
} element_oids[] = {
    [DB_ELEMENT_INT4] = {OID_INT4, OID_INT4_ARRAY},
    [DB_ELEMENT_INT8] = {OID_INT8, OID_INT8_ARRAY},
    [DB_ELEMENT_TEXT] = {OID_TEXT, OID_TEXT_ARRAY},
    [DB_ELEMENT_BYTEA] = {OID_BYTEA, OID_BYTEA_ARRAY},
    [DB_ELEMENT_BOOL] = {OID_BOOL, OID_BOOL_ARRAY},
};

/* Room for `size` more bytes; false, and has_failed, when there is none. */
static bool reserve(struct db_parameters *parameters, size_t size)
{
    if (parameters->has_failed)
        return false;
    if (size > PARAMETERS_MAX_BYTES - parameters->length) {
        parameters->has_failed = true;
        return false;
    }
    if (parameters->length + size <= parameters->capacity)
        return true;

    size_t capacity = parameters->capacity ? parameters->capacity : PARAMETERS_FIRST_BYTES;
    while (capacity < parameters->length + size)
        capacity *= 2;
    char *buffer = realloc(parameters->buffer, capacity);
    if (!buffer) {
        parameters->has_failed = true;
        return false;
    }
    parameters->buffer = buffer;
    parameters->capacity = capacity;
    return true;
}

static void append(struct db_parameters *parameters, const void *bytes, size_t size)
{
    if (!reserve(parameters, size))
        return;
    if (size > 0)
        memcpy(parameters->buffer + parameters->length, bytes, size);
    parameters->length += size;
}

static void append_word(struct db_parameters *parameters, int32_t value)
{
    uint32_t word = htobe32((uint32_t)value);
    append(parameters, &word, sizeof(word));
}

static void append_long(struct db_parameters *parameters, int64_t value)
{
    uint64_t word = htobe64((uint64_t)value);
    append(parameters, &word, sizeof(word));
}

/* `offset` counts from the end of the open array's header. */
static void patch_header(struct db_parameters *parameters, ptrdiff_t offset, int32_t value)
{
    uint32_t word = htobe32((uint32_t)value);
    memcpy(parameters->buffer + parameters->array_start + offset, &word, sizeof(word));
}

static void begin_parameter(struct db_parameters *parameters, Oid type)
{
    assert(parameters->count < DB_MAX_PARAMETERS);
    assert(parameters->array_start == ARRAY_IS_CLOSED);
    parameters->offsets[parameters->count] = parameters->length;
    parameters->types[parameters->count] = type;
    parameters->is_null[parameters->count] = false;
}

static void end_parameter(struct db_parameters *parameters)
{
    size_t length = parameters->length - parameters->offsets[parameters->count];
    parameters->lengths[parameters->count] = (int)length;
    parameters->count++;
}

void db_parameters_reset(struct db_parameters *parameters)
{
    parameters->length = 0;
    parameters->count = 0;
    parameters->has_failed = false;
    parameters->array_start = ARRAY_IS_CLOSED;
    parameters->array_length = 0;
}

void db_parameters_cleanup(struct db_parameters *parameters)
{
    free(parameters->buffer);
    *parameters = (struct db_parameters){0};
}

void db_parameters_add_int4(struct db_parameters *parameters, int32_t value)
{
    begin_parameter(parameters, OID_INT4);
    append_word(parameters, value);
    end_parameter(parameters);
}

void db_parameters_add_int8(struct db_parameters *parameters, int64_t value)
{
    begin_parameter(parameters, OID_INT8);
    append_long(parameters, value);
    end_parameter(parameters);
}

void db_parameters_add_bool(struct db_parameters *parameters, bool value)
{
    const char byte = value ? 1 : 0;
    begin_parameter(parameters, OID_BOOL);
    append(parameters, &byte, 1);
    end_parameter(parameters);
}

void db_parameters_add_text(struct db_parameters *parameters, const char *text, size_t length)
{
    begin_parameter(parameters, OID_TEXT);
    if (text)
        append(parameters, text, length);
    else
        parameters->is_null[parameters->count] = true;
    end_parameter(parameters);
}

void db_parameters_array_begin(struct db_parameters *parameters, enum db_element element)
{
    begin_parameter(parameters, element_oids[element].array);
    parameters->array_start = parameters->length + ARRAY_HEADER_BYTES;
    parameters->array_length = 0;
    append_word(parameters, 1); /* dimensions */
    append_word(parameters, 0); /* has a null: patched by the first one */
    append_word(parameters, (int32_t)element_oids[element].element);
    append_word(parameters, 0); /* length: patched at the end */
    append_word(parameters, 1); /* lower bound */
}

void db_parameters_array_int4(struct db_parameters *parameters, int32_t value)
{
    append_word(parameters, (int32_t)sizeof(value));
    append_word(parameters, value);
    parameters->array_length++;
}

void db_parameters_array_int8(struct db_parameters *parameters, int64_t value)
{
    append_word(parameters, (int32_t)sizeof(value));
    append_long(parameters, value);
    parameters->array_length++;
}

void db_parameters_array_bool(struct db_parameters *parameters, bool value)
{
    const char byte = value ? 1 : 0;
    append_word(parameters, 1);
    append(parameters, &byte, 1);
    parameters->array_length++;
}

void db_parameters_array_bytes(struct db_parameters *parameters, const void *bytes, size_t length)
{
    parameters->array_length++;
    if (bytes) {
        append_word(parameters, (int32_t)length);
        append(parameters, bytes, length);
        return;
    }
    append_word(parameters, -1);
    if (!parameters->has_failed)
        patch_header(parameters, ARRAY_HAS_NULL_OFFSET, 1);
}

void db_parameters_array_end(struct db_parameters *parameters)
{
    assert(parameters->array_start != ARRAY_IS_CLOSED);
    if (!parameters->has_failed)
        patch_header(parameters, ARRAY_LENGTH_OFFSET, parameters->array_length);
    parameters->array_start = ARRAY_IS_CLOSED;
    end_parameter(parameters);
}

int32_t db_result_int4(const PGresult *result, int row, int column)
{
    uint32_t word;
    assert(PQgetlength(result, row, column) == sizeof(word));
    memcpy(&word, PQgetvalue(result, row, column), sizeof(word));
    return (int32_t)be32toh(word);
}

int64_t db_result_int8(const PGresult *result, int row, int column)
{
    uint64_t word;
    assert(PQgetlength(result, row, column) == sizeof(word));
    memcpy(&word, PQgetvalue(result, row, column), sizeof(word));
    return (int64_t)be64toh(word);
}

bool db_result_bool(const PGresult *result, int row, int column)
{
    assert(PQgetlength(result, row, column) == 1);
    return PQgetvalue(result, row, column)[0] != 0;
}

const char *db_result_bytes(const PGresult *result, int row, int column, size_t *ret_length)
{
    *ret_length = (size_t)PQgetlength(result, row, column);
    return PQgetvalue(result, row, column);
}

bool db_result_is_null(const PGresult *result, int row, int column)
{
    return PQgetisnull(result, row, column) != 0;
}
