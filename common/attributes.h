/* Compiler attributes and the few macros that make ownership visible in declarations. */
#ifndef USERD_COMMON_ATTRIBUTES_H
#define USERD_COMMON_ATTRIBUTES_H

#include <stddef.h>

#define MUST_CHECK               __attribute__((warn_unused_result))
#define CLEANUP(function)        __attribute__((cleanup(function)))
#define PRINTF_LIKE(text, first) __attribute__((format(printf, text, first)))
#define ARRAY_LENGTH(array)      (sizeof(array) / sizeof((array)[0]))
#define CACHE_LINE_SIZE          64

/* Moves a pointer out of a variable, so that the variable's CLEANUP finds nothing: return
 * TAKE_PTR(x). */
#define TAKE_PTR(pointer)                      \
    __extension__({                            \
        __auto_type taken_pointer = (pointer); \
        (pointer) = NULL;                      \
        taken_pointer;                         \
    })

/* The object that `pointer` is the member `member` of. */
#define CONTAINER_OF(pointer, type, member) \
    ((type *)(void *)((char *)(void *)(pointer)-offsetof(type, member)))

/* For interfaces that only read what they take, and say so in words but not in const: protobuf-c's
 * members, librdkafka's keys and values. */
static inline void *borrow_const(const void *pointer)
{
    union {
        const void *read_only;
        void *plain;
    } alias = {.read_only = pointer};
    return alias.plain;
}

#endif
