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
#define INVISIBLE      "username must not contain invisible or formatting characters: "
#define CONTROL        "username must not contain control characters: "
#define UNASSIGNED     "username must not contain unassigned or private characters: "

static struct username_forms forms_of(const char *username)
{
    struct username_forms forms = {0};
    char message[USERNAME_MESSAGE_SIZE] = "";
    int error = username_rules_apply(username, strlen(username), &forms, message);
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
    char message[USERNAME_MESSAGE_SIZE] = "";
    cr_assert_eq(username_rules_apply(username, length, &forms, message), -EINVAL,
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
        char message[USERNAME_MESSAGE_SIZE] = "";
        int error = username_rules_apply(once.canonical, once.canonical_length, &twice, message);
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
        char message[USERNAME_MESSAGE_SIZE] = "";
        cr_assert_not_null(folded);
        cr_assert_eq(username_rules_apply((const char *)name, sizeof(name), &forms, message), 0,
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
    expect_refusal("neo\u200dneo", INVISIBLE "U+200D");
    expect_refusal("neo\u200cneo", INVISIBLE "U+200C");
    expect_refusal("neo\u200bneo", INVISIBLE "U+200B");
    expect_refusal("neo\u200fneo", INVISIBLE "U+200F");
    expect_refusal("neo\u202eneo", INVISIBLE "U+202E");
    expect_refusal("neo\u00adneo", INVISIBLE "U+00AD");
    expect_refusal("neoneo\ufe0f", INVISIBLE "U+FE0F");
    expect_refusal("\ufeffneoneo", INVISIBLE "U+FEFF");
    expect_refusal("neo\u3164neo", INVISIBLE "U+3164"); /* Hangul filler */
    /* blanks that have a width */
    expect_refusal("neo\u2800neo", INVISIBLE "U+2800");
    expect_refusal("\u2800\u2800\u2800\u2800", INVISIBLE "U+2800");
    expect_refusal("neo\ufffcneo", INVISIBLE "U+FFFC");
    expect_refusal("neo\U0001d159neo", INVISIBLE "U+1D159");
    expect_refusal("neo\U00016fe4neo", INVISIBLE "U+16FE4");
    expect_refusal("neo\u2063neo", INVISIBLE "U+2063");
    expect_refusal("neo\U000e0067neo", INVISIBLE "U+E0067"); /* a tag */
}

Test(username_rules, refuse_control_and_unassigned_characters)
{
    expect_refusal("neo\nneo", CONTROL "U+000A");
    expect_refusal("neo\tneo", CONTROL "U+0009");
    expect_refusal_of("neo\0neo", 7, CONTROL "U+0000");
    expect_refusal("neo\xc2\x85neo", CONTROL "U+0085");
    expect_refusal("neo\xcd\xb8neo", UNASSIGNED "U+0378");
    expect_refusal("neo\xee\x80\x80neo", UNASSIGNED "U+E000");
    expect_refusal("neo\xef\xbf\xbfneo", UNASSIGNED "U+FFFF");
    expect_refusal("neo\xf4\x8f\xbf\xbdneo", UNASSIGNED "U+10FFFD");
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
#define OTHER_SPACE \
    "username must not contain spaces other than single ones between other characters: "
    expect_refusal("neo\u00a0neo", OTHER_SPACE "U+00A0");
    expect_refusal("neo\u3000neo", OTHER_SPACE "U+3000");
    expect_refusal("neo\u2028neo", OTHER_SPACE "U+2028");
    expect_refusal("neo\u1680neo", OTHER_SPACE "U+1680");
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
    char name[600] = "neos";
    for (size_t length = 4; length < 514; length += 2)
        memcpy(name + length, "\xcc\xa7", 2);
    expect_refusal_of(name, 514, expected);
    static char huge[100000];
    memset(huge, 'a', sizeof(huge));
    expect_refusal_of(huge, sizeof(huge), expected);
}

/* The same text again and again, with a NUL behind. */
static void repeat(char *ret_name, const char *text, size_t times)
{
    size_t length = strlen(text);
    for (size_t i = 0; i < times; i++)
        memcpy(ret_name + i * length, text, length + 1);
}

/* The API Gateway answers 500 to every read of a name that is longer. */
Test(username_rules, bound_the_code_points_of_the_stored_form)
{
    static const char expected[] = "username must have at most 32 code points";
    char name[256];
    repeat(name, "\u0958", 16); /* NFC: two code points each */
    struct username_forms forms = forms_of(name);
    cr_assert_eq(forms.stored_length, 16 * 6);
    username_forms_cleanup(&forms);
    repeat(name, "\u0958", 17);
    expect_refusal(name, expected);
    /* eight families of seven code points each are eight characters */
    repeat(name, "👨\u200d👩\u200d👧\u200d👦", 8);
    expect_refusal(name, expected);
}

Test(username_rules, allow_emoji_that_are_made_of_several_characters)
{
    expect_forms("love\u2764\ufe0f", "love\u2764\ufe0f", "love\u2764");
    expect_forms("1\ufe0f\u20e32\ufe0f\u20e33\ufe0f\u20e34\ufe0f\u20e3",
        "1\ufe0f\u20e32\ufe0f\u20e33\ufe0f\u20e34\ufe0f\u20e3", "1\u20e32\u20e33\u20e34\u20e3");
    expect_forms("neo👨\u200d👩\u200d👧", "neo👨\u200d👩\u200d👧", "neo👨👩👧");
    expect_forms("neo🏳\ufe0f\u200d🌈", "neo🏳\ufe0f\u200d🌈", "neo🏳🌈");
    expect_forms("neo👩🏽\u200d💻", "neo👩🏽\u200d💻", "neo👩🏽💻");
    expect_forms(
        "neo🤷🏽\u200d\u2642\ufe0f", "neo🤷🏽\u200d\u2642\ufe0f", "neo🤷🏽\u2642");
    expect_refusal("👨\u200d👩\u200d👧👍👍", LENGTH_MESSAGE); /* three */
    expect_same("neo🏳\ufe0f\u200d🌈", "NEO🏳🌈", true);
    expect_same("love\u2764\ufe0f", "LOVE\u2764", true);
    /* not where no emoji is */
    expect_refusal("1\ufe0f2345", INVISIBLE "U+FE0F");
    expect_refusal("neo\ufe0f👍", INVISIBLE "U+FE0F");
    expect_refusal("neo👍\ufe0f\ufe0f", INVISIBLE "U+FE0F");
    expect_refusal("neo👍\u200d", INVISIBLE "U+200D");
    expect_refusal("neo👍\u200d\u200d👍", INVISIBLE "U+200D");
    expect_refusal("neo\u200d👍", INVISIBLE "U+200D");
    expect_refusal("neo👍\u200dneo", INVISIBLE "U+200D");
    expect_refusal("neo🇩🇪\u200d🇫🇷", INVISIBLE "U+200D");
    expect_refusal("neo👍\ufe0e", INVISIBLE "U+FE0E");
}

/* RFC 5892, appendix A.1 and A.2. */
Test(username_rules, allow_joiners_where_a_script_needs_them)
{
    expect_forms("می\u200cروم", "می\u200cروم", "میروم"); /* Persian */
    expect_same("می\u200cروم", "میروم", true);
    expect_forms("ශ්\u200dරී ලංකා", "ශ්\u200dරී ලංකා", "ශ්රී ලංකා"); /* Sinhala */
    expect_same("ශ්\u200dරී ලංකා", "ශ්රී ලංකා", true);
    expect_forms("क्\u200cषत्रिय", "क्\u200cषत्रिय", "क्षत्रिय"); /* behind a virama */
    /* a mark that joins through lies between */
    expect_forms("می\u064e\u200cروم", "می\u064e\u200cروم", "می\u064eروم");
    expect_refusal("\u200cمیروم", INVISIBLE "U+200C");
    expect_refusal("میروم\u200c", INVISIBLE "U+200C");
    expect_refusal("میر\u200cوم", INVISIBLE "U+200C"); /* reh joins on one side only */
    expect_refusal("می\u200c\u200cروم", INVISIBLE "U+200C");
    expect_refusal("می\u200dروم", INVISIBLE "U+200D");
    expect_refusal("ශ\u200dරී ලංකා", INVISIBLE "U+200D");
    expect_refusal("tri\u200cnity", INVISIBLE "U+200C");
}

Test(username_rules, know_what_postgresql_can_hold)
{
    cr_assert(username_rules_is_text("neo", 3));
    cr_assert(username_rules_is_text("", 0));
    cr_assert_not(username_rules_is_text("n\0o", 3));
    cr_assert_not(username_rules_is_text("n\xffo", 3));
}
