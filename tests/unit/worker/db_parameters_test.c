/* The binary layout of parameters, byte for byte as PostgreSQL's recv functions read it. */
#include <criterion/criterion.h>
#include <string.h>

#include "worker/db/db_parameters.h"

static void expect_bytes(
    const struct db_parameters *parameters, int number, const char *bytes, size_t length)
{
    cr_assert_lt(number, parameters->count);
    cr_assert_eq(parameters->lengths[number], (int)length);
    cr_assert_eq(memcmp(parameters->buffer + parameters->offsets[number], bytes, length), 0);
}

Test(db_parameters, are_big_endian)
{
    struct db_parameters parameters = {0};
    db_parameters_add_int4(&parameters, -2);
    db_parameters_add_int8(&parameters, INT64_C(0x0102030405060708));
    db_parameters_add_bool(&parameters, true);
    db_parameters_add_text(&parameters, "neo", 3);
    expect_bytes(&parameters, 0, "\xff\xff\xff\xfe", 4);
    expect_bytes(&parameters, 1, "\x01\x02\x03\x04\x05\x06\x07\x08", 8);
    expect_bytes(&parameters, 2, "\x01", 1);
    expect_bytes(&parameters, 3, "neo", 3);
    cr_assert_eq(parameters.types[0], 23);
    cr_assert_eq(parameters.types[1], 20);
    cr_assert_eq(parameters.types[2], 16);
    cr_assert_eq(parameters.types[3], 25);
    db_parameters_cleanup(&parameters);
}

Test(db_parameters, lay_an_array_out_with_header_and_lengths)
{
    struct db_parameters parameters = {0};
    db_parameters_array_begin(&parameters, DB_ELEMENT_INT4);
    db_parameters_array_int4(&parameters, 7);
    db_parameters_array_int4(&parameters, 8);
    db_parameters_array_end(&parameters);
    static const char expected[] = "\0\0\0\1\0\0\0\0\0\0\0\x17\0\0\0\2\0\0\0\1"
                                   "\0\0\0\4\0\0\0\7\0\0\0\4\0\0\0\x08";
    expect_bytes(&parameters, 0, expected, sizeof(expected) - 1);
    cr_assert_eq(parameters.types[0], 1007);
    db_parameters_cleanup(&parameters);
}

Test(db_parameters, flag_an_array_that_holds_a_null)
{
    struct db_parameters parameters = {0};
    db_parameters_add_int4(&parameters, 1); /* the array does not begin where the buffer does */
    db_parameters_array_begin(&parameters, DB_ELEMENT_BYTEA);
    db_parameters_array_bytes(&parameters, "a\0b", 3);
    db_parameters_array_bytes(&parameters, NULL, 0);
    db_parameters_array_bytes(&parameters, "", 0);
    db_parameters_array_end(&parameters);
    static const char expected[] = "\0\0\0\1\0\0\0\1\0\0\0\x11\0\0\0\3\0\0\0\1"
                                   "\0\0\0\3a\0b\xff\xff\xff\xff\0\0\0\0";
    expect_bytes(&parameters, 1, expected, sizeof(expected) - 1);
    db_parameters_cleanup(&parameters);
}

Test(db_parameters, allow_an_empty_array)
{
    struct db_parameters parameters = {0};
    db_parameters_array_begin(&parameters, DB_ELEMENT_TEXT);
    db_parameters_array_end(&parameters);
    static const char expected[] = "\0\0\0\1\0\0\0\0\0\0\0\x19\0\0\0\0\0\0\0\1";
    expect_bytes(&parameters, 0, expected, sizeof(expected) - 1);
    db_parameters_cleanup(&parameters);
}

Test(db_parameters, tell_a_null_from_an_empty_text)
{
    struct db_parameters parameters = {0};
    db_parameters_add_text(&parameters, NULL, 0);
    db_parameters_add_text(&parameters, "", 0);
    cr_assert(parameters.is_null[0]);
    cr_assert_not(parameters.is_null[1]);
    cr_assert_eq(parameters.lengths[1], 0);
    db_parameters_cleanup(&parameters);
}

Test(db_parameters, can_be_used_again_after_a_reset)
{
    struct db_parameters parameters = {0};
    db_parameters_add_text(&parameters, NULL, 0);
    db_parameters_array_begin(&parameters, DB_ELEMENT_INT8);
    for (int i = 0; i < 100000; i++)
        db_parameters_array_int8(&parameters, i);
    db_parameters_array_end(&parameters);
    cr_assert_eq(parameters.lengths[1], 20 + 100000 * 12);
    db_parameters_reset(&parameters);
    db_parameters_add_int4(&parameters, 5);
    cr_assert_eq(parameters.count, 1);
    cr_assert_not(parameters.is_null[0]);
    expect_bytes(&parameters, 0, "\0\0\0\5", 4);
    db_parameters_cleanup(&parameters);
}

Test(db_parameters, refuse_more_than_a_message_can_hold)
{
    struct db_parameters parameters = {0};
    static const char byte = 'x';
    db_parameters_array_begin(&parameters, DB_ELEMENT_TEXT);
    db_parameters_array_bytes(&parameters, &byte, (size_t)1 << 31);
    db_parameters_array_end(&parameters);
    cr_assert(parameters.has_failed);
    db_parameters_reset(&parameters);
    cr_assert_not(parameters.has_failed);
    db_parameters_cleanup(&parameters);
}
