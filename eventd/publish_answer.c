#include "eventd/publish_answer.h"

#include <errno.h>
#include <stdlib.h>

#include "common/failpoint.h"

#define ROWS_PER_ANSWER  1000
#define ANSWERS_PER_TURN 4 /* relays, with their old epochs, that are answered in one turn */

struct publish_answer {
    uint64_t peer_serial;
    uint64_t epoch;
    size_t delivered_count;
    size_t failure_count;
    int64_t delivered[ROWS_PER_ANSWER];
    Userd__Ipc__PublishFailure failures[ROWS_PER_ANSWER];
    Userd__Ipc__PublishFailure *failure_pointers[ROWS_PER_ANSWER];
};

struct publish_answers {
    size_t count;
    struct publish_answer answers[ANSWERS_PER_TURN];
};

bool publish_answer_is_permanent(rd_kafka_resp_err_t error)
{
    switch ((int)error) {
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE:
    case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
    case RD_KAFKA_RESP_ERR_INVALID_RECORD:
        return true;
    default:
        return false;
    }
}

static struct publish_answer *find_answer(
    struct publish_answers *answers, uint64_t peer_serial, uint64_t epoch)
{
    for (size_t i = 0; i < answers->count; i++) {
        struct publish_answer *answer = &answers->answers[i];
        if (answer->peer_serial == peer_serial && answer->epoch == epoch)
            return answer;
    }
    if (answers->count == ANSWERS_PER_TURN)
        return NULL;
    struct publish_answer *answer = &answers->answers[answers->count++];
    answer->peer_serial = peer_serial;
    answer->epoch = epoch;
    answer->delivered_count = 0;
    answer->failure_count = 0;
    return answer;
}

bool publish_answers_add(struct publish_answers *answers, uint64_t peer_serial, uint64_t epoch,
    int64_t id, rd_kafka_resp_err_t error)
{
    struct publish_answer *answer = find_answer(answers, peer_serial, epoch);
    if (answer == NULL || answer->delivered_count == ROWS_PER_ANSWER ||
        answer->failure_count == ROWS_PER_ANSWER)
        return false;
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR) {
        answer->delivered[answer->delivered_count++] = id;
        return true;
    }
    Userd__Ipc__PublishFailure *failure = &answer->failures[answer->failure_count];
    userd__ipc__publish_failure__init(failure);
    failure->id = id;
    failure->is_permanent = publish_answer_is_permanent(error);
    /* Static text; the frame only reads it. */
    failure->reason = borrow_const(rd_kafka_err2name(error));
    answer->failure_pointers[answer->failure_count++] = failure;
    return true;
}

static void send_answer(struct publish_answer *answer, struct worker_peers *peers)
{
    struct worker_peer *peer = worker_peers_find(peers, answer->peer_serial);
    if (peer == NULL)
        return;
    Userd__Ipc__PublishResult result = USERD__IPC__PUBLISH_RESULT__INIT;
    result.epoch = answer->epoch;
    result.n_delivered_ids = answer->delivered_count;
    result.delivered_ids = answer->delivered;
    result.n_failures = answer->failure_count;
    result.failures = answer->failure_pointers;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_PUBLISH_RESULT;
    frame.publish_result = &result;
    /* A channel that does not take it ends, and then its rows count as unacknowledged. */
    if (worker_peers_send(peer, &frame) < 0)
        return;
    FAILPOINT("publish.answered");
}

void publish_answers_send(struct publish_answers *answers, struct worker_peers *peers)
{
    for (size_t i = 0; i < answers->count; i++)
        send_answer(&answers->answers[i], peers);
    answers->count = 0;
}

struct publish_answers *publish_answers_free(struct publish_answers *answers)
{
    free(answers);
    return NULL;
}

int publish_answers_new(struct publish_answers **ret_answers)
{
    struct publish_answers *answers = calloc(1, sizeof(*answers));
    if (answers == NULL)
        return -ENOMEM;
    *ret_answers = answers;
    return 0;
}
