#!/usr/bin/python3
"""embedded_broker goes on when a member of a group drops its connection while the answer to its JoinGroup is outstanding, and joins again
on another one: librdkafka's mock cluster aborted.

    embedded_broker_test.py EMBEDDED_BROKER
"""
import socket
import struct
import subprocess
import sys
import unittest

TIMEOUT_S = 30
SESSION_MS = 4000
JOIN_GROUP, HEARTBEAT, SYNC_GROUP = 11, 12, 14


def text(value):
    return struct.pack(">h", len(value)) + value.encode()


def data(value):
    return struct.pack(">i", len(value)) + value


class Member:
    """One connection of a member; requests are sent without waiting for their answers."""

    def __init__(self, address, member=""):
        self.member = member
        self.generation = 0
        self.socket = socket.create_connection(address, TIMEOUT_S)

    def send(self, key, version, body):
        request = struct.pack(">hhi", key, version, 1) + text("test") + body
        self.socket.sendall(data(request))

    def answer(self):
        """What follows the correlation id."""
        length = struct.unpack(">i", self.socket.recv(4, socket.MSG_WAITALL))[0]
        return self.socket.recv(length, socket.MSG_WAITALL)[4:]

    def join(self):
        self.send(JOIN_GROUP, 2, text("group") + struct.pack(">ii", SESSION_MS, SESSION_MS) + text(self.member) + text("consumer")
                  + struct.pack(">i", 1) + text("range") + data(b"\0" * 10))

    def joined(self):
        """Reads the answer to join(): the member's id and the group's generation."""
        body = self.answer()
        error, self.generation = struct.unpack(">hi", body[4:10])
        assert error == 0, error
        parts, rest = [], body[10:]
        for _ in ("protocol", "leader", "member"):
            length = struct.unpack(">h", rest[:2])[0]
            parts.append(rest[2:2 + length].decode())
            rest = rest[2 + length:]
        self.member = parts[2]

    def sync(self):
        self.send(SYNC_GROUP, 1, text("group") + struct.pack(">i", self.generation) + text(self.member)
                  + struct.pack(">i", 1) + text(self.member) + data(b"assigned"))

    def synced(self):
        body = self.answer()
        assert body.endswith(b"assigned"), body

    def heartbeat(self):
        self.send(HEARTBEAT, 1, text("group") + struct.pack(">i", self.generation) + text(self.member))

    def close(self):
        self.socket.close()


class EmbeddedBroker(unittest.TestCase):
    """A group with one member, which joins again."""

    def setUp(self):
        self.broker = subprocess.Popen([sys.argv[1]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        host, port = self.broker.stdout.readline().strip().partition("=")[2].split(":")
        self.address = (host, int(port))
        self.member = Member(self.address)
        self.member.join()
        self.member.joined()
        self.member.sync()
        self.member.synced()

    def tearDown(self):
        self.member.close()
        self.broker.terminate()
        self.assertEqual(self.broker.wait(TIMEOUT_S), 0, "the broker's exit status")
        self.broker.stdout.close()

    def when_it_joins_again(self):
        """On a new connection, with the answer of the old one outstanding."""
        again = Member(self.address, self.member.member)
        self.member.close()
        self.member = again
        again.join()
        again.joined()
        again.sync()
        again.synced()

    def test_join_again_after_a_lost_connection(self):
        self.member.join()
        self.when_it_joins_again()

    def test_join_again_with_requests_that_nobody_has_read(self):
        self.member.join()
        self.member.heartbeat()
        self.member.heartbeat()
        self.when_it_joins_again()

    def test_join_again_many_times(self):
        for _ in range(20):
            self.member.join()
            again = Member(self.address, self.member.member)
            self.member.close()
            self.member = again
        self.member.join()
        self.member.joined()


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
