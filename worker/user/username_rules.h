/* What a username may be, and the form in which two names count as the same. Pure: no state, no
 * input or output.
 *
 * A name is stored in NFC. It has 4 to 32 user-perceived characters (extended grapheme clusters,
 * UAX #29) in at most 512 bytes, and holds none of: control characters; unassigned, private use and
 * noncharacter code points; U+FFFD, which stands for a character that was lost; format characters
 * and anything else that is default-ignorable (zero width joiners, direction marks, variation
 * selectors: names that look alike must be alike); white space other than U+0020, and of that only
 * single ones between other characters. The canonical form is NFKC and full case folding without a
 * language, applied until nothing changes: "Straße", "STRASSE" and "ｓｔｒａｓｓｅ" are one name.
 * Unicode is the version that libunistring knows.
 */
#ifndef USERD_WORKER_USER_USERNAME_RULES_H
#define USERD_WORKER_USER_USERNAME_RULES_H

#include <stdbool.h>
#include <stddef.h>

#include "common/attributes.h"

#define USERNAME_MIN_CHARACTERS 4
#define USERNAME_MAX_CHARACTERS 32
#define USERNAME_MAX_BYTES      512

struct username_forms {
    char *stored; /* NFC; malloc'ed, as the other; not ended by a NUL */
    size_t stored_length;
    char *canonical;
    size_t canonical_length;
};
void username_forms_cleanup(struct username_forms *forms);

/* 0: the caller cleans *ret_forms up. -EINVAL: the name breaks a rule, *ret_message (static text,
 * for people) says which. -ENOMEM. */
MUST_CHECK int username_rules_apply(const char *username, size_t length,
    struct username_forms *ret_forms, const char **ret_message);

/* Whether PostgreSQL can hold it at all: valid UTF-8 without U+0000. */
bool username_rules_is_text(const char *text, size_t length);

#endif
