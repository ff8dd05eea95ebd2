"""A real Apache Kafka under a fault run, of one node or of three: which of them leads, and what is done to them. It is started, killed
and revived by tests/tools/apache_kafka."""
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import time

import kafka.admin
import kafka.errors

import userd_service

TOOL = userd_service.SOURCE / "tests/tools/apache_kafka"
IN_SYNC_TIMEOUT_S = 90
ANSWER_TIMEOUT_S = 20
KEY_ELECT_LEADERS = 43
KEY_ALTER_PARTITION_REASSIGNMENTS = 45
ERROR_NONE = 0
ERROR_ELECTION_NOT_NEEDED = 84


def compact(items):
    """A compact array of bytes (KIP-482): its length and one, then the items. All of ours are shorter than 127."""
    return bytes([len(items) + 1]) + b"".join(items)


def compact_text(text):
    """A compact string."""
    return bytes([len(text) + 1]) + text.encode()


class Cluster:
    """What a handle of tests/tools/apache_kafka describes."""

    def __init__(self, handle, nodes):
        self.handle = pathlib.Path(handle)
        self.nodes = list(range(1, nodes + 1))

    def tool(self, action, *words):
        """Runs the tool, which must work."""
        subprocess.run([TOOL, action, self.handle, *map(str, words)], check=True)

    def value(self, name):
        """Of the handle."""
        return userd_service.read_handle(self.handle)[name]

    def start(self):
        """All nodes; the bootstrap servers."""
        self.tool("start", "--nodes", len(self.nodes))
        return self.value("bootstrap.servers")

    def stop(self):
        """Whatever is left of it."""
        if self.handle.exists():
            self.hang(False)
            subprocess.run([TOOL, "stop", self.handle], check=False)

    def kill(self, *nodes):
        """kill -9; all of them, or those that are named."""
        self.tool("kill", *nodes)

    def end(self, *nodes):
        """SIGTERM: leaders move away first."""
        self.tool("end", *nodes)

    def revive(self, *nodes):
        """Started again, on its data."""
        self.tool("revive", *nodes)

    def hang(self, is_hung, *nodes):
        """SIGSTOP, or SIGCONT."""
        for node in nodes or self.nodes:
            try:
                os.kill(int(self.value(f"pid.{node}")), signal.SIGSTOP if is_hung else signal.SIGCONT)
            except (KeyError, ProcessLookupError):
                pass

    # ---- who leads

    def describe(self, topics):
        """{(topic, partition): (leader, replicas, in sync)}."""
        admin = kafka.admin.KafkaAdminClient(bootstrap_servers=self.value("bootstrap.servers").split(","))
        try:
            return {(topic["topic"], one["partition"]): (one["leader"], one["replicas"], one["isr"])
                    for topic in admin.describe_topics(list(topics)) for one in topic["partitions"]}
        finally:
            admin.close()

    def wait(self, condition, what):
        """Asks until it is so: while nodes come and go, asking itself fails."""
        deadline = time.monotonic() + IN_SYNC_TIMEOUT_S
        while True:
            try:
                found = condition()
                if found:
                    return found
            except (kafka.errors.KafkaError, OSError, AssertionError):
                pass
            if time.monotonic() > deadline:
                raise AssertionError(f"not in time: {what}")
            time.sleep(0.2)

    def leader(self, topic, partition):
        """The node."""
        return self.wait(lambda: max(0, self.describe([topic])[(topic, partition)][0]), f"a leader of {topic}-{partition}")

    def controller(self):
        """The node that leads the controllers, as the nodes themselves have written it down."""
        found = (0, 0)
        for path in pathlib.Path(self.value("directory")).glob("node-*/logs/__cluster_metadata-0/quorum-state"):
            state = json.loads(path.read_text(encoding="utf-8"))
            found = max(found, (state["leaderEpoch"], state["leaderId"]))
        return found[1]

    def servers(self):
        """(host, port) of each node."""
        return [(host, int(port)) for host, port in
                (server.rsplit(":", 1) for server in self.value("bootstrap.servers").split(","))]

    def is_listening(self):
        """Every node. Raises where one is not."""
        for server in self.servers():
            socket.create_connection(server, ANSWER_TIMEOUT_S).close()
        return True

    def wait_until_in_sync(self, topics):
        """Every replica of every partition has all there is. That a node is gone the others only know after a time: it is asked
        first whether it is back."""
        self.wait(self.is_listening, "all nodes")
        self.wait(lambda: all(leader > 0 and len(in_sync) == len(replicas)
                              for leader, replicas, in_sync in self.describe(topics).values()), "all replicas in sync")

    # ---- leaders that move while every node lives: two requests that Debian's client does not know

    def ask(self, api_key, version, body):
        """One request with a flexible header; what follows the answer's header and throttle time."""
        request = struct.pack(">hhih", api_key, version, 1, -1) + b"\0" + body
        with socket.create_connection(self.servers()[0], ANSWER_TIMEOUT_S) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            stream = connection.makefile("rb")
            length = struct.unpack(">i", stream.read(4))[0]
            return stream.read(length)[4 + 1 + 4:]

    def elect(self, topic):
        """Every partition of the topic gets its next replica as its leader."""
        places = self.describe([topic])
        partitions = [struct.pack(">i", partition) + compact([struct.pack(">i", one) for one in replicas[1:] + replicas[:1]]) + b"\0"
                      for (_, partition), (_, replicas, _) in places.items()]
        timeout = struct.pack(">i", ANSWER_TIMEOUT_S * 1000)
        answer = self.ask(KEY_ALTER_PARTITION_REASSIGNMENTS, 0,
                          timeout + compact([compact_text(topic) + compact(partitions) + b"\0"]) + b"\0")
        assert struct.unpack_from(">h", answer)[0] == ERROR_NONE, answer
        answer = self.ask(KEY_ELECT_LEADERS, 2, b"\0" + compact(
            [compact_text(topic) + compact([struct.pack(">i", partition) for _, partition in places]) + b"\0"]) + timeout + b"\0")
        assert struct.unpack_from(">h", answer)[0] in (ERROR_NONE, ERROR_ELECTION_NOT_NEEDED), answer
        return places
