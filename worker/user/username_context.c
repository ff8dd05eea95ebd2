#include "worker/user/username_context.h"

#include <unictype.h>

#define COMBINING_KEYCAP 0x20e3
#define LAST_ASCII       0x7f

bool username_context_is_needed(uint32_t code_point)
{
    return code_point == USERNAME_ZERO_WIDTH_NON_JOINER ||
           code_point == USERNAME_ZERO_WIDTH_JOINER || code_point == USERNAME_EMOJI_PRESENTATION;
}

static bool is_keycap_base(uint32_t code_point)
{
    return (code_point >= '0' && code_point <= '9') || code_point == '#' || code_point == '*';
}

/* ---- joiners between letters: RFC 5892, appendix A ---- */

static bool is_behind_virama(const uint32_t *code_points, size_t index)
{
    return index > 0 && uc_combining_class(code_points[index - 1]) == UC_CCC_VR;
}

/* (Joining_Type:{L,D})(Joining_Type:T)* before. */
static bool joins_on_from_before(const uint32_t *code_points, size_t index)
{
    while (index > 0) {
        int type = uc_joining_type(code_points[--index]);
        if (type != UC_JOINING_TYPE_T)
            return type == UC_JOINING_TYPE_L || type == UC_JOINING_TYPE_D;
    }
    return false;
}

/* (Joining_Type:T)*(Joining_Type:{R,D}) behind. */
static bool joins_on_behind(const uint32_t *code_points, size_t count, size_t index)
{
    while (++index < count) {
        int type = uc_joining_type(code_points[index]);
        if (type != UC_JOINING_TYPE_T)
            return type == UC_JOINING_TYPE_R || type == UC_JOINING_TYPE_D;
    }
    return false;
}

/* ---- emoji: UTS #51 ---- */

static bool allows_presentation(const uint32_t *code_points, size_t count, size_t index)
{
    if (index == 0)
        return false;
    uint32_t before = code_points[index - 1];
    if (is_keycap_base(before))
        return index + 1 < count && code_points[index + 1] == COMBINING_KEYCAP;
    return before > LAST_ASCII && uc_is_property_emoji(before) &&
           !uc_is_property_emoji_modifier(before);
}

/* A pictograph, then at most a modifier or the emoji presentation, stands before. */
static bool is_behind_pictograph(const uint32_t *code_points, size_t index)
{
    if (index > 0 && (code_points[index - 1] == USERNAME_EMOJI_PRESENTATION ||
                         uc_is_property_emoji_modifier(code_points[index - 1])))
        index--;
    return index > 0 && uc_is_property_extended_pictographic(code_points[index - 1]);
}

static bool joins_pictographs(const uint32_t *code_points, size_t count, size_t index)
{
    return is_behind_pictograph(code_points, index) && index + 1 < count &&
           uc_is_property_extended_pictographic(code_points[index + 1]);
}

bool username_context_allows(const uint32_t *code_points, size_t count, size_t index)
{
    switch (code_points[index]) {
    case USERNAME_EMOJI_PRESENTATION:
        return allows_presentation(code_points, count, index);
    case USERNAME_ZERO_WIDTH_JOINER:
        return is_behind_virama(code_points, index) || joins_pictographs(code_points, count, index);
    case USERNAME_ZERO_WIDTH_NON_JOINER:
        return is_behind_virama(code_points, index) ||
               (joins_on_from_before(code_points, index) &&
                   joins_on_behind(code_points, count, index));
    default:
        return false;
    }
}
