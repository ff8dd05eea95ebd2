"""What really happened, from two sources that the service does not write: an audit that triggers fill in the transactions
themselves, and an independent reader of all topics. Beside them a watcher and a gauge of what is true only in passing: how far
Kafka's commits are, how much memory is used and how many rows are held."""
import collections
import pathlib
import re
import subprocess
import threading
import time

import kafka
import psycopg2

CONSUMED = ("registration", "admin_delete_user")
PUBLISHED = ("delete", "user_service.dead_letter")
PARTITIONS = 3
GROUP = "user_service"
WINDOW_LOOKS = 4

# The sequence is drawn in a row trigger: while the transaction holds the row's lock, so that for each row it has the order of
# the commits.
SCHEMA = """
CREATE SCHEMA oracle;
CREATE SEQUENCE oracle.seq;
CREATE TABLE oracle.counters (id_auth integer PRIMARY KEY, n integer NOT NULL);
CREATE TABLE oracle.users (seq bigint DEFAULT nextval('oracle.seq') PRIMARY KEY, at timestamptz DEFAULT clock_timestamp(),
    writer text DEFAULT current_setting('application_name'), txid bigint DEFAULT txid_current(),
    operation text, id_auth integer, username text);
CREATE TABLE oracle.events (seq bigint DEFAULT nextval('oracle.seq') PRIMARY KEY, at timestamptz DEFAULT clock_timestamp(),
    txid bigint DEFAULT txid_current(), outbox_id bigint, destination integer, id_auth integer, key bytea, value bytea,
    event_id uuid, header_names text[], header_values bytea[]);
CREATE INDEX ON oracle.events (event_id);
CREATE TABLE oracle.positions (seq bigint DEFAULT nextval('oracle.seq') PRIMARY KEY, at timestamptz DEFAULT clock_timestamp(),
    txid bigint DEFAULT txid_current(), topic text, partition integer, before bigint, after bigint);
CREATE FUNCTION oracle.on_user() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO oracle.users (operation, id_auth, username)
    VALUES (TG_OP, coalesce(NEW.id_auth, OLD.id_auth), coalesce(NEW.username, OLD.username));
    RETURN NULL;
END $$;
CREATE TRIGGER oracle AFTER INSERT OR UPDATE OR DELETE ON "user" FOR EACH ROW EXECUTE FUNCTION oracle.on_user();
CREATE FUNCTION oracle.on_outbox() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO oracle.events (outbox_id, destination, id_auth, key, value, event_id, header_names, header_values)
    VALUES (NEW.id, NEW.destination, NEW.id_auth, NEW.key, NEW.value, NEW.event_id, NEW.header_names, NEW.header_values);
    RETURN NULL;
END $$;
CREATE TRIGGER oracle AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION oracle.on_outbox();
CREATE FUNCTION oracle.on_position() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO oracle.positions (topic, partition, before, after)
    VALUES (NEW.topic, NEW.partition, CASE WHEN TG_OP = 'UPDATE' THEN OLD.next_offset END, NEW.next_offset);
    RETURN NULL;
END $$;
CREATE TRIGGER oracle AFTER INSERT OR UPDATE ON consumed_offset FOR EACH ROW EXECUTE FUNCTION oracle.on_position();
"""

Record = collections.namedtuple("Record", "topic partition offset key value headers")
UserRow = collections.namedtuple("UserRow", "seq txid operation id_auth username")
EventRow = collections.namedtuple("EventRow", "seq txid outbox_id destination id_auth key value event_id headers")
Move = collections.namedtuple("Move", "seq txid topic partition before after")


def all_partitions(topics):
    """Of all of them."""
    return [kafka.TopicPartition(topic, partition) for topic in topics for partition in range(PARTITIONS)]


class Database:
    """A connection that comes back by itself; what it is asked is asked again until it is answered."""

    def __init__(self, url):
        self.url = url
        self.connection = None

    def query(self, sql, parameters=None, timeout_s=60):
        """All rows."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if self.connection is None:
                    self.connection = psycopg2.connect(self.url, connect_timeout=5, application_name="oracle")
                    self.connection.autocommit = True
                with self.connection.cursor() as cursor:
                    cursor.execute(sql, parameters)
                    return cursor.fetchall() if cursor.description else []
            except psycopg2.OperationalError:
                self.connection = None
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def close(self):
        """For good."""
        if self.connection is not None:
            self.connection.close()


class Reader(threading.Thread):
    """Reads every record of every topic once, from the first on. A published record is looked up in the audit at once: its
    transaction must be committed before it is in the log."""

    def __init__(self, servers, admin_url):
        super().__init__(daemon=True)
        self.consumer = kafka.KafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest", enable_auto_commit=False,
                                            fetch_max_wait_ms=20, reconnect_backoff_max_ms=300, request_timeout_ms=15000,
                                            session_timeout_ms=10000, consumer_timeout_ms=float("inf"))
        self.partitions = all_partitions(CONSUMED + PUBLISHED)
        self.consumer.assign(self.partitions)
        self.database = Database(admin_url)
        self.lock = threading.Lock()
        self.records = []
        self.next_offsets = {partition: 0 for partition in self.partitions}
        self.too_early = []  # published records that were not committed when they were read
        self.failure = None
        self.is_stopping = False

    def look_up(self, records):
        """Which of them no committed transaction has written."""
        ids = {header[1].decode(): record for record in records for header in record.headers if header[0] == "ce_id"}
        if not ids:
            return
        known = self.database.query("SELECT event_id::text FROM oracle.events WHERE event_id = ANY(%s::uuid[])", (list(ids),))
        self.too_early += [ids[event_id] for event_id in set(ids) - {row[0] for row in known}]

    def run(self):
        try:
            while not self.is_stopping:
                fetched = []
                for partition, batch in self.consumer.poll(timeout_ms=50).items():
                    fetched += [Record(partition.topic, partition.partition, record.offset, record.key, record.value,
                                       tuple(record.headers)) for record in batch]
                self.look_up([record for record in fetched if record.topic == PUBLISHED[0]])
                with self.lock:
                    self.records += fetched
                    for partition in self.partitions:
                        self.next_offsets[partition] = self.consumer.position(partition)
        except Exception as error:  # pylint: disable=broad-except
            self.failure = repr(error)

    def has_read(self, ends):
        """Everything below these offsets."""
        with self.lock:
            return all(self.next_offsets[partition] >= end for partition, end in ends.items())

    def stop(self):
        """Ends the thread."""
        self.is_stopping = True
        self.join(30)
        self.database.close()


class Watcher(threading.Thread):
    """Looks often."""

    def __init__(self, stand):
        super().__init__(daemon=True)
        self.stand = stand
        self.database = Database(stand.admin_url)
        self.consumer = kafka.KafkaConsumer(bootstrap_servers=stand.servers, group_id=GROUP, enable_auto_commit=False,
                                            reconnect_backoff_max_ms=300, request_timeout_ms=15000, session_timeout_ms=10000)
        self.partitions = all_partitions(CONSUMED)
        self.commits_ahead = []   # (topic, partition, committed, applied) that must never be
        self.tombstoned = []      # ids of users that were there beside their tombstone
        self.looks = 0
        self.failure = None
        self.is_stopping = False

    def committed(self):
        """{partition: offset} of those that have one."""
        found = {partition: self.consumer.committed(partition) for partition in self.partitions}
        return {partition: offset for partition, offset in found.items() if offset is not None}

    def applied(self):
        """{partition: next offset} of PostgreSQL."""
        rows = self.database.query("SELECT topic, partition, next_offset FROM consumed_offset")
        return {kafka.TopicPartition(topic, partition): offset for topic, partition, offset in rows}

    def look_at_commits(self):
        """Kafka first: what is applied only grows."""
        committed = self.committed()
        applied = self.applied()
        for partition, offset in committed.items():
            if offset > applied.get(partition, 0):
                self.commits_ahead.append((partition.topic, partition.partition, offset, applied.get(partition, 0)))

    def run(self):
        try:
            while not self.is_stopping:
                try:
                    self.look_at_commits()
                except kafka.errors.KafkaError:
                    pass
                self.tombstoned += self.database.query('SELECT id_auth FROM "user" JOIN user_tombstone USING (id_auth)')
                self.looks += 1
                time.sleep(0.2)
        except Exception as error:  # pylint: disable=broad-except
            self.failure = repr(error)

    def stop(self):
        """Ends the thread."""
        self.is_stopping = True
        self.join(30)
        self.database.close()


class Gauge(threading.Thread):
    """What the processes hold; asks nobody who may be hung or away."""

    def __init__(self, stand):
        super().__init__(daemon=True)
        self.stand = stand
        self.most_kib = collections.Counter()  # program: resident memory
        self.first_kib = {}       # the same, when work began
        self.most_rows = 0        # that a relay knew at once, as the scoreboard says
        self.failure = None
        self.is_stopping = False

    def look_at_memory(self):
        """Of all processes of both instances."""
        for instance in (self.stand.main, self.stand.second):
            for program in ("userd-worker", "userd-eventd"):
                for pid in instance.pids(program) if instance.is_running() else []:
                    try:
                        status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
                    except OSError:
                        continue
                    kib = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")]
                    self.most_kib[program] = max(self.most_kib[program], *kib, 0)

    def look_at_window(self):
        """What the service says about itself; while its master is stopped it says nothing."""
        try:
            said = subprocess.run([self.stand.program, "metrics", "-c", self.stand.directory / "run.conf"], check=True, timeout=2,
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        except subprocess.SubprocessError:
            return
        self.most_rows = max(self.most_rows, *map(int, re.findall(r"^userd_outbox_held\{.*\} (\d+)$", said, re.MULTILINE)), 0)

    def run(self):
        try:
            looks = 0
            while not self.is_stopping:
                self.look_at_memory()
                # A process each time: not at every look.
                if looks % WINDOW_LOOKS == 0:
                    self.look_at_window()
                looks += 1
                time.sleep(0.2)
        except Exception as error:  # pylint: disable=broad-except
            self.failure = repr(error)

    def stop(self):
        """Ends the thread."""
        self.is_stopping = True
        self.join(30)


class Oracle:
    """All of it for one stand."""

    def __init__(self, stand):
        self.database = Database(stand.admin_url)
        self.database.query(SCHEMA)
        self.reader = Reader(stand.servers, stand.admin_url)
        self.watcher = Watcher(stand)
        self.gauge = Gauge(stand)
        self.probe = kafka.KafkaConsumer(bootstrap_servers=stand.servers, group_id=GROUP, enable_auto_commit=False,
                                         reconnect_backoff_max_ms=300, request_timeout_ms=15000, session_timeout_ms=10000)
        self.reader.start()
        self.watcher.start()
        self.gauge.start()

    def unsettled(self):
        """What still keeps everything from being at rest; "" when nothing does."""
        try:
            ends = self.probe.end_offsets(all_partitions(CONSUMED))
            applied = self.watcher_positions()
            for partition, end in ends.items():
                if applied.get(partition, 0) != end:
                    return f"{partition.topic}-{partition.partition} is applied to {applied.get(partition, 0)} of {end}"
                committed = self.probe.committed(partition) or 0
                if committed != end:
                    return f"{partition.topic}-{partition.partition} is committed to {committed} of {end}"
            rows = self.database.query("SELECT count(*) FROM outbox")[0][0]
            if rows:
                return f"the outbox has {rows} rows"
            ends = self.probe.end_offsets(all_partitions(CONSUMED + PUBLISHED))
        except kafka.errors.KafkaError as error:
            return f"Kafka does not answer: {error!r}"
        return "" if self.reader.has_read(ends) else "our own reader has not read everything"

    def watcher_positions(self):
        """{partition: next offset} of PostgreSQL, by our own connection."""
        rows = self.database.query("SELECT topic, partition, next_offset FROM consumed_offset")
        return {kafka.TopicPartition(topic, partition): offset for topic, partition, offset in rows}

    def users(self):
        """The audit of "user", in order."""
        sql = "SELECT seq, txid, operation, id_auth, username FROM oracle.users ORDER BY seq"
        return [UserRow(*row) for row in self.database.query(sql)]

    def events(self):
        """The audit of the outbox, in order."""
        sql = ("SELECT seq, txid, outbox_id, destination, id_auth, key, value, event_id::text, header_names, header_values"
               " FROM oracle.events ORDER BY seq")

        def event(row):
            headers = tuple((name, None if value is None else bytes(value)) for name, value in zip(row[8], row[9]))
            return EventRow(*row[:5], None if row[5] is None else bytes(row[5]), None if row[6] is None else bytes(row[6]),
                            row[7], headers)
        return [event(row) for row in self.database.query(sql)]

    def moves(self):
        """The audit of the positions, in order."""
        sql = "SELECT seq, txid, topic, partition, before, after FROM oracle.positions ORDER BY seq"
        return [Move(*row) for row in self.database.query(sql)]

    def ids(self, table):
        """id_auth of "user" or user_tombstone."""
        return {row[0] for row in self.database.query(f'SELECT id_auth FROM {table}')}

    def close(self):
        """Ends the threads."""
        self.reader.stop()
        self.watcher.stop()
        self.gauge.stop()
        self.database.close()
