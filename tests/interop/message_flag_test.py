#!/usr/bin/python3
"""Messages whose flag is neither 0 nor 1: the C core takes such a one for an empty message and says nothing. No method may execute it."""
import contextlib
import os
import pathlib
import re
import struct
import tempfile
import unittest

import raw_http2
import userd_service

FLAGS = range(2, 256)
VICTIM = 1234567
INTERNAL = 13
GATEWAY_METHODS = {
    "/user.User/GetUser": raw_http2.number_field(1, VICTIM),
    "/user.User/UserUpdate": raw_http2.number_field(1, VICTIM) + b"\x12\x05Trini",
    "/user.User/DeleteUser": raw_http2.number_field(1, VICTIM),
}
POST_METHODS = {
    "/user_post.UserPost/GetByUsername": b"\x0a\x03neo",
    "/user_post.UserPost/GetByID": raw_http2.number_field(1, VICTIM),
    "/user_post.UserPost/GetByIDs": raw_http2.packed_ids([VICTIM]),
}
OWN_METHODS = {
    "/grpc.health.v1.Health/Check": b"",
    "/grpc.health.v1.Health/Watch": b"",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": b"\x3a\x00",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": b"\x3a\x00",
}
SETTINGS = "limits = { connection_rate_per_address = 0; ban_seconds = 0; };"
USERS = 'SELECT string_agg(id_auth || username, \' \' ORDER BY id_auth) FROM "user"'


def status_of(address, path, flag, request):
    """What the call's trailers say, as they were sent."""
    with contextlib.closing(raw_http2.RawClient(address, path)) as client:
        stream = client.next_stream()
        client.send(client.acknowledge() + raw_http2.frame(raw_http2.HEADERS, raw_http2.END_HEADERS, stream, client.headers())
                    + raw_http2.frame(raw_http2.DATA, raw_http2.END_STREAM, stream,
                                      bytes([flag]) + struct.pack(">I", len(request)) + request))
        for kind, flags, number, payload in client.frames():
            if kind == raw_http2.HEADERS and flags & raw_http2.END_STREAM and number == stream:
                return int(re.search(rb"grpc-status[\x01\x02](\d+)", payload).group(1))
    return None


class MessageFlagTest(unittest.TestCase):
    """Each call on a connection of its own."""

    core_bridge = "auto"

    def setUp(self):
        self.service = userd_service.Service(workers=1, settings=f'core_bridge = "{self.core_bridge}"; {SETTINGS}')
        self.addCleanup(self.service.stop)
        self.service.start()
        self.service.sql(f"""INSERT INTO "user" (id_auth, username) VALUES (0, 'nobody'), ({VICTIM}, 'neo')""")

    def answer(self, address, path, flag, request, is_cut=False):
        """What the client gets: "ended" (the connection is reset) or "answered"."""
        with contextlib.closing(raw_http2.RawClient(address, path)) as client:
            stream = client.next_stream()
            data = bytes([flag]) + struct.pack(">I", len(request)) + request
            client.send(client.acknowledge() + raw_http2.frame(raw_http2.HEADERS, raw_http2.END_HEADERS, stream, client.headers()))
            if is_cut:  # the flag alone, and then the rest
                client.send(raw_http2.frame(raw_http2.DATA, 0, stream, data[:1]))
                data = data[1:]
            client.send(raw_http2.frame(raw_http2.DATA, raw_http2.END_STREAM, stream, data))
            for kind, _, number, _ in client.frames():
                if kind in (raw_http2.HEADERS, raw_http2.DATA) and number == stream:
                    return "answered"
            return "ended"

    def assert_none_is_executed(self, address, methods, flags=FLAGS, is_cut=False):
        """Every flag; and nothing has changed."""
        before = self.service.sql(USERS)
        for path, request in methods.items():
            answered = [flag for flag in flags if self.answer(address, path, flag, request, is_cut) == "answered"]
            self.assertEqual(answered, [], path)
        self.assertEqual(self.service.sql(USERS), before)
        self.assertEqual(self.service.sql("SELECT count(*) FROM outbox"), "0")

    def test_no_method_executes_a_message_with_an_unknown_flag(self):
        """And the service goes on."""
        self.assert_none_is_executed(self.service.gateway, {**GATEWAY_METHODS, **OWN_METHODS})
        self.assert_none_is_executed(self.service.post, POST_METHODS)
        self.assertGreater(self.service.status()["totals"]["connections_reset"], len(FLAGS))
        self.assertTrue(self.service.is_serving())

    def test_a_flag_that_comes_by_itself_is_seen_too(self):
        """Cut at its place."""
        self.assert_none_is_executed(self.service.gateway, {**GATEWAY_METHODS, **OWN_METHODS}, (2, 3, 128, 255), is_cut=True)
        self.assert_none_is_executed(self.service.post, POST_METHODS, (2, 3, 128, 255), is_cut=True)

    def test_known_flags_are_as_they_were(self):
        """0 is executed; 1 without an encoding is refused, or taken as it is where nothing tells (core_bridge = "off")."""
        for path, request in GATEWAY_METHODS.items():
            self.assertEqual(self.answer(self.service.gateway, path, 0, request), "answered")
            self.assertEqual(self.answer(self.service.gateway, path, 1, request), "answered")
        self.assertEqual(self.service.status()["totals"]["connections_reset"], 0)

    def test_an_empty_message_is_executed(self):
        """Of user 0."""
        self.assertEqual(status_of(self.service.gateway, "/user.User/GetUser", 0, b""), 0)


class WithoutBridge(MessageFlagTest):
    """By the public entry points of the C core alone."""

    core_bridge = "off"


class BlindTest(unittest.TestCase):
    """A worker whose C core reads past it (tests/harness/blind_worker.map)."""

    def setUp(self):
        programs = tempfile.TemporaryDirectory(prefix="userd-blind.")
        self.addCleanup(programs.cleanup)
        for program in ("tests/blind/userd-worker", "eventd/userd-eventd"):
            (pathlib.Path(programs.name) / pathlib.Path(program).name).symlink_to(userd_service.BINARY / program)
        os.environ["USERD_LIBEXEC_DIR"] = programs.name
        self.addCleanup(os.environ.pop, "USERD_LIBEXEC_DIR")
        self.service = userd_service.Service(workers=1, settings=SETTINGS)
        self.addCleanup(self.service.stop)
        self.service.log = tempfile.TemporaryFile("w+", encoding="utf-8")
        self.addCleanup(self.service.log.close)
        self.service.start()
        self.service.sql(f"""INSERT INTO "user" (id_auth, username) VALUES (0, 'nobody'), ({VICTIM}, 'neo')""")

    def test_no_method_executes_an_empty_message(self):
        """Nothing tells it from one with an unknown flag; the log says so, and other messages are executed."""
        before = self.service.sql(USERS)
        for address, methods in ((self.service.gateway, GATEWAY_METHODS), (self.service.post, POST_METHODS)):
            for path, request in methods.items():
                for flag in (2, 255):
                    self.assertEqual(status_of(address, path, flag, request), INTERNAL, path)
                self.assertEqual(status_of(address, path, 0, b""), INTERNAL, path)
        self.assertEqual(self.service.sql(USERS), before)
        self.assertEqual(self.service.sql("SELECT count(*) FROM outbox"), "0")
        self.assertEqual(status_of(self.service.gateway, "/user.User/GetUser", 0, GATEWAY_METHODS["/user.User/GetUser"]), 0)
        self.assertTrue(self.service.is_serving())
        self.service.log.seek(0)
        self.assertIn("connections are not looked into", self.service.log.read())

    def test_the_c_cores_limits_are_stricter(self):
        """SETTINGS_MAX_CONCURRENT_STREAMS (3)."""
        with contextlib.closing(raw_http2.RawClient(self.service.gateway, "/user.User/GetUser")) as client:
            settings = next(payload for kind, _, _, payload in client.frames() if kind == raw_http2.SETTINGS)
        self.assertIn(struct.pack(">HI", 3, 32), [settings[at:at + 6] for at in range(0, len(settings), 6)])


if __name__ == "__main__":
    unittest.main()
