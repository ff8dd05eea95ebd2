/* What a username may be, and the form in which two names count as the same. Pure: no state, no
 * input or output.
 *
 * A name is stored in NFC. It has 4 to 32 user-perceived characters (extended grapheme clusters,
 * UAX #29) of at most 32 code points, and holds none of: control characters; unassigned, private
 * use and noncharacter code points; U+FFFD, which stands for a character that was lost; format
 * characters, blanks and anything else that is default-ignorable (direction marks, variation
 * selectors), but for the joiners and the emoji presentation where a script or an emoji needs them
 * (username_context); white space other than U+0020, and of that only single ones between other
 * characters. The canonical form is without those joiners, in NFKC and full case folding without a
 * language, applied until nothing changes: "Straße", "STRASSE" and "ｓｔｒａｓｓｅ" are one name.
 * Unicode is the version that libunistring knows.
 */
#ifndef USERD_WORKER_USER_USERNAME_RULES_H
#define USERD_WORKER_USER_USERNAME_RULES_H

#include <stdbool.h>
#include <stddef.h>

#include "common/attributes.h"

#define USERNAME_MIN_CHARACTERS  4
#define USERNAME_MAX_CHARACTERS  32
#define USERNAME_MAX_CODE_POINTS 32 /* the API Gateway's limit, of names that it shows as well */
#define USERNAME_MAX_BYTES       512
#define USERNAME_MESSAGE_SIZE    128

struct username_forms {
    char *stored; /* NFC; malloc'ed, as the other; not ended by a NUL */
    size_t stored_length;
    char *canonical;
    size_t canonical_length;
};
void username_forms_cleanup(struct username_forms *forms);

/* 0: the caller cleans *ret_forms up. -EINVAL: the name breaks a rule, ret_message says to people
 * which, and names the character. -ENOMEM. */
MUST_CHECK int username_rules_apply(const char *username, size_t length,
    struct username_forms *ret_forms, char ret_message[USERNAME_MESSAGE_SIZE]);

/* Whether PostgreSQL can hold it at all: valid UTF-8 without U+0000. */
bool username_rules_is_text(const char *text, size_t length);

#endif
