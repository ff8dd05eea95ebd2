/* Which names are allowed, and which are the same. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unicase.h>
#include <uninorm.h>

#include "worker/user/username_rules.h"

#define LENGTH_MESSAGE "username must have 4 to 32 characters"

static struct username_forms forms_of(const char *username)
{
    struct username_forms forms = {0};
    const char *message = "";
    int error = username_rules_apply(username, strlen(username), &forms, &message);
    cr_assert_eq(error, 0, "\"%s\" was refused: %s", username, message);
    return forms;
}

static void expect_forms(const char *username, const char *stored, const char *canonical)
{
    struct username_forms forms = forms_of(username);
    cr_assert_eq(forms.stored_length, strlen(stored));
    cr_assert_eq(memcmp(forms.stored, stored, strlen(stored)), 0);
    cr_assert_eq(forms.canonical_length, strlen(canonical), "%.*s", (int)forms.canonical_length,
        forms.canonical);
    cr_assert_eq(memcmp(forms.canonical, canonical, strlen(canonical)), 0, "%.*s",
        (int)forms.canonical_length, forms.canonical);
    username_forms_cleanup(&forms);
}

static void expect_refusal_of(const char *username, size_t length, const char *expected)
{
    struct username_forms forms = {0};
    const char *message = "";
    cr_assert_eq(username_rules_apply(username, length, &forms, &message), -EINVAL,
        "\"%s\" was allowed", username);
    cr_assert_str_eq(message, expected);
    cr_assert_null(forms.stored);
}

static void expect_refusal(const char *username, const char *expected)
{
    expect_refusal_of(username, strlen(username), expected);
}

static void expect_same(const char *left, const char *right, bool is_same)
{
    struct username_forms one = forms_of(left);
    struct username_forms other = forms_of(right);
    bool is_equal = one.canonical_length == other.canonical_length &&
                    memcmp(one.canonical, other.canonical, one.canonical_length) == 0;
    cr_assert_eq(is_equal, is_same, "\"%s\" and \"%s\"", left, right);
    username_forms_cleanup(&one);
    username_forms_cleanup(&other);
}

Test(username_rules, keep_the_name_and_fold_its_canonical_form)
{
    expect_forms("Trinity", "Trinity", "trinity");
    expect_forms("Agent Smith", "Agent Smith", "agent smith");
    expect_forms("Морфеус", "Морфеус", "морфеус");
    expect_forms("日本語話者", "日本語話者", "日本語話者");
}

Test(username_rules, count_characters_as_people_do)
{
    expect_refusal("abc", LENGTH_MESSAGE);
    expect_refusal("", LENGTH_MESSAGE);
    expect_forms("abcd", "abcd", "abcd");
    expect_refusal("e\xcc\x81"
                   "e\xcc\x81"
                   "e\xcc\x81",
        LENGTH_MESSAGE);                                        /* three letters, six code points */
    expect_refusal("👍🏽👍🏽👍🏽", LENGTH_MESSAGE); /* with skin tones: three */
    expect_refusal("🇩🇪🇫🇷🇮🇹", LENGTH_MESSAGE);                   /* three flags */
    expect_forms("👍👍👍👍", "👍👍👍👍", "👍👍👍👍");
    expect_forms("12345678901234567890123456789012", "12345678901234567890123456789012",
        "12345678901234567890123456789012");
    expect_refusal("123456789012345678901234567890123", LENGTH_MESSAGE);
}

Test(username_rules, store_nfc)
{
    expect_forms("e\xcc\x81t\xc3\xa9s", "\xc3\xa9t\xc3\xa9s", "\xc3\xa9t\xc3\xa9s");
    expect_same("e\xcc\x81t\xc3\xa9s", "\xc3\xa9te\xcc\x81s", true);
    /* Hangul: jamo and syllables */
    expect_forms("\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab한한한", "한한한한", "한한한한");
}

Test(username_rules, see_through_compatibility_and_case)
{
    expect_same("Straße", "STRASSE", true);
    expect_same("ｔｒｉｎｉｔｙ", "TRINITY", true);
    expect_same("ﬁre fox", "FIRE FOX", true);
    expect_same("ΟΔΥΣΣΕΥΣ", "οδυσσευς", true);
    expect_same(
        "\xe3\x8e\x92\xe3\x8e\x92\xe3\x8e\x92\xe3\x8e\x92", "mhzmhzmhzmhz", true); /* U+3392 */
    expect_same("trinity", "trinitу", false); /* the last one is Cyrillic: not ours to judge */
    expect_same("resume", "résumé", false);
}

Test(username_rules, fold_without_a_language)
{
    expect_same("ISTANBUL", "istanbul", true);
    expect_same("ıstanbul", "istanbul", false);               /* dotless i stays itself */
    expect_forms("İstanbul", "İstanbul", "i\xcc\x87stanbul"); /* I with a dot: i and the dot */
}

Test(username_rules, make_canonical_forms_that_stay_themselves)
{
    static const char *const names[] = {"Straße", "ﷺﷺﷺﷺ", "\xe3\x8e\x92\xe3\x8e\x92㎒㎒", "ΐΐΐΐ",
        "ǅǅǅǅ", "ŉŉŉŉ", "ẞẞẞẞ", "\xe2\x84\xaa\xe2\x84\xaa\xe2\x84\xaa\xe2\x84\xaa", "①②③④", "ſſſſ"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct username_forms once = forms_of(names[i]);
        struct username_forms twice = {0};
        const char *message = "";
        int error = username_rules_apply(once.canonical, once.canonical_length, &twice, &message);
        if (error == 0) { /* it may have become too long, or hold a space at its end */
            cr_assert_eq(once.canonical_length, twice.canonical_length, "%s", names[i]);
            cr_assert_eq(memcmp(once.canonical, twice.canonical, once.canonical_length), 0);
        }
        username_forms_cleanup(&once);
        username_forms_cleanup(&twice);
    }
}

Test(username_rules, know_of_ascii_what_the_tables_say)
{
    for (int byte = ' '; byte <= '~'; byte++) {
        const uint8_t name[] = {'n', 'A', (uint8_t)byte, 'm', 'e'};
        size_t length = 0;
        uint8_t *folded = u8_casefold(name, sizeof(name), NULL, UNINORM_NFKC, NULL, &length);
        struct username_forms forms = {0};
        const char *message = NULL;
        cr_assert_not_null(folded);
        cr_assert_eq(username_rules_apply((const char *)name, sizeof(name), &forms, &message), 0,
            "%c: %s", byte, message);
        cr_assert_eq(forms.stored_length, sizeof(name));
        cr_assert_eq(memcmp(forms.stored, name, sizeof(name)), 0);
        cr_assert_eq(forms.canonical_length, length);
        cr_assert_eq(memcmp(forms.canonical, folded, length), 0, "%c", byte);
        username_forms_cleanup(&forms);
        free(folded);
    }
}

Test(username_rules, refuse_what_cannot_be_seen)
{
    static const char expected[] = "username must not contain invisible or formatting characters";
    expect_refusal("neo\xe2\x80\x8dneo", expected); /* zero width joiner */
    expect_refusal("neo\xe2\x80\x8bneo", expected); /* zero width space */
    expect_refusal("neo\xe2\x80\x8fneo", expected); /* right-to-left mark */
    expect_refusal("neo\xe2\x80\xaeneo", expected); /* right-to-left override */
    expect_refusal("neo\xc2\xadneo", expected);     /* soft hyphen */
    expect_refusal("neoneo\xef\xb8\x8f", expected); /* variation selector 16 */
    expect_refusal("\xef\xbb\xbfneoneo", expected); /* byte order mark */
    expect_refusal("neo\xe3\x85\xa4neo", expected); /* Hangul filler */
    expect_refusal("👨\xe2\x80\x8d👩\xe2\x80\x8d👧👍👍👍", expected);
}

Test(username_rules, refuse_control_and_unassigned_characters)
{
    expect_refusal("neo\nneo", "username must not contain control characters");
    expect_refusal("neo\tneo", "username must not contain control characters");
    expect_refusal_of("neo\0neo", 7, "username must not contain control characters");
    expect_refusal("neo\xc2\x85neo", "username must not contain control characters");
    static const char expected[] = "username must not contain unassigned or private characters";
    expect_refusal("neo\xcd\xb8neo", expected);         /* U+0378 */
    expect_refusal("neo\xee\x80\x80neo", expected);     /* U+E000 */
    expect_refusal("neo\xef\xbf\xbfneo", expected);     /* U+FFFF */
    expect_refusal("neo\xf4\x8f\xbf\xbdneo", expected); /* U+10FFFD */
    expect_refusal("neo\xef\xbf\xbdneo",
        "username must not contain U+FFFD, which stands for a character that was lost");
}

Test(username_rules, allow_single_spaces_inside)
{
    static const char edge[] = "username must not begin or end with a space";
    static const char other[] =
        "username must not contain spaces other than single ones between other characters";
    expect_forms("a b c d", "a b c d", "a b c d");
    expect_refusal(" neo", edge);
    expect_refusal("neo ", edge);
    expect_refusal("neo  neo", other);
    expect_refusal("neo\xc2\xa0neo", other);     /* no-break space */
    expect_refusal("neo\xe3\x80\x80neo", other); /* ideographic space */
    expect_refusal("neo\xe2\x80\xa8neo", other); /* line separator */
}

Test(username_rules, refuse_bytes_that_are_no_utf8)
{
    static const char expected[] = "username must be valid UTF-8";
    expect_refusal("neo\xffneo", expected);
    expect_refusal("neo\xc0\x80neo", expected);     /* overlong */
    expect_refusal("neo\xed\xa0\x80neo", expected); /* a surrogate */
    expect_refusal("neoneo\xc3", expected);         /* cut off */
}

Test(username_rules, bound_the_bytes)
{
    static const char expected[] = "username must have at most 512 bytes";
    char name[600];
    size_t length = 0;
    /* four letters, the last with so many marks that 512 bytes are full or one mark over */
    length = (size_t)snprintf(name, sizeof(name), "neos");
    while (length + 2 <= 512) {
        memcpy(name + length, "\xcc\xa7", 2);
        length += 2;
    }
    struct username_forms forms = {0};
    const char *message = "";
    cr_assert_eq(username_rules_apply(name, length, &forms, &message), 0, "%s", message);
    username_forms_cleanup(&forms);
    memcpy(name + length, "\xcc\xa7\xcc\xa7", 4);
    expect_refusal_of(name, length + 4, expected);
    static char huge[100000];
    memset(huge, 'a', sizeof(huge));
    expect_refusal_of(huge, sizeof(huge), expected);
}

Test(username_rules, know_what_postgresql_can_hold)
{
    cr_assert(username_rules_is_text("neo", 3));
    cr_assert(username_rules_is_text("", 0));
    cr_assert_not(username_rules_is_text("n\0o", 3));
    cr_assert_not(username_rules_is_text("n\xffo", 3));
}
