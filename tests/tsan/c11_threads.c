/* librdkafka starts its threads by thrd_create(), which the ThreadSanitizer runtime of gcc 12 does
 * not intercept: such a thread has no state of the runtime's and crashes in the first function that
 * is intercepted. These definitions stand before the C library's, in the build for ThreadSanitizer
 * alone, and go through pthread_create() and pthread_join(), which are. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <threads.h>

struct start {
    thrd_start_t function;
    void *argument;
};

static void *run_start(void *start_pointer)
{
    struct start start = *(struct start *)start_pointer;
    free(start_pointer);
    return (void *)(intptr_t)start.function(start.argument);
}

int thrd_create(thrd_t *ret_thread, thrd_start_t function, void *argument)
{
    struct start *start = malloc(sizeof(*start));
    if (start == NULL)
        return thrd_nomem;
    *start = (struct start){.function = function, .argument = argument};
    if (pthread_create(ret_thread, NULL, run_start, start) == 0)
        return thrd_success;
    free(start);
    return thrd_error;
}

int thrd_join(thrd_t thread, int *ret_value)
{
    void *value = NULL;
    if (pthread_join(thread, &value) != 0)
        return thrd_error;
    if (ret_value != NULL)
        *ret_value = (int)(intptr_t)value;
    return thrd_success;
}

int thrd_detach(thrd_t thread)
{
    return pthread_detach(thread) == 0 ? thrd_success : thrd_error;
}
