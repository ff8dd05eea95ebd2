#include "eventd/kafka_asker.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "common/file_descriptor.h"

#define METADATA_TIMEOUT_MS 3000
#define CLUSTER_TIMEOUT_MS  1000

struct question_list {
    struct kafka_question *first;
    struct kafka_question **last_next;
};

struct kafka_asker {
    const struct settings *settings;
    struct log_probe *probe; /* owned: the thread's; NULL: not needed yet */
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

static void ask_logs(struct kafka_asker *asker, struct kafka_question *question)
{
    /* Nobody needs it before there is something to look at, and it has connections of its own. */
    if (asker->probe == NULL && log_probe_new(asker->settings, &asker->probe) < 0)
        asker->probe = NULL;
    kafka_logs_ask(question->client, asker->probe, question->with_commits, question->logs,
        question->log_count);
    for (size_t i = 0; asker->probe == NULL && i < question->log_count; i++)
        question->logs[i].error = RD_KAFKA_RESP_ERR__FAIL;
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
        case KAFKA_QUESTION_LOGS:
            ask_logs(asker, question);
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
    rd_kafka_t *client = question->client;
    question->on_answer(question, question->userdata);
    if (metadata != NULL)
        rd_kafka_metadata_destroy(metadata);
    if (cluster != NULL)
        rd_kafka_mem_free(client, cluster);
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
    (void)pthread_mutex_lock(&asker->mutex);
    list_append(&asker->asked, question);
    (void)pthread_cond_signal(&asker->has_question);
    (void)pthread_mutex_unlock(&asker->mutex);
}

int kafka_asker_new(
    sd_event *event, const struct settings *settings, struct kafka_asker **ret_asker)
{
    struct kafka_asker *asker = calloc(1, sizeof(*asker));
    if (asker == NULL)
        return -ENOMEM;
    asker->settings = settings;
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
