#include "eventd/kafka_asker.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "common/file_descriptor.h"

#define METADATA_TIMEOUT_MS  3000
#define CLUSTER_TIMEOUT_MS   1000
#define COMMITTED_TIMEOUT_MS 5000
#define WATERMARK_TIMEOUT_MS 5000

struct question_list {
    struct kafka_question *first;
    struct kafka_question **last_next;
};

struct kafka_asker {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t has_question;
    struct question_list asked;    /* under mutex */
    struct question_list answered; /* under mutex */
    int wake_fd;                   /* owned */
    sd_event_source *source;       /* owned */
};

static void list_init(struct question_list *list)
{
    list->first = NULL;
    list->last_next = &list->first;
}

static void list_append(struct question_list *list, struct kafka_question *question)
{
    question->next = NULL;
    *list->last_next = question;
    list->last_next = &question->next;
}

static struct kafka_question *list_take(struct question_list *list)
{
    struct kafka_question *question = list->first;
    if (question == NULL)
        return NULL;
    list->first = question->next;
    if (list->first == NULL)
        list->last_next = &list->first;
    return question;
}

/* All topics: naming one could make it. */
static void ask_cluster(struct kafka_question *question)
{
    question->error =
        rd_kafka_metadata(question->client, 1, NULL, &question->ret_metadata, METADATA_TIMEOUT_MS);
    if (question->error != RD_KAFKA_RESP_ERR_NO_ERROR)
        return;
    question->ret_cluster = rd_kafka_clusterid(question->client, CLUSTER_TIMEOUT_MS);
    if (question->ret_cluster == NULL)
        question->error = RD_KAFKA_RESP_ERR__TIMED_OUT;
}

static rd_kafka_resp_err_t ask_watermarks(
    struct kafka_question *question, const rd_kafka_topic_partition_t *partition, int index)
{
    struct kafka_partition_offsets *offsets = &question->ret_offsets[index];
    offsets->committed = partition->offset < 0 ? -1 : partition->offset;
    return rd_kafka_query_watermark_offsets(question->client, partition->topic,
        partition->partition, &offsets->low, &offsets->high, WATERMARK_TIMEOUT_MS);
}

static void ask_offsets(struct kafka_question *question)
{
    int count = question->partitions->cnt;
    question->ret_offsets = calloc((size_t)count + 1, sizeof(*question->ret_offsets));
    if (question->ret_offsets == NULL) {
        question->error = RD_KAFKA_RESP_ERR__FAIL;
        return;
    }
    question->error =
        rd_kafka_committed(question->client, question->partitions, COMMITTED_TIMEOUT_MS);
    for (int i = 0; i < count && question->error == RD_KAFKA_RESP_ERR_NO_ERROR; i++) {
        question->error = question->partitions->elems[i].err;
        if (question->error == RD_KAFKA_RESP_ERR_NO_ERROR)
            question->error = ask_watermarks(question, &question->partitions->elems[i], i);
    }
}

static void *run_thread(void *argument)
{
    struct kafka_asker *asker = argument;
    (void)pthread_mutex_lock(&asker->mutex);
    for (;;) {
        struct kafka_question *question = list_take(&asker->asked);
        if (question == NULL) {
            (void)pthread_cond_wait(&asker->has_question, &asker->mutex);
            continue;
        }
        (void)pthread_mutex_unlock(&asker->mutex);
        switch (question->kind) {
        case KAFKA_QUESTION_CLUSTER:
            ask_cluster(question);
            break;
        case KAFKA_QUESTION_OFFSETS:
            ask_offsets(question);
            break;
        }
        (void)pthread_mutex_lock(&asker->mutex);
        list_append(&asker->answered, question);
        (void)eventfd_write(asker->wake_fd, 1);
    }
    return NULL;
}

static void hand_over(struct kafka_question *question)
{
    /* The handler may free the question. */
    const struct rd_kafka_metadata *metadata = question->ret_metadata;
    char *cluster = question->ret_cluster;
    struct kafka_partition_offsets *offsets = question->ret_offsets;
    rd_kafka_t *client = question->client;
    question->on_answer(question, question->userdata);
    if (metadata != NULL)
        rd_kafka_metadata_destroy(metadata);
    if (cluster != NULL)
        rd_kafka_mem_free(client, cluster);
    free(offsets);
}

static int on_wake(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    (void)source;
    (void)events;
    struct kafka_asker *asker = userdata;
    eventfd_t count = 0;
    (void)eventfd_read(fd, &count);
    for (;;) {
        (void)pthread_mutex_lock(&asker->mutex);
        struct kafka_question *question = list_take(&asker->answered);
        (void)pthread_mutex_unlock(&asker->mutex);
        if (question == NULL)
            return 0;
        hand_over(question);
    }
}

void kafka_asker_ask(struct kafka_asker *asker, struct kafka_question *question)
{
    question->error = RD_KAFKA_RESP_ERR_NO_ERROR;
    question->ret_metadata = NULL;
    question->ret_cluster = NULL;
    question->ret_offsets = NULL;
    (void)pthread_mutex_lock(&asker->mutex);
    list_append(&asker->asked, question);
    (void)pthread_cond_signal(&asker->has_question);
    (void)pthread_mutex_unlock(&asker->mutex);
}

int kafka_asker_new(sd_event *event, struct kafka_asker **ret_asker)
{
    struct kafka_asker *asker = calloc(1, sizeof(*asker));
    if (asker == NULL)
        return -ENOMEM;
    list_init(&asker->asked);
    list_init(&asker->answered);
    (void)pthread_mutex_init(&asker->mutex, NULL);
    (void)pthread_cond_init(&asker->has_question, NULL);
    asker->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int result = asker->wake_fd < 0 ? -errno : 0;
    if (result == 0)
        result = sd_event_add_io(event, &asker->source, asker->wake_fd, EPOLLIN, on_wake, asker);
    if (result >= 0)
        result = -pthread_create(&asker->thread, NULL, run_thread, asker);
    if (result < 0) {
        (void)sd_event_source_disable_unref(asker->source);
        fd_close(&asker->wake_fd);
        free(asker);
        return result;
    }
    (void)pthread_detach(asker->thread);
    *ret_asker = asker;
    return 0;
}
