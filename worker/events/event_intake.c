#include "worker/events/event_intake.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/failpoint.h"
#include "common/log.h"
#include "common/trace_context.h"
#include "worker/events/dead_letter.h"
#include "worker/events/event_channel.h"
#include "worker/events/event_decode.h"

#define WARNINGS_PER_SECOND 10

static const char category_undecodable[] = "undecodable";
static const char category_refused[] = "refused";
static const char category_database[] = "database";

struct event_intake {
    struct event_peer_options options; /* a copy: answers may come after the peer is gone */
    struct event_peer *peer;
    size_t pending; /* requests that the database has */
    bool is_closed; /* freed when nothing is pending any more */
    struct log_limit warning_limit;
};

/* What becomes of one record. */
struct intake_item {
    struct decoded_event event;
    const char *category;         /* NULL: the event is applied; else why it is a dead letter */
    char error[DEAD_LETTER_TEXT]; /* with a category */
    struct dead_letter letter;
    char traceparent[TRACE_CONTEXT_SIZE]; /* of the record's headers; "": none */
};

/* One DeliverBatch, from the frame to the answer. Applied in pieces: usually one. */
struct intake_batch {
    struct user_event_batch request;
    struct event_intake *intake;
    uint64_t channel_serial;
    Userd__Ipc__DeliverBatch *batch;  /* owned: a copy of the frame's */
    struct intake_item *items;        /* owned; one for each record */
    struct user_event *events;        /* owned; of the piece */
    struct user_dead_letter *letters; /* owned; of the piece */
    size_t done;                      /* records applied */
    size_t piece;                     /* records of the piece that is being applied */
    Userd__Ipc__DeliverResult result;
};

static void let_go(struct event_intake *intake)
{
    intake->pending--;
    if (intake->is_closed && intake->pending == 0)
        free(intake);
}

static void free_batch(struct intake_batch *batch)
{
    for (size_t i = 0; batch->items != NULL && i < batch->batch->n_records; i++) {
        decoded_event_cleanup(&batch->items[i].event);
        dead_letter_cleanup(&batch->items[i].letter);
    }
    if (batch->batch != NULL)
        userd__ipc__deliver_batch__free_unpacked(batch->batch, NULL);
    free(batch->items);
    free(batch->events);
    free(batch->letters);
    free(batch);
}

static void answer(struct intake_batch *batch, Userd__Ipc__DeliverResult__Outcome outcome)
{
    struct event_intake *intake = batch->intake;
    batch->result.outcome = outcome;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_DELIVER_RESULT;
    frame.deliver_result = &batch->result;
    if (!intake->is_closed && event_channel_send(intake->peer, batch->channel_serial, &frame) < 0)
        log_debug(
            "batch is not answered batch=%" PRIu64 ": its channel has ended", batch->result.id);
    FAILPOINT("intake.answered");
    free_batch(batch);
    let_go(intake);
}

static void count_piece(struct intake_batch *batch)
{
    const struct user_event_batch *request = &batch->request;
    struct scoreboard_slot *slot = batch->intake->options.slot;
    size_t no_op = request->event_count - request->ret_effects;
    batch->result.applied += (uint32_t)request->ret_effects;
    batch->result.no_op += (uint32_t)no_op;
    batch->result.dead_letters += (uint32_t)request->dead_letter_count;
    scoreboard_add(&slot->events_applied, request->ret_effects);
    scoreboard_add(&slot->events_no_op, no_op);
    scoreboard_add(&slot->events_tombstoned, request->ret_tombstoned);
    scoreboard_add(&slot->events_without_claim, request->ret_without_claim);
    scoreboard_add(&slot->events_dead_lettered, request->dead_letter_count);
    if (request->ret_without_claim > 0)
        log_info("registered without a claim to the name users=%zu topic=%s partition=%" PRIi32
                 " position=%" PRIi64 " next_position=%" PRIi64,
            request->ret_without_claim, request->topic, request->partition, request->position,
            request->next_position);
    if (request->ret_tombstoned > 0)
        log_info("registrations of deleted users ignored events=%zu topic=%s partition=%" PRIi32,
            request->ret_tombstoned, request->topic, request->partition);
}

static void log_dead_letter(
    struct intake_batch *batch, const Userd__Ipc__Record *record, const struct intake_item *item)
{
    unsigned int suppressed = 0;
    if (!log_limit_allows(&batch->intake->warning_limit, WARNINGS_PER_SECOND, &suppressed))
        return;
    /* What the database says may quote the event, and so does not go into the log. */
    log_warn("event becomes a dead letter topic=%s partition=%" PRIi32 " offset=%" PRIi64
             " reason=%s error=\"%s\" traceparent=%s suppressed=%u",
        batch->batch->topic, batch->batch->partition, record->offset, item->category,
        item->category == category_database ? "refused by the database" : item->error,
        item->traceparent[0] == '\0' ? "none" : item->traceparent, suppressed);
}

static void condemn(
    struct intake_batch *batch, size_t index, const char *category, const char *error)
{
    struct intake_item *item = &batch->items[index];
    item->category = category;
    /* Cut at the size, and never in the middle of a character: PostgreSQL takes UTF-8 only. */
    size_t length = 0;
    while (error[length] != '\0' && length < sizeof(item->error) - 1) {
        item->error[length] = error[length];
        length++;
    }
    while (length > 0 && error[length] != '\0' && ((unsigned char)error[length] & 0xc0) == 0x80)
        length--;
    item->error[length] = '\0';
    log_dead_letter(batch, batch->batch->records[index], item);
}

/* Fills the request with the piece's records; 0 or -ENOMEM. */
static int gather_piece(struct intake_batch *batch)
{
    struct user_event_batch *request = &batch->request;
    request->event_count = 0;
    request->dead_letter_count = 0;
    for (size_t i = batch->done; i < batch->done + batch->piece; i++) {
        struct intake_item *item = &batch->items[i];
        if (item->category == NULL) {
            batch->events[request->event_count++] = (struct user_event){
                .auth_id = item->event.auth_id,
                .username = item->event.username,
                .username_length = item->event.username_length,
                .traceparent = item->traceparent[0] == '\0' ? NULL : item->traceparent,
            };
            continue;
        }
        const char *const reason[2] = {item->category, item->error};
        dead_letter_cleanup(&item->letter);
        if (dead_letter_fill(&item->letter, batch->batch, batch->batch->records[i], reason,
                &batch->letters[request->dead_letter_count++]) < 0)
            return -ENOMEM;
    }
    return 0;
}

/* What is known of the record below the position after `end` records. */
static struct position_record record_below(const Userd__Ipc__DeliverBatch *frame, size_t end)
{
    struct position_record record = {0};
    if (end > 0)
        record = (struct position_record){
            .offset = frame->records[end - 1]->offset,
            .timestamp_ms = frame->records[end - 1]->timestamp_ms,
            .checksum = frame->records[end - 1]->checksum,
        };
    else if (frame->record_below != NULL)
        record = (struct position_record){
            .offset = frame->record_below->offset,
            .timestamp_ms = frame->record_below->timestamp_ms,
            .checksum = frame->record_below->checksum,
        };
    record.is_known = record.checksum != 0;
    return record;
}

/* A piece and its answer call each other until all is done. */
static void on_applied(struct user_event_batch *request, enum user_apply_outcome outcome);

/* Applies the next piece in one transaction. */
static void apply_piece(struct intake_batch *batch)
{
    const Userd__Ipc__DeliverBatch *frame = batch->batch;
    size_t end = batch->done + batch->piece;
    if (gather_piece(batch) < 0) {
        answer(batch, USERD__IPC__DELIVER_RESULT__OUTCOME__UNAVAILABLE);
        return;
    }
    /* Only a position to move: by the statement that need not close the gate. */
    batch->request.kind =
        frame->kind == USERD__IPC__EVENT_KIND__EVENT_KIND_REGISTRATION && frame->n_records > 0
            ? USER_EVENT_REGISTRATION
            : USER_EVENT_ADMIN_DELETE;
    batch->request.cluster = frame->cluster;
    batch->request.topic = frame->topic;
    batch->request.partition = frame->partition;
    batch->request.position =
        batch->done == 0 ? frame->position : frame->records[batch->done - 1]->offset + 1;
    batch->request.next_position =
        end == frame->n_records ? frame->next_position : frame->records[end - 1]->offset + 1;
    batch->request.record_below = record_below(frame, end);
    batch->request.is_first = frame->is_first && batch->done == 0;
    batch->request.events = batch->events;
    batch->request.dead_letters = batch->letters;
    batch->request.on_applied = on_applied;
    batch->request.ret_effects = 0;
    batch->request.ret_tombstoned = 0;
    batch->request.ret_without_claim = 0;
    batch->request.error = NULL;
    user_service_apply_events(batch->intake->options.user_service, &batch->request);
}

static void on_done(struct intake_batch *batch)
{
    count_piece(batch);
    if (!batch->intake->is_closed)
        event_channel_set_able(batch->intake->peer);
    batch->done += batch->piece;
    batch->piece = batch->batch->n_records - batch->done;
    if (batch->piece == 0)
        answer(batch, USERD__IPC__DELIVER_RESULT__OUTCOME__APPLIED);
    else
        apply_piece(batch);
}

/* Halves the piece until it is the one record that is refused, which becomes a dead letter. */
static void on_refused(struct intake_batch *batch, const char *error)
{
    if (batch->piece > 1) {
        batch->piece /= 2;
        apply_piece(batch);
        return;
    }
    if (batch->piece == 0) { /* a position alone has nothing that could be refused */
        answer(batch, USERD__IPC__DELIVER_RESULT__OUTCOME__UNAVAILABLE);
        return;
    }
    if (batch->items[batch->done].category != NULL) {
        /* Its dead letter is refused as well: nothing that we could do here helps, and nothing may
         * be lost. */
        log_error("dead letter is refused by the database topic=%s partition=%" PRIi32
                  " offset=%" PRIi64 ": the partition waits",
            batch->batch->topic, batch->batch->partition,
            batch->batch->records[batch->done]->offset);
        answer(batch, USERD__IPC__DELIVER_RESULT__OUTCOME__UNAVAILABLE);
        return;
    }
    condemn(batch, batch->done, category_database, error == NULL ? "refused" : error);
    apply_piece(batch);
}

static void on_applied(struct user_event_batch *request, enum user_apply_outcome outcome)
{
    struct intake_batch *batch = request->userdata;
    switch (outcome) {
    case USER_APPLY_DONE:
        on_done(batch);
        break;
    case USER_APPLY_POSITION_MISMATCH:
        answer(batch, USERD__IPC__DELIVER_RESULT__OUTCOME__POSITION_MISMATCH);
        break;
    case USER_APPLY_UNUSABLE:
        if (!batch->intake->is_closed)
            event_channel_set_unable(batch->intake->peer);
        answer(batch, USERD__IPC__DELIVER_RESULT__OUTCOME__UNAVAILABLE);
        break;
    case USER_APPLY_UNAVAILABLE:
        answer(batch, USERD__IPC__DELIVER_RESULT__OUTCOME__UNAVAILABLE);
        break;
    case USER_APPLY_REFUSED:
        on_refused(batch, request->error);
        break;
    }
}

/* Of several the first: the headers are someone else's list. */
static void find_traceparent(const Userd__Ipc__Record *record, char ret_text[TRACE_CONTEXT_SIZE])
{
    for (size_t i = 0; i < record->n_headers; i++) {
        const Userd__Ipc__Header *header = record->headers[i];
        if (strcmp(header->name, TRACE_CONTEXT_NAME) != 0 || header->value.data == NULL)
            continue;
        (void)trace_context_read((const char *)header->value.data, header->value.len, ret_text);
        return;
    }
}

/* 0 or -ENOMEM. */
static int decode_records(struct intake_batch *batch)
{
    enum user_event_kind kind =
        batch->batch->kind == USERD__IPC__EVENT_KIND__EVENT_KIND_REGISTRATION
            ? USER_EVENT_REGISTRATION
            : USER_EVENT_ADMIN_DELETE;
    for (size_t i = 0; i < batch->batch->n_records; i++) {
        const Userd__Ipc__Record *record = batch->batch->records[i];
        find_traceparent(record, batch->items[i].traceparent);
        if (record->refusal[0] != '\0') {
            condemn(batch, i, category_refused, record->refusal);
            continue;
        }
        const void *value = NULL;
        if (record->has_value)
            value = record->value.data == NULL ? (const void *)"" : record->value.data;
        const char *reason = NULL;
        int result = event_decode(kind, value, record->value.len, &batch->items[i].event, &reason);
        if (result == -EBADMSG)
            condemn(batch, i, category_undecodable, reason);
        else if (result < 0)
            return result;
    }
    return 0;
}

/* The frame lives only as long as its handler. */
static Userd__Ipc__DeliverBatch *copy_batch(const Userd__Ipc__DeliverBatch *batch)
{
    size_t size = userd__ipc__deliver_batch__get_packed_size(batch);
    uint8_t *bytes = malloc(size + 1);
    if (bytes == NULL)
        return NULL;
    (void)userd__ipc__deliver_batch__pack(batch, bytes);
    Userd__Ipc__DeliverBatch *copy = userd__ipc__deliver_batch__unpack(NULL, size, bytes);
    free(bytes);
    return copy;
}

int event_intake_on_batch(
    struct event_intake *intake, uint64_t channel_serial, const Userd__Ipc__DeliverBatch *frame)
{
    bool is_known = frame->kind == USERD__IPC__EVENT_KIND__EVENT_KIND_REGISTRATION ||
                    frame->kind == USERD__IPC__EVENT_KIND__EVENT_KIND_ADMIN_DELETE;
    if (!is_known)
        return -EPROTO;
    struct intake_batch *batch = calloc(1, sizeof(*batch));
    if (batch == NULL)
        return -ENOMEM;
    batch->batch = copy_batch(frame);
    batch->items = calloc(frame->n_records + 1, sizeof(*batch->items));
    batch->events = calloc(frame->n_records + 1, sizeof(*batch->events));
    batch->letters = calloc(frame->n_records + 1, sizeof(*batch->letters));
    if (batch->batch == NULL || batch->items == NULL || batch->events == NULL ||
        batch->letters == NULL) {
        if (batch->batch == NULL) {
            free(batch->items);
            batch->items = NULL;
        }
        free_batch(batch);
        return -ENOMEM;
    }
    batch->intake = intake;
    batch->channel_serial = channel_serial;
    batch->request.userdata = batch;
    userd__ipc__deliver_result__init(&batch->result);
    batch->result.id = frame->id;
    intake->pending++;
    FAILPOINT("intake.received");
    batch->piece = frame->n_records;
    if (decode_records(batch) < 0)
        answer(batch, USERD__IPC__DELIVER_RESULT__OUTCOME__UNAVAILABLE);
    else
        apply_piece(batch);
    return 0;
}

/* ---- positions ---- */

struct intake_positions {
    struct position_question question;
    struct event_intake *intake;
    uint64_t channel_serial;
    Userd__Ipc__PositionRequest *request; /* owned */
};

static void send_positions(struct intake_positions *asked, Userd__Ipc__PositionResult *result)
{
    result->id = asked->request->id;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_POSITION_RESULT;
    frame.position_result = result;
    if (!asked->intake->is_closed &&
        event_channel_send(asked->intake->peer, asked->channel_serial, &frame) < 0)
        log_debug("positions are not answered: the channel has ended");
}

/* All that are stored for the cluster: eventd takes those that it asked for. */
static void fill_position(const struct stored_position *stored, Userd__Ipc__Position *position,
    Userd__Ipc__RecordMark *mark)
{
    userd__ipc__position__init(position);
    position->topic = borrow_const(stored->topic);
    position->partition = stored->partition;
    position->next_offset = stored->next_offset;
    if (!stored->record_below.is_known)
        return;
    userd__ipc__record_mark__init(mark);
    mark->offset = stored->record_below.offset;
    mark->timestamp_ms = stored->record_below.timestamp_ms;
    mark->checksum = stored->record_below.checksum;
    position->record_below = mark;
}

static void on_positions(
    struct position_question *question, const struct stored_positions *positions)
{
    struct intake_positions *asked = question->userdata;
    struct event_intake *intake = asked->intake;
    size_t count = positions == NULL ? 0 : positions->position_count;
    Userd__Ipc__PositionResult result;
    userd__ipc__position_result__init(&result);
    Userd__Ipc__Position *values = calloc(count + 1, sizeof(*values));
    Userd__Ipc__RecordMark *marks = calloc(count + 1, sizeof(*marks));
    Userd__Ipc__Position **pointers = calloc(count + 1, sizeof(Userd__Ipc__Position *));
    if (positions != NULL && values != NULL && marks != NULL && pointers != NULL) {
        for (size_t i = 0; i < count; i++) {
            fill_position(&positions->positions[i], &values[i], &marks[i]);
            pointers[i] = &values[i];
        }
        result.is_available = true;
        result.database = borrow_const(positions->database);
        result.n_positions = count;
        result.positions = pointers;
        result.n_other_clusters = positions->other_cluster_count;
        result.other_clusters = borrow_const(positions->other_clusters);
    }
    send_positions(asked, &result);
    free(values);
    free(marks);
    free(pointers);
    userd__ipc__position_request__free_unpacked(asked->request, NULL);
    free(asked);
    let_go(intake);
}

int event_intake_on_positions(
    struct event_intake *intake, uint64_t channel_serial, const Userd__Ipc__PositionRequest *frame)
{
    struct intake_positions *asked = calloc(1, sizeof(*asked));
    Userd__Ipc__PositionRequest *request = malloc(sizeof(*request));
    char *cluster = strdup(frame->cluster);
    if (asked == NULL || request == NULL || cluster == NULL) {
        free(asked);
        free(request);
        free(cluster);
        return -ENOMEM;
    }
    userd__ipc__position_request__init(request);
    request->id = frame->id;
    request->cluster = cluster;
    asked->request = request;
    asked->intake = intake;
    asked->channel_serial = channel_serial;
    asked->question.cluster = cluster;
    asked->question.on_positions = on_positions;
    asked->question.userdata = asked;
    intake->pending++;
    user_store_find_positions(intake->options.user_store, &asked->question);
    return 0;
}

bool event_intake_is_idle(const struct event_intake *intake)
{
    return intake->pending == 0;
}

struct event_intake *event_intake_free(struct event_intake *intake)
{
    if (intake == NULL)
        return NULL;
    intake->is_closed = true;
    if (intake->pending == 0)
        free(intake);
    return NULL;
}

int event_intake_new(const struct event_peer_options *options, struct event_peer *peer,
    struct event_intake **ret_intake)
{
    struct event_intake *intake = calloc(1, sizeof(*intake));
    if (intake == NULL)
        return -ENOMEM;
    intake->options = *options;
    intake->peer = peer;
    *ret_intake = intake;
    return 0;
}
