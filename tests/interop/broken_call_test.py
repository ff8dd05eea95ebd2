#!/usr/bin/python3
"""Calls that are cut off, too large, or in a compression that we do not know: what the client hears, and what they are counted as."""
import struct
import unittest

import raw_http2
import userd_service

CANCELS = 40  # more than a burst, twice the streams of a connection, and far more than a second's worth
GET_BY_IDS = "/user_post.UserPost/GetByIDs"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
UNARY_AND_STREAMS = (GET_BY_IDS, WATCH, REFLECTION)
LIST_SERVICES = b"\x3a\x00"
RESOURCE_EXHAUSTED, UNIMPLEMENTED = 8, 12
STREAM_MESSAGE_BYTES = 8192  # of requests of streams, whatever limits.message_bytes is
MESSAGE_BYTES = 40000  # less than a stream's window: nobody waits for room


class BrokenCallTest(unittest.TestCase):
    """Each on a connection of its own: in its first answer all header fields are literals."""

    def setUp(self):
        self.service = userd_service.Service(workers=1, settings=f"""limits = {{
            message_bytes = {MESSAGE_BYTES}; streams_per_connection = {CANCELS // 4}; cancels_per_second = 1; }};""")
        self.service.start()
        self.addCleanup(self.service.stop)

    def connect(self, path):
        """To where the method is served."""
        client = raw_http2.RawClient(self.service.post, path)
        self.addCleanup(client.close)
        return client

    def answer(self, client):
        """The header fields of the answer's end, as they were sent."""
        for kind, flags, _, payload in client.frames():
            if kind == raw_http2.HEADERS and flags & raw_http2.END_STREAM:
                return payload
        return self.fail("the connection has ended without an answer")

    def assert_fails_with(self, client, status, message):
        """Status and message."""
        fields = self.answer(client)
        self.assertIn(raw_http2.literal("grpc-status", str(status))[1:], fields)
        self.assertIn(message.encode(), fields)

    def statuses(self):
        """How the calls of GetByIDs have ended."""
        methods = {method["name"]: method["statuses"] for method in self.service.status()["methods"]}
        return {status: count for status, count in methods[GET_BY_IDS[1:]].items() if count > 0}

    def send_half(self, client):
        """Half of what the message's head promises."""
        stream = client.next_stream()
        client.send(client.acknowledge() + raw_http2.frame(raw_http2.HEADERS, raw_http2.END_HEADERS, stream, client.headers())
                    + raw_http2.frame(raw_http2.DATA, 0, stream, raw_http2.message(bytes(10000))[:5000]))
        return stream

    def test_a_call_whose_request_is_cut_off_counts_as_cancelled(self):
        """Taken back, or its connection is gone."""
        client = self.connect(GET_BY_IDS)
        stream = self.send_half(client)
        client.send(raw_http2.frame(raw_http2.RST_STREAM, 0, stream, struct.pack(">I", raw_http2.CANCEL)))
        userd_service.wait_for(lambda: self.statuses() == {"CANCELLED": 1}, "one call is cancelled")
        client = self.connect(GET_BY_IDS)
        self.send_half(client)
        client.close()
        userd_service.wait_for(lambda: self.statuses() == {"CANCELLED": 2}, "two calls are cancelled")
        self.assertEqual(self.service.status()["totals"]["calls"]["cancelled"], 2)

    def test_a_call_whose_request_is_cut_off_by_its_deadline_counts_as_expired(self):
        """It is over when the deadline is."""
        client = self.connect(GET_BY_IDS)
        client.fields.append(raw_http2.literal("grpc-timeout", "100m"))
        self.send_half(client)
        userd_service.wait_for(lambda: self.statuses() == {"DEADLINE_EXCEEDED": 1}, "the call has expired")
        self.assertEqual(self.service.status()["totals"]["calls"]["expired"], 1)

    def send_message(self, client, message):
        """One whole call."""
        stream = client.next_stream()
        client.send(client.acknowledge() + raw_http2.frame(raw_http2.HEADERS, raw_http2.END_HEADERS, stream, client.headers()))
        for begin in range(0, len(message), 16000):
            client.send(raw_http2.frame(raw_http2.DATA, 0, stream, message[begin:begin + 16000]))
        client.send(raw_http2.frame(raw_http2.DATA, raw_http2.END_STREAM, stream))

    def test_a_message_that_is_too_large_is_refused(self):
        """It has come as a whole."""
        for path in UNARY_AND_STREAMS:
            with self.subTest(path=path):
                client = self.connect(path)
                limit = MESSAGE_BYTES if path == GET_BY_IDS else STREAM_MESSAGE_BYTES
                self.send_message(client, raw_http2.message(bytes(MESSAGE_BYTES + 1)))
                self.assert_fails_with(client, RESOURCE_EXHAUSTED, f"message is larger than {limit} bytes")
        userd_service.wait_for(lambda: self.statuses() == {"RESOURCE_EXHAUSTED": 1}, "the call is counted")

    def take_back_streams(self, client, request, count):
        """Streams one after the other, each after its first answer; False when the connection has ended before."""
        frames = client.frames()
        for _ in range(count):
            stream = client.next_stream()
            client.send(client.acknowledge() + raw_http2.frame(raw_http2.HEADERS, raw_http2.END_HEADERS, stream, client.headers())
                        + raw_http2.frame(raw_http2.DATA, 0, stream, raw_http2.message(request)))
            if not any(kind == raw_http2.DATA and number == stream for kind, _, number, _ in frames):
                return False
            client.send(raw_http2.frame(raw_http2.RST_STREAM, 0, stream, struct.pack(">I", raw_http2.CANCEL)))
        return True

    def test_streams_that_are_taken_back_count_as_calls_do(self):
        """A few are fine; more than limits.cancels_per_second end the connection."""
        for path, request in ((WATCH, b""), (REFLECTION, LIST_SERVICES)):
            with self.subTest(path=path):
                before = self.service.status()["totals"]["connections_reset"]
                client = self.connect(path)
                self.assertTrue(self.take_back_streams(client, request, CANCELS // 4))
                self.assertEqual(self.service.status()["totals"]["connections_reset"], before)
                if self.take_back_streams(client, request, CANCELS):
                    self.assertTrue(client.is_ended(userd_service.TIMEOUT_S), "the connection is not reset")
                userd_service.wait_for(lambda: self.service.status()["totals"]["connections_reset"] > before, "it is counted")

    def test_a_compression_that_is_not_known_is_unimplemented(self):
        """And not a message that cannot be read."""
        for path in UNARY_AND_STREAMS:
            with self.subTest(path=path):
                client = self.connect(path)
                client.fields.append(raw_http2.literal("grpc-encoding", "snappy"))
                self.send_message(client, b"\1" + raw_http2.message(b"\xff\xff\xff")[1:])
                self.assert_fails_with(client, UNIMPLEMENTED, "compression algorithm is not supported")


if __name__ == "__main__":
    unittest.main()
