/* eventd/publish_answer: which refusals of a broker are final. */
#include <criterion/criterion.h>

#include "common/attributes.h"
#include "eventd/publish_answer.h"

Test(publish_answer, is_permanent_only_for_what_no_repetition_can_mend)
{
    static const rd_kafka_resp_err_t permanent[] = {
        RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
        RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE,
        RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE,
        RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP,
        RD_KAFKA_RESP_ERR_INVALID_RECORD,
    };
    static const rd_kafka_resp_err_t passing[] = {
        RD_KAFKA_RESP_ERR__MSG_TIMED_OUT,
        RD_KAFKA_RESP_ERR__PURGE_QUEUE,
        RD_KAFKA_RESP_ERR__PURGE_INFLIGHT,
        RD_KAFKA_RESP_ERR__QUEUE_FULL,
        RD_KAFKA_RESP_ERR__FATAL,
        RD_KAFKA_RESP_ERR__TRANSPORT,
        RD_KAFKA_RESP_ERR_INVALID_MSG, /* a bad checksum: the wire's fault */
        RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
        RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RD_KAFKA_RESP_ERR_POLICY_VIOLATION,
    };
    for (size_t i = 0; i < ARRAY_LENGTH(permanent); i++)
        cr_assert(publish_answer_is_permanent(permanent[i]), "%s", rd_kafka_err2name(permanent[i]));
    for (size_t i = 0; i < ARRAY_LENGTH(passing); i++)
        cr_assert_not(publish_answer_is_permanent(passing[i]), "%s", rd_kafka_err2name(passing[i]));
}

Test(publish_answer, says_when_it_is_full_and_has_room_again_after_sending)
{
    struct publish_answers *answers = NULL;
    cr_assert_eq(publish_answers_new(&answers), 0);
    int64_t id = 0;
    while (publish_answers_add(answers, 1, 1, id, RD_KAFKA_RESP_ERR_NO_ERROR))
        cr_assert_lt(++id, 1000000, "never full");
    cr_assert_gt(id, 0);
    struct worker_peers *peers = NULL;
    sd_event *event = NULL;
    cr_assert_geq(sd_event_new(&event), 0);
    cr_assert_eq(worker_peers_new(event, NULL, NULL, &peers), 0);
    publish_answers_send(answers, peers); /* the channel has ended: dropped */
    cr_assert(publish_answers_add(answers, 1, 1, id, RD_KAFKA_RESP_ERR_NO_ERROR));
    (void)worker_peers_free(peers);
    (void)publish_answers_free(answers);
    (void)sd_event_unref(event);
}
