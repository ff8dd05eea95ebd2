"""The twelve invariants, each a function: Evidence in, complaints out. The first line of each docstring is the invariant."""
import collections
import json

import load
import oracle
import replay_fault
import userd_service

COMPLAINTS_MAX = 5
# The relay's window, OUTBOX_WINDOW_ROWS. Said here again: a bound that is changed is a decision.
WINDOW_ROWS_MAX = 6000
# After an outage, with tens of thousands of rows: a second or three, and ten times that on a machine that is busy with other things.
EMPTY_MAX_S = 30
# Above what a process has when it has begun to work. The relay's window is bounded by 8 MiB of messages.
GROWTH_MAX_KIB = 12 * 1024


class Evidence:
    """Everything that is known at a moment at which nothing moves."""

    def __init__(self, stand, source, work, unsettled):
        self.stand = stand
        self.load = work
        self.reader = source.reader
        self.watcher = source.watcher
        self.gauge = source.gauge
        self.unsettled = unsettled
        self.users = source.users()
        self.events = source.events()
        self.moves = source.moves()
        self.living = source.ids('"user"')
        self.tombstones = source.ids("user_tombstone")
        self.parked = source.ids("outbox_parked")
        self.event_of_id = {event.event_id: event for event in self.events}
        with source.reader.lock:
            records = list(source.reader.records)
        self.records = {topic: [record for record in records if record.topic == topic]
                        for topic in oracle.CONSUMED + oracle.PUBLISHED}

    def occurrences(self):
        """{identity: [records]} of what is published, in the order of the log (a key has one partition)."""
        found = collections.defaultdict(list)
        for topic in oracle.PUBLISHED:
            for record in sorted(self.records[topic], key=lambda one: (one.partition, one.offset)):
                found[identity(topic, record.headers)].append(record)
        return found


def identity(topic, headers):
    """What makes a published event the one that it is: its ce_id, or where its record was read."""
    values = {name: value.decode() for name, value in headers if value is not None}
    if topic == oracle.PUBLISHED[0]:
        return values.get("ce_id")
    return tuple(values.get(f"dlq-original-{what}") for what in ("topic", "partition", "offset"))


def identity_of_event(event):
    """The same for a row of the audit."""
    return event.event_id if event.destination == 1 else identity(oracle.PUBLISHED[1], event.headers)


def is_garbage(record):
    """Whether nobody could apply it."""
    return record.value is None or record.value in load.GARBAGE


def id_of(record):
    """Of a record that is no garbage."""
    return json.loads(record.value)["id"]


def every_committed_event_is_in_the_log(evidence):
    """1. every committed event is in the log at least once"""
    occurrences = evidence.occurrences()
    for event in evidence.events:
        if identity_of_event(event) not in occurrences:
            yield f"outbox row {event.outbox_id} event {identity_of_event(event)} is committed and was never published"
    removed = [row for row in evidence.users if row.operation == "DELETE"]
    told = {event.id_auth for event in evidence.events if event.destination == 1}
    for row in removed:
        if row.id_auth not in told:
            yield f"user {row.id_auth} was removed and no event tells of it"


def nothing_in_the_log_was_not_committed(evidence):
    """2. nothing in the log was not committed"""
    committed = {identity_of_event(event) for event in evidence.events}
    for known, records in evidence.occurrences().items():
        if known not in committed:
            yield f"{records[0].topic}-{records[0].partition} offset {records[0].offset} event {known} was never committed"
    for record in evidence.reader.too_early:
        yield f"{record.topic}-{record.partition} offset {record.offset} was in the log before its transaction was committed"


def first_occurrences_are_in_commit_order(evidence):
    """3. per key first occurrences are in commit order"""
    committed = collections.defaultdict(list)
    for event in evidence.events:
        if event.destination == 1:
            committed[event.key].append(event.event_id)
    published = collections.defaultdict(dict)
    places = collections.defaultdict(set)
    for record in sorted(evidence.records[oracle.PUBLISHED[0]], key=lambda one: (one.partition, one.offset)):
        published[record.key].setdefault(identity(record.topic, record.headers), record.offset)
        places[record.key].add(record.partition)
    for key, ids in committed.items():
        order = [event_id for event_id in published[key] if event_id in set(ids)]
        expected = [event_id for event_id in ids if event_id in published[key]]
        if order != expected:
            at = next(i for i, pair in enumerate(zip(order, expected)) if pair[0] != pair[1])
            yield f"key {key.decode()}: number {at + 1} in the log is {order[at]}, committed as number " \
                  f"{expected.index(order[at]) + 1}"
        if len(places[key]) > 1:
            yield f"key {key.decode()} is in partitions {sorted(places[key])}"


def repeats_carry_the_same_id(evidence):
    """4. repeats carry the same ce_id"""
    by_content = collections.defaultdict(set)
    for event in evidence.events:
        if event.destination == 1:
            by_content[(event.key, event.value)].add(event.event_id)
    seen = collections.defaultdict(set)
    for known, records in evidence.occurrences().items():
        if len({(record.key, record.value, record.headers) for record in records}) > 1:
            yield f"event {known} has repeats that differ"
        if records[0].topic == oracle.PUBLISHED[0]:
            seen[(records[0].key, records[0].value)].add(known)
    for content, ids in seen.items():
        if len(ids) > max(1, len(by_content[content])):
            yield f"key {content[0]} value {content[1]} is in the log with {len(ids)} ids"


def kafkas_commit_never_passes_what_is_applied(evidence):
    """5. Kafka's commit never passes what is applied"""
    for topic, partition, committed, applied in evidence.watcher.commits_ahead:
        yield f"{topic}-{partition} was committed to {committed} when {applied} was applied"


def moves_by_transaction(evidence):
    """{(txid, topic): [moves]}."""
    found = collections.defaultdict(list)
    for move in evidence.moves:
        found[(move.txid, move.topic)].append(move)
    return found


def covers(moves, offsets_by_partition):
    """Whether one of the moves passes one of the offsets."""
    return any((move.before or 0) <= offset < move.after
               for move in moves for offset in offsets_by_partition.get(move.partition, ()))


def offsets_of_ids(records):
    """{id: {partition: [offsets]}} of records that make sense."""
    found = collections.defaultdict(lambda: collections.defaultdict(list))
    for record in records:
        if not is_garbage(record):
            found[id_of(record)][record.partition].append(record.offset)
    return found


def one_effect_per_record(evidence):
    """6. one effect per record, one `delete` per removed user"""
    moves = moves_by_transaction(evidence)
    registered = offsets_of_ids(evidence.records["registration"])
    removed_by_event = offsets_of_ids(evidence.records["admin_delete_user"])
    counts = collections.Counter((row.operation, row.id_auth) for row in evidence.users)
    told = collections.defaultdict(list)
    for event in evidence.events:
        if event.destination == 1:
            told[event.id_auth].append(event)
    for row in evidence.users:
        if row.operation == "INSERT" and not covers(moves[(row.txid, "registration")], registered.get(row.id_auth, {})):
            yield f"user {row.id_auth} was made by a transaction that passed no registration of it"
        if row.operation == "DELETE":
            if [event.txid for event in told[row.id_auth]] != [row.txid]:
                yield f"user {row.id_auth} was removed and has {len(told[row.id_auth])} delete events, expected 1 in its transaction"
            is_by_event = covers(moves[(row.txid, "admin_delete_user")], removed_by_event.get(row.id_auth, {}))
            if not is_by_event and row.id_auth not in evidence.load.asked_to_delete:
                yield f"user {row.id_auth} was removed and nobody asked for it"
        if row.operation == "UPDATE" and row.username != load.new_name(row.id_auth):
            yield f"user {row.id_auth} was renamed to \"{row.username}\" and nobody asked for it"
    for (operation, auth_id), count in counts.items():
        if operation in ("INSERT", "DELETE") and count > 1:
            yield f"user {auth_id}: {count} times {operation}"
    for auth_id, events in told.items():
        # The other writers of the outbox write of nobody.
        is_ours = auth_id % load.IDS_PER_ROUND < load.USERS
        if is_ours and counts[("DELETE", auth_id)] == 0:
            yield f"user {auth_id} has {len(events)} delete events and was never removed"


def no_user_is_tombstoned(evidence):
    """7. no user exists whose id is tombstoned"""
    for auth_id in evidence.living & evidence.tombstones:
        yield f"user {auth_id} exists and is tombstoned"
    for row in evidence.watcher.tombstoned:
        yield f"user {row[0]} existed beside its tombstone for a while"
    gone = {row.id_auth for row in evidence.users if row.operation == "DELETE"}
    gone |= set(offsets_of_ids(evidence.records["admin_delete_user"]))
    for auth_id in sorted(gone & evidence.living):
        yield f"user {auth_id} exists, and was deleted"
    for auth_id in sorted(gone - evidence.tombstones):
        yield f"user {auth_id} was deleted and has no tombstone"


def each_record_ends_once(evidence):
    """8. each record ends as exactly one of applied, no-op, dead letter"""
    letters = collections.Counter(identity_of_event(event) for event in evidence.events if event.destination == 2)
    killers = {identity_of_event(event) for event in evidence.events
               if any(value and b"ended its worker" in value for name, value in event.headers if name == "dlq-error")}
    moves = moves_by_transaction(evidence)
    for event in evidence.events:
        if event.destination != 2:
            continue
        topic, partition, offset = identity_of_event(event)
        if int(offset) >= replay_fault.FIRST_OFFSET:
            continue  # written by ReplayFault
        if not covers(moves[(event.txid, topic)], {int(partition): [int(offset)]}):
            yield f"the dead letter of {topic}-{partition} offset {offset} was not written with its position"
    for topic in oracle.CONSUMED:
        for record in evidence.records[topic]:
            known = (topic, str(record.partition), str(record.offset))
            expected = 1 if is_garbage(record) or known in killers else 0
            if letters[known] != expected:
                yield f"{topic}-{record.partition} offset {record.offset} has {letters[known]} dead letters, expected {expected}"
    yield from positions_are_a_chain(evidence)
    yield from registrations_are_applied(evidence, killers)


def positions_are_a_chain(evidence):
    """Every offset is passed by exactly one transaction; one that passes none stores where a partition is."""
    at = {}
    for move in evidence.moves:
        place = (move.topic, move.partition)
        begin = move.before if move.before is not None else 0
        if begin != at.get(place, 0) or move.after < begin:
            yield f"{move.topic}-{move.partition} was moved from {begin} to {move.after} when it was at {at.get(place, 0)}"
        at[place] = move.after


def registrations_are_applied(evidence, killers):
    """An id that was registered is a user once, unless its tombstone was there first."""
    made = {row.id_auth: row for row in evidence.users if row.operation == "INSERT"}
    names = collections.defaultdict(set)
    for record in evidence.records["registration"]:
        if not is_garbage(record) and ("registration", str(record.partition), str(record.offset)) not in killers:
            names[id_of(record)].add(json.loads(record.value)["username"])
    deleted = set(offsets_of_ids(evidence.records["admin_delete_user"]))
    for auth_id, known in names.items():
        if auth_id not in made and auth_id not in deleted:
            yield f"user {auth_id} was registered and never made"
        if auth_id in made and made[auth_id].username not in known:
            yield f"user {auth_id} was made as \"{made[auth_id].username}\", which no registration says"


def everything_settles(evidence):
    """9. after the faults stop the outbox empties and the lag goes to 0"""
    if evidence.unsettled:
        yield evidence.unsettled
    for auth_id in evidence.parked:
        yield f"an outbox row about {auth_id} was parked"


def no_process_holds_the_others_secrets(evidence):
    """10. no worker holds a Kafka secret, eventd no database secret"""
    password = evidence.stand.database_password.encode()
    servers = evidence.stand.servers.encode()
    workers = evidence.stand.main.pids("userd-worker")
    eventds = evidence.stand.main.pids("userd-eventd")
    if workers and not any(userd_service.memory_holds(pid, password) for pid in workers):
        yield "no worker has the database's password in memory: this check looks at the wrong place"
    for pid in eventds:
        if userd_service.memory_holds(pid, password):
            yield "eventd has the database's password in memory"
    for pid in workers:
        if userd_service.memory_holds(pid, servers):
            yield "a worker has the broker's address in memory"


def memory_and_queues_stay_bounded(evidence):
    """11. memory and queues stay bounded"""
    for program, kib in evidence.gauge.most_kib.items():
        most = evidence.gauge.first_kib.get(program, kib) + GROWTH_MAX_KIB
        if kib > most:
            yield f"{program} used {kib} KiB, expected at most {most}"
    if evidence.gauge.most_rows > WINDOW_ROWS_MAX:
        yield f"a relay held {evidence.gauge.most_rows} rows at once, expected at most {WINDOW_ROWS_MAX}"


def stopping_meets_its_deadline(evidence):
    """12. stopping meets its deadline with a hung broker and a hung database"""
    for what, status, seconds, deadline_s in evidence.stand.stops:
        if status is None or seconds > deadline_s:
            yield f"stopping {what} took {seconds:.1f} s, expected at most {deadline_s:.1f}"


def acknowledged_calls_are_committed(evidence):
    """beside them: what a client was told is committed; no call fails in an odd way; our own peers worked"""
    deleted = {row.id_auth for row in evidence.users if row.operation == "DELETE"}
    renamed = {(row.id_auth, row.username) for row in evidence.users if row.operation == "UPDATE"}
    for kind, *arguments in evidence.load.answered:
        if kind == "delete" and arguments[0] not in deleted:
            yield f"DeleteUser {arguments[0]} was answered OK and is not committed"
        if kind == "rename" and tuple(arguments) not in renamed:
            yield f"UserUpdate {arguments[0]} was answered OK and is not committed"
    for answer in evidence.load.odd:
        yield f"odd answer: {answer}"
    for failure in (*evidence.load.failures, evidence.reader.failure, evidence.watcher.failure, evidence.gauge.failure):
        if failure:
            yield f"a peer of the test failed: {failure}"


def the_outbox_empties_soon(evidence):
    """beside them: seconds after an outage the outbox is empty"""
    for what, rows, seconds in evidence.stand.drains:
        if seconds > EMPTY_MAX_S:
            yield f"{what}: {rows} rows took {seconds:.1f} s, expected at most {EMPTY_MAX_S}"


ALL = (
    every_committed_event_is_in_the_log, nothing_in_the_log_was_not_committed, first_occurrences_are_in_commit_order,
    repeats_carry_the_same_id, kafkas_commit_never_passes_what_is_applied, one_effect_per_record, no_user_is_tombstoned,
    each_record_ends_once, everything_settles, no_process_holds_the_others_secrets, memory_and_queues_stay_bounded,
    stopping_meets_its_deadline, acknowledged_calls_are_committed,
    the_outbox_empties_soon,
)


def run_all(evidence):
    """{name: complaints} of the checks that fail."""
    found = {}
    for check in ALL:
        complaints = list(check(evidence))
        if complaints:
            found[check.__name__] = complaints
    return found
