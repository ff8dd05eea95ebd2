#include "eventd/dead_letter_command.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "common/log.h"
#include "common/monotonic_clock.h"
#include "eventd/dead_letter_replay.h"
#include "eventd/dead_letter_topic.h"
#include "eventd/dead_letter_view.h"

#define PROGRESS_MS 2000
#define POLL_MS     100
#define SILENCE_MS  30000 /* without a delivery report the broker has gone */
#define EVERYTHING  "--all"
#define AS_JSON     "--json"
#define VALUE       "--value"

enum verb { VERB_LIST, VERB_SHOW, VERB_REPLAY, VERB_DROP, VERBS };
static const char *const verb_names[VERBS] = {"list", "show", "replay", "drop"};

/* A value for one letter, in the place of its own. */
struct mended_value {
    const char *path;
    char *bytes; /* owned */
    size_t length;
};

struct letter_id {
    int32_t partition;
    int64_t offset;
    bool is_found;
};

struct command {
    struct process_link *link;
    enum verb verb;
    bool is_json;
    struct mended_value value; /* .bytes NULL: each letter has its own */
    struct letter_id *ids;     /* owned; NULL: all that are pending */
    size_t id_count;
    struct dead_letter_topic topic;
    struct dead_letter_replay *replay;
    int64_t next_offset; /* of the partition that is scanned: what lies before it is known */
    size_t done;
    size_t refused;
    int64_t next_progress_ms;
    int64_t last_report_ms;
};

/* SIGTERM, or the end of `userd`. */
static bool is_over(void *userdata)
{
    struct command *command = userdata;
    sd_event *event = command->link->event;
    int exit_status = 0;
    if (sd_event_get_exit_code(event, &exit_status) >= 0)
        return true;
    (void)sd_event_run(event, 0);
    return sd_event_get_exit_code(event, &exit_status) >= 0;
}

/* ---- the words ---- */

static int read_id(const char *word, struct letter_id *ret_id)
{
    char *end = NULL;
    errno = 0;
    long partition = strtol(word, &end, 10);
    if (errno != 0 || end == word || *end != ':' || partition < 0 || partition > INT32_MAX)
        return -EINVAL;
    const char *rest = end + 1;
    long long offset = strtoll(rest, &end, 10);
    if (errno != 0 || end == rest || *end != '\0' || offset < 0 || offset == INT64_MAX)
        return -EINVAL;
    *ret_id = (struct letter_id){.partition = (int32_t)partition, .offset = offset};
    return 0;
}

static int read_ids(struct command *command, int count, char **words)
{
    command->id_count = (size_t)count;
    command->ids = calloc(command->id_count + 1, sizeof(*command->ids));
    if (command->ids == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < command->id_count; i++) {
        int result = read_id(words[i], &command->ids[i]);
        if (result < 0)
            return result;
    }
    return command->id_count > 0 ? 0 : -EINVAL;
}

static int read_words(struct command *command, int word_count, char **words)
{
    command->verb = VERBS;
    for (size_t i = 0; word_count > 0 && i < VERBS; i++) {
        if (strcmp(words[0], verb_names[i]) == 0)
            command->verb = (enum verb)i;
    }
    if (command->verb == VERBS)
        return -EINVAL;
    int next = 1;
    if (next < word_count && strcmp(words[next], AS_JSON) == 0) {
        command->is_json = true;
        next++;
    }
    if (next + 1 < word_count && strcmp(words[next], VALUE) == 0) {
        command->value.path = words[next + 1];
        next += 2;
    }
    bool is_all =
        command->verb == VERB_LIST || (next < word_count && strcmp(words[next], EVERYTHING) == 0);
    return is_all ? 0 : read_ids(command, word_count - next, words + next);
}

/* -ENOENT, with the reason on standard error: it cannot be sent. */
static int refuse_value(const struct mended_value *value, const char *reason)
{
    (void)fprintf(stderr, "%s: %s\n", value->path, reason);
    return -ENOENT;
}

/* A larger one would only become a dead letter again. */
static int mended_value_read(struct mended_value *value, size_t limit)
{
    char reason[96];
    FILE *file = fopen(value->path, "re");
    if (file == NULL)
        return refuse_value(value, strerror(errno));
    value->bytes = malloc(limit + 1);
    if (value->bytes != NULL)
        value->length = fread(value->bytes, 1, limit + 1, file);
    int error = ferror(file) != 0 ? errno : 0;
    (void)fclose(file);
    if (value->bytes == NULL)
        return -ENOMEM;
    if (error != 0)
        return refuse_value(value, strerror(error));
    if (value->length == 0)
        return refuse_value(value, "it is empty");
    if (value->length <= limit)
        return 0;
    (void)snprintf(reason, sizeof(reason), "it has more than limits.event_bytes, %zu bytes", limit);
    return refuse_value(value, reason);
}

/* ---- one letter ---- */

static void mark_handled(struct command *command, int32_t partition_number, int64_t offset)
{
    struct dead_letter_partition *partition =
        dead_letter_topic_find(&command->topic, partition_number);
    if (partition == NULL)
        return;
    if (handled_offsets_add(&partition->handled, offset, offset + 1) < 0)
        log_warn("dead letter cannot be noted as handled id=%" PRIi32 ":%" PRIi64
                 ": handle those before it",
            partition_number, offset);
    partition->is_changed = true;
}

static void refuse(struct command *command, int32_t partition, int64_t offset, const char *reason)
{
    command->refused++;
    (void)fflush(stdout);
    (void)fprintf(
        stderr, "%" PRIi32 ":%" PRIi64 ": not sent again: %s\n", partition, offset, reason);
}

static void on_replayed(
    int32_t partition, int64_t offset, rd_kafka_resp_err_t error, void *userdata)
{
    struct command *command = userdata;
    command->last_report_ms = monotonic_clock_ms();
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
        refuse(command, partition, offset, rd_kafka_err2str(error));
        return;
    }
    command->done++;
    mark_handled(command, partition, offset);
}

static int show_progress(struct command *command)
{
    if (command->verb == VERB_LIST || monotonic_clock_ms() < command->next_progress_ms)
        return 0;
    command->next_progress_ms = monotonic_clock_ms() + PROGRESS_MS;
    log_info("%s dead letters=%zu refused=%zu in_flight=%zu", verb_names[command->verb],
        command->done, command->refused,
        command->replay == NULL ? 0 : dead_letter_replay_in_flight(command->replay));
    return dead_letter_topic_commit(&command->topic);
}

/* Waits until at most `limit` letters are in flight. */
static int await_reports(struct command *command, size_t limit)
{
    command->last_report_ms = monotonic_clock_ms();
    while (dead_letter_replay_in_flight(command->replay) > limit) {
        dead_letter_replay_poll(command->replay, POLL_MS);
        if (is_over(command))
            return -ECANCELED;
        if (monotonic_clock_ms() - command->last_report_ms > SILENCE_MS) {
            log_error("kafka does not acknowledge in_flight=%zu: these may be sent again",
                dead_letter_replay_in_flight(command->replay));
            return -ETIMEDOUT;
        }
    }
    return 0;
}

static int replay_letter(struct command *command, const rd_kafka_message_t *message)
{
    const char *reason = dead_letter_replay_refusal(command->replay, message);
    if (reason != NULL) {
        refuse(command, message->partition, message->offset, reason);
        return 0;
    }
    int result = dead_letter_replay_send(command->replay, message);
    while (result == -EAGAIN) {
        result = await_reports(command, dead_letter_replay_in_flight(command->replay) / 2);
        if (result == 0)
            result = dead_letter_replay_send(command->replay, message);
    }
    dead_letter_replay_poll(command->replay, 0);
    return result;
}

static int list_letter(struct command *command, const rd_kafka_message_t *message)
{
    bool is_first = command->done++ == 0;
    if (command->is_json)
        return dead_letter_view_json(message, is_first);
    if (is_first)
        dead_letter_view_title();
    dead_letter_view_line(message);
    return 0;
}

static int treat_letter(struct command *command, const rd_kafka_message_t *message, bool is_handled)
{
    switch (command->verb) {
    case VERB_LIST:
        return list_letter(command, message);
    case VERB_SHOW:
        command->done++;
        dead_letter_view_whole(message, is_handled);
        return 0;
    case VERB_REPLAY:
        return replay_letter(command, message);
    case VERB_DROP:
        command->done++;
        mark_handled(command, message->partition, message->offset);
        return 0;
    case VERBS:
        break;
    }
    return -EINVAL;
}

/* ---- all, or those that were named ---- */

static int on_pending(
    struct dead_letter_partition *partition, const rd_kafka_message_t *message, void *userdata)
{
    struct command *command = userdata;
    /* Offsets that no record has (aborted transactions, compaction) would hold the position back.
     */
    if (command->verb != VERB_LIST && message->offset > command->next_offset &&
        handled_offsets_add(&partition->handled, command->next_offset, message->offset) < 0)
        log_debug("gap is not noted offset=%" PRIi64, command->next_offset);
    command->next_offset = message->offset + 1;
    if (handled_offsets_contain(&partition->handled, message->offset))
        return 0;
    int result = treat_letter(command, message, false);
    return result < 0 ? result : show_progress(command);
}

static int treat_pending(struct command *command)
{
    int result = 0;
    for (size_t i = 0; i < command->topic.partition_count && result == 0; i++) {
        struct dead_letter_partition *partition = &command->topic.partitions[i];
        const int64_t range[2] = {partition->handled.position, partition->high};
        command->next_offset = range[0] < partition->low ? partition->low : range[0];
        result = dead_letter_topic_scan(&command->topic, partition, range, on_pending, command);
    }
    return result;
}

static int on_named(
    struct dead_letter_partition *partition, const rd_kafka_message_t *message, void *userdata)
{
    struct command *command = userdata;
    struct letter_id *id = &command->ids[command->next_offset];
    if (message->offset != id->offset)
        return 0;
    id->is_found = true;
    bool is_handled = handled_offsets_contain(&partition->handled, message->offset);
    if (is_handled && command->verb != VERB_SHOW) {
        (void)printf("%" PRIi32 ":%" PRIi64 ": handled already\n", id->partition, id->offset);
        return 0;
    }
    int result = treat_letter(command, message, is_handled);
    return result < 0 ? result : show_progress(command);
}

static int treat_named(struct command *command)
{
    int result = 0;
    for (size_t i = 0; i < command->id_count && result == 0; i++) {
        const struct letter_id *id = &command->ids[i];
        struct dead_letter_partition *partition =
            dead_letter_topic_find(&command->topic, id->partition);
        const int64_t range[2] = {id->offset, id->offset + 1};
        command->next_offset = (int64_t)i;
        if (partition != NULL)
            result = dead_letter_topic_scan(&command->topic, partition, range, on_named, command);
        if (result == 0 && !id->is_found) {
            (void)fprintf(stderr, "%" PRIi32 ":%" PRIi64 ": there is no such dead letter\n",
                id->partition, id->offset);
            command->refused++;
        }
    }
    return result;
}

/* ---- the way in ---- */

static void say_result(const struct command *command)
{
    static const char *const results[VERBS] = {
        [VERB_LIST] = "pending", [VERB_REPLAY] = "sent again", [VERB_DROP] = "dropped"};
    if (command->is_json)
        dead_letter_view_json_end(command->done);
    else if (results[command->verb] != NULL)
        (void)printf("%zu dead letters %s\n", command->done, results[command->verb]);
}

static int run(struct command *command)
{
    const struct settings *settings = &command->link->settings;
    command->topic = (struct dead_letter_topic){
        .name = settings->kafka.dead_letter_topic, .is_over = is_over, .userdata = command};
    command->next_progress_ms = monotonic_clock_ms() + PROGRESS_MS;
    int result = 0;
    if (command->value.path != NULL)
        result = mended_value_read(&command->value, (size_t)settings->limits.event_bytes);
    if (result == 0)
        result = dead_letter_topic_open(&command->topic, settings);
    if (result == 0 && command->verb == VERB_REPLAY)
        result = dead_letter_replay_open(settings, on_replayed, command, &command->replay);
    if (result == 0 && command->value.bytes != NULL)
        dead_letter_replay_mend(command->replay, command->value.bytes, command->value.length);
    if (result == 0 && command->is_json)
        dead_letter_view_json_begin(command->topic.name);
    if (result == 0)
        result = command->ids == NULL ? treat_pending(command) : treat_named(command);
    if (command->replay != NULL && result == 0)
        result = await_reports(command, 0);
    /* What was done is noted, however it ended. */
    int noted = command->verb == VERB_REPLAY || command->verb == VERB_DROP
                    ? dead_letter_topic_commit(&command->topic)
                    : 0;
    return result < 0 ? result : noted;
}

int dead_letter_command(struct process_link *link, int word_count, char **words)
{
    /* The stretches of each partition are large, and the process ends with the command. */
    static struct command command;
    command = (struct command){.link = link};
    int result = read_words(&command, word_count, words);
    if (result < 0) {
        log_error("dead-letters is run by userd");
        return EX_USAGE;
    }
    result = run(&command);
    if (result == 0)
        say_result(&command);
    bool is_written = fflush(stdout) == 0;
    free(command.ids);
    free(command.value.bytes);
    if (result == -ECANCELED) {
        log_warn("stopped before the end done=%zu", command.done);
        return EX_TEMPFAIL;
    }
    if (result == -EINVAL)
        return EX_CONFIG;
    if (result == -ENOENT)
        return EX_DATAERR;
    if (result < 0)
        return result == -ENOMEM ? EX_OSERR : EX_UNAVAILABLE;
    if (!is_written)
        return EX_IOERR;
    return command.refused > 0 ? EX_DATAERR : EX_OK;
}
