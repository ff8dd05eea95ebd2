#!/usr/bin/python3
"""Proves that the fault suite can fail: breaks a copy of the sources in one place, builds it, runs the suite, and expects the check
that is for this break to complain. A check that nothing has ever made complain proves nothing.

  mutate.py [--only NAME]... [--check NAME]... [--work DIRECTORY] [--list]

What it prints at the end, and --list without building anything, is the table of checks and of the breaks that each of them is known by;
a check without one ends it at once. USERD_TEST_SOURCE_DIR names the sources. Not part of the ordinary run: a build for each break."""
import argparse
import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(os.environ.get("USERD_TEST_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))
RUN_TIMEOUT_S = 400
ROUND_CHECKS = ("calls_fail_only_when_they_must",)  # not of checks.ALL: it needs to know the round's faults
ROOMS = ("common", "master", "worker", "eventd", "proto", "migrations", "etc", "systemd", "debian", "tests")

Mutation = collections.namedtuple("Mutation", "what edits arguments expected")

EDIT_QUEUE = ("eventd/kafka_client.c", '{"queue.buffering.max.messages", "20000"}', '{"queue.buffering.max.messages", "2"}')

MUTATIONS = {
    "none": Mutation("nothing is broken", [], ["--point", "publish.appended", "--point", "intake.committed"], None),
    "acknowledged_when_queued": Mutation(
        "eventd acknowledges a row when librdkafka has queued it",
        [("eventd/publish_flow.c", '            FAILPOINT("publish.produced");\n',
          '            FAILPOINT("publish.produced");\n            answer_row(flow, row, RD_KAFKA_RESP_ERR_NO_ERROR);\n')],
        ["--point", "outage.kill", "--repeat", "3"], "every_committed_event_is_in_the_log"),
    "deleted_when_sent": Mutation(
        "the relay takes a row as delivered when it has sent it to eventd",
        [("worker/events/outbox_row.c", '        FAILPOINT("relay.sent");\n',
          '        FAILPOINT("relay.sent");\n'
          "        for (size_t i = 0; i < count; i++)\n"
          "            (void)outbox_window_mark_done(window, window->epoch, rows[i]->id);\n")],
        ["--point", "outage.kill", "--repeat", "3"], "every_committed_event_is_in_the_log"),
    "new_id_in_each_read": Mutation(
        "ce_id is made when a row is read",
        [("worker/store/outbox_store.c", '"event_id, created_at, traceparent,', '"gen_random_uuid(), created_at, traceparent,')],
        ["--point", "publish.appended", "--repeat", "2"], "nothing_in_the_log_was_not_committed"),
    "repeats_differ": Mutation(
        "ce_time is made when a row is read",
        [("worker/store/outbox_store.c", '"event_id, created_at, traceparent,', '"event_id, clock_timestamp(), traceparent,')],
        ["--point", "relay.reported", "--point", "relay.delete.before", "--repeat", "2"], "repeats_carry_the_same_id"),
    "small_queue_only": Mutation(
        "control: librdkafka's queue is full all the time, which is no break",
        [EDIT_QUEUE], ["--point", "relay.sent", "--point", "broker.hang"], None),
    "window_above_one": Mutation(
        "rows of one user are on their way together, and librdkafka's queue is full all the time",
        [EDIT_QUEUE, ("worker/events/outbox_window.c", "    if (!entry->has_auth_id)\n        return true;",
                      "    if (window != NULL)\n        return true;")],
        ["--point", "broker.hang", "--repeat", "4"], "first_occurrences_are_in_commit_order"),
    "commits_what_is_read": Mutation(
        "Kafka is told what is read, not what is applied",
        [("eventd/deliver_flow.c", "                partition->window.position, consumer_group_database(flow->group));",
          "                partition->next_offset, consumer_group_database(flow->group));"),
         ("eventd/deliver_flow.c", "#define COMMIT_INTERVAL_US  UINT64_C(1000000)", "#define COMMIT_INTERVAL_US  UINT64_C(20000)")],
        ["--point", "postgres.hang", "--repeat", "4"], "kafkas_commit_never_passes_what_is_applied"),
    "two_deletes": Mutation(
        "a removed user is told of twice",
        [("worker/store/user_write.c", "a.traceparent FROM removed\"", "a.traceparent FROM generate_series(1, 2) CROSS JOIN removed\"")],
        ["--point", "relay.sent"], "one_effect_per_record"),
    "registration_overwrites": Mutation(
        "a registration of a known id writes its name",
        [("worker/store/event_store.c", "ON CONFLICT (id_auth) DO NOTHING",
          "ON CONFLICT (id_auth) DO UPDATE SET username = excluded.username")],
        ["--point", "relay.sent"], "one_effect_per_record"),
    "no_tombstone_is_read": Mutation(
        "a registration does not look at the tombstones",
        [("worker/store/event_store.c", "t.id_auth IS NOT NULL AS is_tombstoned", "false AS is_tombstoned")],
        ["--point", "relay.sent"], "no_user_is_tombstoned"),
    "no_tombstone_is_written": Mutation(
        "a deletion leaves no tombstone",
        [("worker/store/user_write.c", "SELECT id_auth FROM removed ON CONFLICT", "SELECT id_auth FROM removed WHERE false ON CONFLICT")],
        ["--point", "relay.sent"], "no_user_is_tombstoned"),
    "no_compare_and_set": Mutation(
        "the position is set, whatever it was",
        [("worker/store/event_store.c", "AND next_offset = $4::int8 AND NOT $6::bool", "AND NOT $6::bool"),
         ("worker/store/event_store.c", "WHERE o.next_offset = $4::int8", "WHERE true OR o.next_offset = $4::int8")],
        ["--point", "intake.committed", "--repeat", "3"], "each_record_ends_once"),
    "position_in_another_transaction": Mutation(
        "the effects do not depend on the position",
        [("worker/store/event_store.c", "accepted AS MATERIALIZED (SELECT FROM moved UNION ALL SELECT FROM begun)",
          "accepted AS MATERIALIZED (SELECT FROM moved UNION ALL SELECT FROM begun UNION ALL SELECT)")],
        ["--point", "intake.committed", "--repeat", "8"], "each_record_ends_once"),
    "garbage_is_dropped": Mutation(
        "what makes no sense is passed over",
        [("worker/store/event_store.c", "WHERE EXISTS (SELECT FROM accepted) AND \" before \" >= 0 ORDER BY l.number)",
          "WHERE false AND \" before \" >= 0 ORDER BY l.number)")],
        ["--point", "relay.sent"], "each_record_ends_once"),
    "floor_goes_by_time": Mutation(
        "the relay's floor moves whoever is still at work",
        [("worker/events/outbox_poll.c", "return reaches_mark && reading->oldest_running_xid >= poll->mark_xid;",
          "return reaches_mark;")],
        ["--point", "deliver.answered", "--repeat", "8"], "first_occurrences_are_in_commit_order"),
    "joins_after_five_minutes": Mutation(
        "a JoinGroup that was lost is waited for as long as librdkafka likes",
        [("eventd/kafka_client.c", "#define POLL_INTERVAL_MS       30000", "#define POLL_INTERVAL_MS       300000")],
        ["--point", "outage.rejoin"], "everything_settles"),
    "eventd_knows_the_database": Mutation(
        "the database's URL is among eventd's settings",
        [("common/settings.c", 'SECRET("database.url", database.url, WORKER,', 'SECRET("database.url", database.url, WORKER | EVENTD,')],
        ["--point", "relay.sent"], "no_process_holds_the_others_secrets"),
    "published_rows_are_kept": Mutation(
        "the relay does not let go of what it has published",
        [("worker/events/outbox_row.c", "    row->message = outbox_message_free(row->message);\n", "    row->message = NULL;\n")],
        ["--point", "outage.backlog"], "memory_and_queues_stay_bounded"),
    "window_is_larger": Mutation(
        "the relay holds more rows than it may, and hardly more memory",
        [("worker/events/outbox_window.h", "#define OUTBOX_WINDOW_ROWS    6000", "#define OUTBOX_WINDOW_ROWS    9000"),
         ("worker/events/outbox_window.h", "#define OUTBOX_SHARE_ROWS          5000", "#define OUTBOX_SHARE_ROWS          8000"),
         ("worker/events/outbox_relay.c", "#define DELETE_ROWS       5000", "#define DELETE_ROWS       8000")],
        ["--point", "outage.backlog"], "memory_and_queues_stay_bounded"),
    "reads_slowly": Mutation(
        "the relay reads ten rows at a time, and pauses",
        [("worker/events/outbox_relay.c", "#define READ_ROWS         1000", "#define READ_ROWS         10"),
         ("worker/events/outbox_poll.c", "        poll->next_us = now_us;\n", "        poll->next_us = now_us + poll->interval_us;\n")],
        ["--point", "outage.backlog"], "the_outbox_empties_soon"),
    "reconnects_late": Mutation(
        "a worker waits half a minute before it tries the database again",
        [("common/retry_delay.h", "#define RETRY_DELAY_FIRST_MS 100", "#define RETRY_DELAY_FIRST_MS 30000"),
         ("common/retry_delay.h", "#define RETRY_DELAY_MAX_MS   5000", "#define RETRY_DELAY_MAX_MS   60000")],
        ["--point", "postgres.restarts"], "calls_fail_only_when_they_must"),
    "stop_waits_for_ever": Mutation(
        "neither eventd, a worker nor the master gives up waiting",
        [("eventd/main.c", "bool is_late = now >= eventd->drain_deadline_us;",
          "bool is_late = now >= eventd->drain_deadline_us + UINT64_C(3600000000);"),
         ("worker/worker_process.c", "if (is_idle || monotonic_clock_us() >= worker->drain_deadline_us) {", "if (is_idle) {"),
         ("master/child_table.c", "CLOCK_MONOTONIC, timeout_ms * 1000, TIMER", "CLOCK_MONOTONIC, timeout_ms * 100000, TIMER"),
         ("master/staffing.c", "#define DRAIN_MARGIN_MS     3000", "#define DRAIN_MARGIN_MS     300000")],
        ["--point", "stop.hung"], "stopping_meets_its_deadline"),
    "lost_is_done": Mutation(
        "a write whose connection was lost is answered OK",
        [("worker/store/user_batch.c", "    case DB_LOST:\n        answer_sent(batch, lost_outcome(batch));",
          "    case DB_LOST:\n        answer_sent(batch, USER_DONE);")],
        ["--point", "postgres.hang", "--point", "postgres.crash", "--repeat", "4"], "acknowledged_calls_are_committed"),
}


def refresh(copy):
    """Copies what differs: what is the same keeps its time, and is not built anew."""
    for path in [*SOURCE.glob("CMakeLists.txt"), *(path for room in ROOMS for path in (SOURCE / room).rglob("*") if path.is_file())]:
        target = copy / path.relative_to(SOURCE)
        if not target.exists() or target.read_bytes() != path.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
            os.utime(target)


def mutated(source, mutation):
    """Writes the edits; {path: what was there before}."""
    before = {}
    for path, old, new in mutation.edits:
        text = (source / path).read_text(encoding="utf-8")
        before.setdefault(path, text)
        if text.count(old) != 1:
            raise SystemExit(f"{path}: expected exactly once: {old}")
        (source / path).write_text(text.replace(old, new), encoding="utf-8")
    return before


def checks():
    """The names of all checks, in their order."""
    text = (SOURCE / "tests/fault/checks.py").read_text(encoding="utf-8")
    return [*re.findall(r"\w+", re.search(r"^ALL = \((.*?)^\)", text, re.DOTALL | re.MULTILINE)[1]), *ROUND_CHECKS]


def show_table(results):
    """Check by check, the breaks that it caught or is to catch."""
    for check in checks():
        for name, mutation in MUTATIONS.items():
            if mutation.expected == check and name in results:
                print(f"{check:45} {name:34} {results[name]}")


def run(name, mutation, source, build):
    """True when the suite said what it should."""
    before = mutated(source, mutation)
    try:
        built = subprocess.run(["ninja", "-C", build, "userd", "userd-worker", "userd-eventd", "embedded_broker"], check=False,
                               stdout=subprocess.PIPE, text=True)
        if built.returncode != 0:
            print(f"FAILED {name}: does not build\n{built.stdout[-3000:]}", flush=True)
            return False
        environment = dict(os.environ, USERD_TEST_BINARY_DIR=str(build), USERD_TEST_SOURCE_DIR=str(source))
        answer = subprocess.run(["/usr/bin/python3", "-B", source / "tests/fault/fault.py", "--seed", "1", *mutation.arguments],
                                check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
                                timeout=RUN_TIMEOUT_S)
    finally:
        for path, text in before.items():
            (source / path).write_text(text, encoding="utf-8")
    caught = [line.split()[1].rstrip(":") for line in answer.stdout.splitlines() if line.startswith("VIOLATED ")]
    is_right = mutation.expected in caught if mutation.expected else answer.returncode == 0
    print(f"{'ok' if is_right else 'FAILED'} {name}: {mutation.what}: caught by {', '.join(caught) or 'nothing'}", flush=True)
    for line in answer.stdout.splitlines():
        if line.startswith("    ") and not line.startswith("    logs:"):
            print(line, flush=True)
    if not is_right:
        print(answer.stdout[-4000:], flush=True)
    return is_right


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description="mutations that the fault suite must catch")
    parser.add_argument("--only", action="append", choices=MUTATIONS)
    parser.add_argument("--check", action="append", choices=checks(), help="the breaks that are for this check")
    parser.add_argument("--work", type=pathlib.Path, help="kept, with its build, for the next time")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    without = set(checks()) - {mutation.expected for mutation in MUTATIONS.values()}
    if without:
        raise SystemExit(f"no break is for {', '.join(sorted(without))}")
    if options.list:
        show_table({name: mutation.what for name, mutation in MUTATIONS.items()})
        return 0
    names = [name for name, mutation in MUTATIONS.items()
             if (not options.only and not options.check) or name in (options.only or ()) or mutation.expected in (options.check or ())]
    work = options.work or pathlib.Path(tempfile.mkdtemp(prefix="userd-mutations."))
    source, build = work / "source", work / "build"
    refresh(source)
    subprocess.run(["cmake", "-G", "Ninja", "-B", build, "-S", source, "-DUSERD_FAILPOINTS=ON", "-DUSERD_WERROR=OFF"], check=True,
                   stdout=subprocess.DEVNULL)
    results = {name: run(name, MUTATIONS[name], source, build) for name in names}
    if not options.work:
        shutil.rmtree(work, ignore_errors=True)
    show_table({name: "caught" if is_right else "NOT CAUGHT" for name, is_right in results.items()})
    print(f"{sum(results.values())} of {len(results)} as expected")
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
