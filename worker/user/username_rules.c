#include "worker/user/username_rules.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unicase.h>
#include <unictype.h>
#include <unigbrk.h>
#include <uninorm.h>
#include <unistr.h>

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

/* NULL, or the rule that one code point breaks on its own. */
static const char *check_code_point(ucs4_t code_point)
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
        uc_is_property_default_ignorable_code_point(code_point))
        return message_invisible;
    if (code_point == REPLACEMENT)
        return message_replacement;
    if (code_point != ' ' && uc_is_property_white_space(code_point))
        return message_space;
    return NULL;
}

static const char *check_code_points(const uint8_t *name, size_t length)
{
    bool is_after_space = false;
    for (size_t i = 0; i < length;) {
        ucs4_t code_point = 0;
        int size = u8_mbtouc(&code_point, name + i, length - i);
        const char *message = check_code_point(code_point);
        if (message)
            return message;
        if (code_point == ' ' && is_after_space)
            return message_space;
        is_after_space = code_point == ' ';
        i += (size_t)size;
    }
    return NULL;
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

static const char *check_name(const uint8_t *name, size_t length)
{
    if (length == 0)
        return message_length;
    const char *message = check_code_points(name, length);
    if (message)
        return message;
    if (name[0] == ' ' || name[length - 1] == ' ')
        return message_edge;
    if (length > USERNAME_MAX_BYTES)
        return message_bytes;
    size_t characters = count_characters(name, length);
    if (characters < USERNAME_MIN_CHARACTERS || characters > USERNAME_MAX_CHARACTERS)
        return message_length;
    return NULL;
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

/* Repeated until nothing changes, so that the canonical form of a canonical form is itself whatever
 * the Unicode tables hold. malloc'ed. */
static uint8_t *make_canonical(const uint8_t *name, size_t length, size_t *ret_length)
{
    if (is_ascii(name, length))
        return fold_ascii(name, length, ret_length);
    size_t folded_length = 0;
    uint8_t *folded = u8_normalize(UNINORM_NFKC, name, length, NULL, &folded_length);
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

static int refuse(const char *message, const char **ret_message)
{
    *ret_message = message;
    return -EINVAL;
}

int username_rules_apply(
    const char *username, size_t length, struct username_forms *ret_forms, const char **ret_message)
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
    const char *message = check_name(stored, forms.stored_length);
    if (message)
        return refuse(message, ret_message);

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
