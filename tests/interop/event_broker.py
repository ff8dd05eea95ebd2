"""userd with a broker that takes commands, and what a test does to the topics and the group from outside."""
import json
import os
import subprocess
import sys
import tempfile

import kafka
from kafka.structs import OffsetAndMetadata, TopicPartition

import userd_service

GROUP, REGISTRATION, ADMIN_DELETE = "user_service", "registration", "admin_delete_user"
PARTITIONS = 3
ALL = [TopicPartition(topic, number) for topic in (REGISTRATION, ADMIN_DELETE) for number in range(PARTITIONS)]


class EventService(userd_service.Service):
    """Its log is kept. Names of the group and the topics may be others."""

    def __init__(self, group=GROUP, registration=REGISTRATION, admin_delete=ADMIN_DELETE, database_settings="",
                 **options):
        super().__init__(**options)
        self.database_settings = database_settings
        self.group, self.registration, self.admin_delete = group, registration, admin_delete
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8")

    def partition(self, topic, number):
        """By our names for the topics."""
        return TopicPartition({REGISTRATION: self.registration, ADMIN_DELETE: self.admin_delete}[topic], number)

    def start_broker(self):
        """The embedded one with commands, unless a real one is named."""
        if "USERD_TEST_KAFKA" in os.environ:
            super().start_broker()
            return
        self.broker = subprocess.Popen([userd_service.BINARY / "tests/embedded_broker", "--stdin"], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True)
        self.servers = self.broker.stdout.readline().strip().partition("=")[2]

    def write_config(self):
        """With ours."""
        super().write_config()
        path = self.directory / "userd.conf"
        path.write_text(path.read_text(encoding="utf-8").replace("database = { ", "database = { " + self.database_settings),
                        encoding="utf-8")

    def stop(self):
        """With the log, where CTest looks for sanitizers' reports."""
        try:
            super().stop()
        finally:
            self.print_log()
            self.log.close()

    def print_log(self):
        """To our standard error."""
        print(self.log_text(), file=sys.stderr)

    def end_userd(self):
        """In order."""
        status = self.end(self.master)
        self.master = None
        self.print_log()
        assert status == 0, f"userd ended with {status}"

    def start_again(self):
        """With a new log."""
        self.log.close()
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8")
        self.start_userd()

    def replace_broker(self):
        """With an empty one, which calls itself the same cluster: the embedded broker has another id every time, so that what
        is stored is renamed. Only while userd does not run."""
        self.end(self.broker)
        self.broker.stdout.close()
        self.start_broker()
        self.write_config()
        admin = kafka.KafkaAdminClient(bootstrap_servers=self.servers)
        cluster = admin.describe_cluster()["cluster_id"]
        admin.close()
        self.sql(f"UPDATE consumed_offset SET cluster = '{cluster}'")

    def tell_broker(self, command):
        """One of the commands of tests/tools/embedded_broker.c."""
        self.broker.stdin.write(command + "\n")
        self.broker.stdin.flush()
        answer = self.broker.stdout.readline()
        assert answer == "ok\n", (command, answer)

    def send(self, topic, number, *events):
        """Appends to one partition."""
        producer = kafka.KafkaProducer(bootstrap_servers=self.servers, acks="all")
        for event in events:
            producer.send(self.partition(topic, number).topic, json.dumps(event).encode(), partition=number)
        producer.flush()
        producer.close()

    def register(self, number, *ids):
        """User N is called userN."""
        self.send(REGISTRATION, number, *({"id": one, "username": f"user{one}"} for one in ids))

    def commit(self, offsets, metadata=""):
        """{partition: offset}, as the one member of the group; userd must have left it."""
        consumer = kafka.KafkaConsumer(self.registration, self.admin_delete, bootstrap_servers=self.servers, group_id=self.group,
                                       enable_auto_commit=False, session_timeout_ms=6000, max_poll_records=1)

        def try_to_commit():
            """False while the group is still being put together."""
            if not (consumer.poll(timeout_ms=100) or consumer.assignment()):
                return False
            try:
                consumer.commit({one: OffsetAndMetadata(offset, metadata) for one, offset in offsets.items()})
            except kafka.errors.CommitFailedError:
                return False
            return True

        userd_service.wait_for(try_to_commit, "the member has partitions and commits")
        consumer.close()

    def committed(self, partition):
        """(offset, metadata) or None."""
        consumer = kafka.KafkaConsumer(bootstrap_servers=self.servers, group_id=self.group, enable_auto_commit=False)
        found = consumer.committed(partition, metadata=True)
        consumer.close()
        return found

    def positions(self):
        """{partition: next_offset} of what is stored."""
        rows = self.sql("SELECT topic, partition, next_offset FROM consumed_offset").split()
        return {TopicPartition(topic, int(number)): int(offset) for topic, number, offset in (row.split("|") for row in rows)}

    def users(self):
        """Their ids."""
        return set(map(int, self.sql('SELECT id_auth FROM "user"').split()))

    def then_users_become(self, expected):
        """In time."""
        userd_service.wait_for(lambda: self.users() == set(expected), f"users {sorted(expected)}, there are {sorted(self.users())}")

    def then_positions_become(self, expected):
        """In time; {partition: offset}, of which others may have some too."""
        userd_service.wait_for(lambda: expected.items() <= self.positions().items(), f"positions {expected}, are {self.positions()}")

    def then_log_says(self, text, count=1):
        """So many lines, in time."""
        userd_service.wait_for(lambda: self.count_lines(text) >= count, f"{count} lines with {text!r}")

    def count_lines(self, text):
        """Of the log, since the last start."""
        return sum(text in line for line in self.log_text().splitlines())

    def log_text(self):
        """Since the last start."""
        return os.pread(self.log.fileno(), 1 << 26, 0).decode()

    def then_userd_has_committed(self, partition, offset):
        """With its note."""
        note = f"userd/1 database={self.sql('SELECT id FROM database_identity')} position={offset}"
        userd_service.wait_for(lambda: self.committed(partition) == (offset, note), f"{partition} is committed up to {offset}")

    def eventd(self, name):
        """A figure of `userd status`."""
        return self.status()["eventd"][name]
