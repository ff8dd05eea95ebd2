#include "worker/user/username_rules.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unicase.h>
#include <unictype.h>
#include <unigbrk.h>
#include <uninorm.h>
#include <unistr.h>

#include "worker/user/username_context.h"

/* NFC may shorten a name (to a third at most: U+0390 is three code points decomposed); more is not
 * even looked at. */
#define INPUT_MAX_BYTES ((size_t)USERNAME_MAX_BYTES * 4)
/* An index entry of PostgreSQL ends at 2704 bytes. 32 characters do not come near it. */
#define CANONICAL_MAX_BYTES 2048
#define REPLACEMENT         0xfffd
/* The second round changes nothing in any name known; a bound all the same. */
#define FOLD_ROUNDS 8

static const char message_utf8[] = "username must be valid UTF-8";
static const char message_length[] = "username must have 4 to 32 characters";
static const char message_code_points[] = "username must have at most 32 code points";
static const char message_bytes[] = "username must have at most 512 bytes";
static const char message_control[] = "username must not contain control characters";
static const char message_unassigned[] =
    "username must not contain unassigned or private characters";
static const char message_invisible[] =
    "username must not contain invisible or formatting characters";
static const char message_replacement[] =
    "username must not contain U+FFFD, which stands for a character that was lost";
static const char message_edge[] = "username must not begin or end with a space";
static const char message_space[] =
    "username must not contain spaces other than single ones between other characters";

/* What stands in a name, decoded. */
struct code_points {
    size_t count;
    uint32_t at[USERNAME_MAX_BYTES];
};

void username_forms_cleanup(struct username_forms *forms)
{
    free(forms->stored);
    free(forms->canonical);
    *forms = (struct username_forms){0};
}

static const uint8_t *as_bytes(const char *text)
{
    return (const uint8_t *)text;
}

bool username_rules_is_text(const char *text, size_t length)
{
    if (length == 0)
        return true;
    return u8_check(as_bytes(text), length) == NULL && memchr(text, '\0', length) == NULL;
}

/* Most names are; what Unicode's tables would say of them is known, and to ask costs as much as
 * half of a call. */
static bool is_ascii(const uint8_t *name, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (name[i] > 0x7f)
            return false;
    return true;
}

/* malloc'ed. */
static uint8_t *copy_ascii(const uint8_t *name, size_t length, size_t *ret_length)
{
    uint8_t *copy = malloc(length);
    if (!copy)
        return NULL;
    *ret_length = length;
    return memcpy(copy, name, length);
}

/* They have a width and nothing in it: BRAILLE PATTERN BLANK, OBJECT REPLACEMENT CHARACTER, MUSICAL
 * SYMBOL NULL NOTEHEAD, KHITAN SMALL SCRIPT FILLER, EGYPTIAN HIEROGLYPH FULL BLANK and HALF BLANK.
 * Other blanks are white space or default-ignorable. */
static bool is_blank(uint32_t code_point)
{
    static const uint32_t blanks[] = {0x2800, 0xfffc, 0x1d159, 0x16fe4, 0x13441, 0x13442};
    for (size_t i = 0; i < ARRAY_LENGTH(blanks); i++)
        if (code_point == blanks[i])
            return true;
    return false;
}

/* NULL, or the rule that one code point breaks on its own. */
static const char *check_code_point(uint32_t code_point)
{
    if (code_point >= ' ' && code_point <= '~')
        return NULL;
    if (uc_is_general_category(code_point, UC_CONTROL))
        return message_control;
    if (uc_is_general_category(code_point, UC_UNASSIGNED) ||
        uc_is_general_category(code_point, UC_PRIVATE_USE) ||
        uc_is_property_not_a_character(code_point))
        return message_unassigned;
    if (uc_is_general_category(code_point, UC_FORMAT) ||
        uc_is_property_default_ignorable_code_point(code_point) || is_blank(code_point))
        return message_invisible;
    if (code_point == REPLACEMENT)
        return message_replacement;
    if (uc_is_property_white_space(code_point))
        return message_space;
    return NULL;
}

/* One rule names its character by itself, and a space is known. */
static int refuse_character(
    const char *message, uint32_t code_point, char ret_message[USERNAME_MESSAGE_SIZE])
{
    if (message == message_replacement || code_point == ' ')
        (void)snprintf(ret_message, USERNAME_MESSAGE_SIZE, "%s", message);
    else
        (void)snprintf(ret_message, USERNAME_MESSAGE_SIZE, "%s: U+%04X", message, code_point);
    return -EINVAL;
}

static int refuse(const char *message, char ret_message[USERNAME_MESSAGE_SIZE])
{
    (void)snprintf(ret_message, USERNAME_MESSAGE_SIZE, "%s", message);
    return -EINVAL;
}

static int check_code_points(
    const struct code_points *name, char ret_message[USERNAME_MESSAGE_SIZE])
{
    for (size_t i = 0; i < name->count; i++) {
        uint32_t code_point = name->at[i];
        if (username_context_is_needed(code_point) &&
            username_context_allows(name->at, name->count, i))
            continue;
        const char *message = check_code_point(code_point);
        if (code_point == ' ' && i > 0 && name->at[i - 1] == ' ')
            message = message_space;
        if (message != NULL)
            return refuse_character(message, code_point, ret_message);
    }
    return 0;
}

/* At most USERNAME_MAX_BYTES. */
static void decode(const uint8_t *name, size_t length, struct code_points *ret_code_points)
{
    ret_code_points->count = 0;
    for (size_t i = 0; i < length;) {
        ucs4_t code_point = 0;
        i += (size_t)u8_mbtouc(&code_point, name + i, length - i);
        ret_code_points->at[ret_code_points->count++] = code_point;
    }
}

/* At most USERNAME_MAX_BYTES, without control characters. u8_grapheme_next() looks at two code
 * points only, and takes a row of flags apart. */
static size_t count_characters(const uint8_t *name, size_t length)
{
    if (is_ascii(name, length))
        return length;
    char is_start[USERNAME_MAX_BYTES];
    size_t count = 0;
    u8_grapheme_breaks(name, length, is_start);
    for (size_t i = 0; i < length; i++)
        count += is_start[i] ? 1 : 0;
    return count;
}

static int check_name(const uint8_t *name, size_t length, char ret_message[USERNAME_MESSAGE_SIZE])
{
    if (length == 0)
        return refuse(message_length, ret_message);
    if (length > USERNAME_MAX_BYTES)
        return refuse(message_bytes, ret_message);
    struct code_points code_points;
    decode(name, length, &code_points);
    int error = check_code_points(&code_points, ret_message);
    if (error < 0)
        return error;
    if (name[0] == ' ' || name[length - 1] == ' ')
        return refuse(message_edge, ret_message);
    size_t characters = count_characters(name, length);
    if (characters < USERNAME_MIN_CHARACTERS || characters > USERNAME_MAX_CHARACTERS)
        return refuse(message_length, ret_message);
    if (code_points.count > USERNAME_MAX_CODE_POINTS)
        return refuse(message_code_points, ret_message);
    return 0;
}

static uint8_t *make_stored(const uint8_t *name, size_t length, size_t *ret_length)
{
    return is_ascii(name, length) ? copy_ascii(name, length, ret_length)
                                  : u8_normalize(UNINORM_NFC, name, length, NULL, ret_length);
}

static uint8_t *fold_ascii(const uint8_t *name, size_t length, size_t *ret_length)
{
    uint8_t *folded = copy_ascii(name, length, ret_length);
    for (size_t i = 0; folded && i < length; i++)
        if (folded[i] >= 'A' && folded[i] <= 'Z')
            folded[i] += 'a' - 'A';
    return folded;
}

/* Without what cannot be seen: names that look alike are alike. malloc'ed. */
static uint8_t *strip(const uint8_t *name, size_t length, size_t *ret_length)
{
    uint8_t *stripped = malloc(length);
    size_t kept = 0;
    for (size_t i = 0; stripped != NULL && i < length;) {
        ucs4_t code_point = 0;
        size_t size = (size_t)u8_mbtouc(&code_point, name + i, length - i);
        if (!username_context_is_needed(code_point)) {
            memcpy(stripped + kept, name + i, size);
            kept += size;
        }
        i += size;
    }
    *ret_length = kept;
    return stripped;
}

/* Repeated until nothing changes, so that the canonical form of a canonical form is itself whatever
 * the Unicode tables hold. malloc'ed. */
static uint8_t *make_canonical(const uint8_t *name, size_t length, size_t *ret_length)
{
    if (is_ascii(name, length))
        return fold_ascii(name, length, ret_length);
    size_t stripped_length = 0;
    uint8_t *stripped = strip(name, length, &stripped_length);
    if (stripped == NULL)
        return NULL;
    size_t folded_length = 0;
    uint8_t *folded = u8_normalize(UNINORM_NFKC, stripped, stripped_length, NULL, &folded_length);
    free(stripped);
    for (int round = 0; folded && round < FOLD_ROUNDS; round++) {
        size_t next_length = 0;
        uint8_t *next = u8_casefold(folded, folded_length, NULL, UNINORM_NFKC, NULL, &next_length);
        bool is_settled =
            next && next_length == folded_length && memcmp(next, folded, folded_length) == 0;
        free(folded);
        folded = next;
        folded_length = next_length;
        if (is_settled)
            break;
    }
    *ret_length = folded_length;
    return folded;
}

int username_rules_apply(const char *username, size_t length, struct username_forms *ret_forms,
    char ret_message[USERNAME_MESSAGE_SIZE])
{
    struct username_forms forms CLEANUP(username_forms_cleanup) = {0};
    if (length == 0)
        return refuse(message_length, ret_message);
    if (length > INPUT_MAX_BYTES)
        return refuse(message_bytes, ret_message);
    if (u8_check(as_bytes(username), length))
        return refuse(message_utf8, ret_message);

    uint8_t *stored = make_stored(as_bytes(username), length, &forms.stored_length);
    forms.stored = (char *)stored;
    if (!stored)
        return -ENOMEM;
    int error = check_name(stored, forms.stored_length, ret_message);
    if (error < 0)
        return error;

    forms.canonical = (char *)make_canonical(stored, forms.stored_length, &forms.canonical_length);
    if (!forms.canonical)
        return -ENOMEM;
    if (forms.canonical_length > CANONICAL_MAX_BYTES)
        return refuse(message_bytes, ret_message);
    *ret_forms = (struct username_forms){
        .stored_length = forms.stored_length,
        .stored = TAKE_PTR(forms.stored),
        .canonical_length = forms.canonical_length,
        .canonical = TAKE_PTR(forms.canonical),
    };
    return 0;
}
