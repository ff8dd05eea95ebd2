#include "eventd/kafka_queue.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "common/file_descriptor.h"

/* Then the other sources of the loop get their turn. */
#define EVENTS_PER_TURN 1000

struct kafka_queue {
    rd_kafka_queue_t *queue; /* owned */
    int wake_fd;             /* owned */
    sd_event_source *source; /* owned */
    kafka_queue_handler *handler;
    void *userdata;
};

void kafka_queue_wake_by(rd_kafka_queue_t *queue, int fd)
{
    static const uint64_t one = 1;
    rd_kafka_queue_io_event_enable(queue, fd, &one, sizeof(one));
}

void kafka_queue_drain(struct kafka_queue *queue)
{
    for (unsigned int i = 0; i < EVENTS_PER_TURN; i++) {
        rd_kafka_event_t *event = rd_kafka_queue_poll(queue->queue, 0);
        if (event == NULL)
            return;
        queue->handler(event, queue->userdata);
        rd_kafka_event_destroy(event);
    }
    (void)eventfd_write(queue->wake_fd, 1);
}

static int on_wake(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    (void)source;
    (void)events;
    eventfd_t count = 0;
    (void)eventfd_read(fd, &count);
    kafka_queue_drain(userdata);
    return 0;
}

rd_kafka_queue_t *kafka_queue_handle(struct kafka_queue *queue)
{
    return queue->queue;
}

struct kafka_queue *kafka_queue_free(struct kafka_queue *queue)
{
    if (queue == NULL)
        return NULL;
    (void)sd_event_source_disable_unref(queue->source);
    rd_kafka_queue_io_event_enable(queue->queue, -1, NULL, 0);
    rd_kafka_queue_destroy(queue->queue);
    fd_close(&queue->wake_fd);
    free(queue);
    return NULL;
}

int kafka_queue_new(sd_event *event, rd_kafka_queue_t *queue, kafka_queue_handler *handler,
    void *userdata, struct kafka_queue **ret_queue)
{
    struct kafka_queue *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        rd_kafka_queue_destroy(queue);
        return -ENOMEM;
    }
    made->queue = queue;
    made->handler = handler;
    made->userdata = userdata;
    made->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int result = made->wake_fd < 0 ? -errno : 0;
    if (result == 0)
        result = sd_event_add_io(event, &made->source, made->wake_fd, EPOLLIN, on_wake, made);
    if (result < 0) {
        (void)kafka_queue_free(made);
        return result;
    }
    kafka_queue_wake_by(queue, made->wake_fd);
    /* What came before we listened. */
    (void)eventfd_write(made->wake_fd, 1);
    *ret_queue = made;
    return 0;
}
