/* Characters that cannot be seen and that some names need all the same, by what stands around them:
 * U+200C (zero width non-joiner), U+200D (zero width joiner), U+FE0F (emoji presentation). Pure.
 *
 * The joiners stand where RFC 5892, appendix A.1 and A.2, lets them: behind a virama (Sinhala,
 * Malayalam and others), and the non-joiner between letters that would join (Persian). In emoji
 * they stand where UTS #51 has them: U+FE0F behind an emoji character (ED-9a) or in a keycap
 * (ED-14c), U+200D between two pictographs (ED-16). The properties are libunistring's, which the
 * worker has in memory anyway; whether a sequence is one that fonts have a picture for is not
 * asked: names that differ by these characters alone count as the same.
 */
#ifndef USERD_WORKER_USER_USERNAME_CONTEXT_H
#define USERD_WORKER_USER_USERNAME_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define USERNAME_ZERO_WIDTH_NON_JOINER 0x200c
#define USERNAME_ZERO_WIDTH_JOINER     0x200d
#define USERNAME_EMOJI_PRESENTATION    0xfe0f

/* Whether the code point is one of the three. */
bool username_context_is_needed(uint32_t code_point);
/* Whether one of the three may stand at `index` of these code points. */
bool username_context_allows(const uint32_t *code_points, size_t count, size_t index);

#endif
