#!/usr/bin/python3
"""The memory that open streams hold in a worker is bounded: health's Watch with long names, reflection whose answers nobody reads."""
import contextlib
import pathlib
import re
import unittest

import grpc

import raw_http2
import userd_service

WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
SERVING = b"\x08\x01"
NAME_BYTES = 256 * 1024
STREAMS = 800
GROWTH_LIMIT_KIB = 48 * 1024


def length_prefixed(field, data):
    """A protobuf field of wire type 2."""
    length, head = len(data), bytearray([field << 3 | 2])
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + data


def open_channel(address):
    """A channel with a connection of its own."""
    return grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)])


class StreamMemoryTest(unittest.TestCase):
    """Each test has a worker of its own."""

    def setUp(self):
        # Streams as many as the worker takes of one connection: the bound under test is the one on memory.
        self.service = userd_service.Service(workers=1, settings="limits = { streams_per_connection = 1000; held_megabytes = 8; one_way_bytes = 0; };")
        self.service.start()
        self.addCleanup(self.service.stop)
        self.worker = next(pid for pid, name in userd_service.processes_under(self.service.master.pid).items()
                           if name.startswith("userd-worker"))

    def resident_kib(self):
        """Of the worker."""
        status = pathlib.Path(f"/proc/{self.worker}/status").read_text(encoding="ascii")
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1))

    def assert_served(self):
        """A client with a connection of its own is answered."""
        with open_channel(self.service.gateway) as channel:
            self.assertEqual(next(channel.unary_stream(WATCH)(b"", timeout=userd_service.TIMEOUT_S)), SERVING)

    def test_watch_does_not_keep_the_name_that_was_asked_for(self):
        """Streams stay open, and each was asked for with a long name."""
        request = length_prefixed(1, b"n" * NAME_BYTES)
        before_kib = self.resident_kib()
        with contextlib.ExitStack() as stack:
            answers = []
            for _ in range(4):
                channel = stack.enter_context(open_channel(self.service.gateway))
                streams = []
                for _ in range(STREAMS // 4):  # one after the other: what is under way is not what this is about
                    stream = channel.unary_stream(WATCH)(request, timeout=userd_service.TIMEOUT_S)
                    streams.append(stream)
                    try:
                        answers.append(next(stream))
                    except grpc.RpcError as error:
                        answers.append(error.code())
            growth_kib = self.resident_kib() - before_kib
            print(f"{self.id()}: grew by {growth_kib} KiB, {set(answers)}", flush=True)
            self.assert_served()
        self.assertLess(growth_kib, GROWTH_LIMIT_KIB)
        # A connection that sends a megabyte with each stream may also be reset for what it sends.
        self.assertIn(grpc.StatusCode.RESOURCE_EXHAUSTED, answers)
        self.assertLessEqual(set(answers), {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE})

    def test_reflection_answers_that_nobody_reads_are_within_the_connections_share(self):
        """A window of 0: every answer stays in the worker."""
        request = length_prefixed(4, b"user.User")
        before_kib = self.resident_kib()
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                client = raw_http2.RawClient(self.service.gateway, REFLECTION, window=0)
                stack.callback(client.close)
                for _ in range(STREAMS // 4):
                    stream = client.next_stream()
                    client.send(client.acknowledge() +
                                raw_http2.frame(raw_http2.HEADERS, raw_http2.END_HEADERS, stream, client.headers()) +
                                raw_http2.frame(raw_http2.DATA, 0, stream, raw_http2.message(request)))
            self.assert_served()
            growth_kib = self.resident_kib() - before_kib
            print(f"{self.id()}: grew by {growth_kib} KiB", flush=True)
        self.assertLess(growth_kib, GROWTH_LIMIT_KIB)

    def test_a_long_reflection_question_is_refused(self):
        """It would be held, and echoed, for as long as its answer is not read."""
        with open_channel(self.service.gateway) as channel:
            call = channel.stream_stream(REFLECTION)(iter([length_prefixed(4, b"n" * NAME_BYTES)]), timeout=userd_service.TIMEOUT_S)
            with self.assertRaises(grpc.RpcError) as caught:
                next(call)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)

    def test_streams_count_in_what_a_connection_may_hold(self):
        """Most of what the worker may hold is taken by one connection's streams: further ones are refused, another's are not."""
        with open_channel(self.service.gateway) as greedy:
            streams = [greedy.unary_stream(WATCH)(b"", timeout=userd_service.TIMEOUT_S) for _ in range(900)]
            answers = []
            for stream in streams:
                try:
                    answers.append(next(stream))
                except grpc.RpcError as error:
                    answers.append((error.code(), error.details()))
            print(f"{self.id()}: {answers.count(SERVING)} served", flush=True)
            self.assertEqual(set(answers) - {SERVING},
                             {(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many bytes of this connection in progress")})
            self.assertGreater(answers.count(SERVING), 100)
            self.assert_served()


if __name__ == "__main__":
    unittest.main()
