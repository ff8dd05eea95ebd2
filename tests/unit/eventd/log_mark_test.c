/* eventd/log_mark: what tells a record from another one. eventd/commit_note: whose a commit is. */
#include <criterion/criterion.h>
#include <string.h>

#include "eventd/commit_note.h"
#include "eventd/log_mark.h"

#define DATABASE "3c0f8a52-9d61-4b7e-8f0a-2f6d5f1f2c11"

Test(log_mark, checksum_tells_keys_from_values)
{
    int64_t sum = log_mark_checksum("ab", 2, "cd", 2);
    cr_assert_eq(sum, log_mark_checksum("ab", 2, "cd", 2));
    cr_assert_neq(sum, log_mark_checksum("abc", 3, "d", 1));
    cr_assert_neq(sum, log_mark_checksum("ab", 2, "ce", 2));
    cr_assert_neq(sum, log_mark_checksum("aa", 2, "cd", 2));
}

Test(log_mark, checksum_tells_nothing_from_empty)
{
    cr_assert_neq(log_mark_checksum(NULL, 0, "x", 1), log_mark_checksum("", 0, "x", 1));
    cr_assert_neq(log_mark_checksum("x", 1, NULL, 0), log_mark_checksum("x", 1, "", 0));
    cr_assert_neq(log_mark_checksum(NULL, 0, NULL, 0), 0);
}

Test(log_mark, checksum_is_the_one_that_is_stored_in_databases)
{
    /* Another value than this would make every log look new after an upgrade. */
    cr_assert_eq(log_mark_checksum("17", 2, "{\"id\": 17}", 10), INT64_C(6991685634920585726));
}

Test(commit_note, is_recognised_with_its_database_and_its_offset)
{
    char note[COMMIT_NOTE_SIZE];
    size_t length = commit_note_format(DATABASE, 4711, note);
    cr_assert_eq(length, strlen(note));
    cr_assert_str_eq(note, "userd/1 database=" DATABASE " position=4711");
    cr_assert_eq(commit_note_origin(note, length, 4711, DATABASE), COMMIT_OURS);
    cr_assert_eq(commit_note_origin(note, length, 4711, "another"), COMMIT_OTHER_DATABASE);
    /* Somebody has moved the offset and kept the metadata. */
    cr_assert_eq(commit_note_origin(note, length, 4712, DATABASE), COMMIT_FOREIGN);
}

Test(commit_note, of_others_is_foreign)
{
    static const char *const foreign[] = {"", "userd", "userd/2 database=x position=5",
        "userd/1 database=x", "userd/1 database=x position=", "userd/1 database=x position=5 ",
        "userd/1 database=x position=5x", "consumer-1@host"};
    for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++)
        cr_assert_eq(commit_note_origin(foreign[i], strlen(foreign[i]), 5, "x"), COMMIT_FOREIGN,
            "%s", foreign[i]);
    char large[4096];
    memset(large, 'u', sizeof(large));
    cr_assert_eq(commit_note_origin(large, sizeof(large), 5, "x"), COMMIT_FOREIGN);
    cr_assert_eq(commit_note_origin(NULL, 0, 5, "x"), COMMIT_FOREIGN);
}

Test(commit_note, of_nothing_is_none)
{
    cr_assert_eq(commit_note_origin(NULL, 0, -1, DATABASE), COMMIT_NONE);
}
