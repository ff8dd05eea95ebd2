#!/usr/bin/python3
"""What client addresses may do: budgets of all connections of one, bans, the reserve for those that have few connections, and what
becomes of idle ones. Attackers come from addresses of the loopback network of their own, polite clients from 127.0.0.1."""
import contextlib
import multiprocessing
import pathlib
import socket
import struct
import tempfile
import time
import unittest

import grpc

import raw_http2
import userd_service

GET_USER = "/user.User/GetUser"
WATCH = "/grpc.health.v1.Health/Watch"
SERVING = b"\x08\x01"
ATTACKER = "127.0.0.9"
USER_1 = b"\x08\x01"
SLACK_S = 30
CANCEL = struct.pack(">I", raw_http2.CANCEL)
# Small enough for an attacker in Python, on any machine.
BUDGETS = "limits = {{ cancels_per_second = 400; cancel_rate_per_address = 400; ban_seconds = {ban_s}; exempt_addresses = \"{exempt}\"; }};"


def connect(address, source=ATTACKER, path=GET_USER):
    """A connection that speaks HTTP/2 and has acknowledged the server's settings."""
    host, port = address.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), SLACK_S, (source, 0))
    client = raw_http2.RawClient(address, path, connection=connection)
    client.send(client.acknowledge())
    return client


def is_refused(address, source=ATTACKER):
    """Whether a new connection from there is closed at once, and not because it is silent."""
    try:
        client = connect(address, source)
    except OSError:
        return True
    with contextlib.closing(client):
        client.socket.settimeout(SLACK_S)
        try:
            return not client.socket.recv(1)  # the server's SETTINGS, or the end
        except OSError:
            return True


def take_back(client, count):
    """So many calls that are taken back at once; False when the connection has ended."""
    block = bytearray()
    for _ in range(count):
        stream = client.next_stream()
        block += raw_http2.frame(raw_http2.HEADERS, raw_http2.END_HEADERS, stream, client.headers())
        block += raw_http2.frame(raw_http2.DATA, raw_http2.END_STREAM, stream, raw_http2.message(USER_1))
        block += raw_http2.frame(raw_http2.RST_STREAM, 0, stream, CANCEL)
    return client.send(block)


def take_back_steadily(address, seconds, rate, source=ATTACKER):
    """On one connection, again and again: so many a second. A process of its own."""
    over = time.monotonic() + seconds
    while time.monotonic() < over:
        with contextlib.suppress(OSError), contextlib.closing(connect(address, source)) as client:
            client.socket.settimeout(1)
            while time.monotonic() < over and take_back(client, rate // 50):
                client.socket.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while client.socket.recv(65536):
                        pass
                client.socket.settimeout(1)
                time.sleep(0.02)
        time.sleep(0.02)


def call_steadily(address, seconds, source, results):
    """As an API gateway does: all that it can, one call in ten taken back. A process of its own."""
    over = time.monotonic() + seconds
    calls = 0
    with contextlib.closing(connect(address, source)) as client:
        frames = client.frames()
        while time.monotonic() < over:
            block = bytearray()
            for number in range(90):
                block += client.call(USER_1)
                if number % 9 == 0:
                    stream = client.next_stream()
                    block += raw_http2.frame(raw_http2.HEADERS, raw_http2.END_HEADERS, stream, client.headers())
                    block += raw_http2.frame(raw_http2.DATA, raw_http2.END_STREAM, stream, raw_http2.message(USER_1))
                    block += raw_http2.frame(raw_http2.RST_STREAM, 0, stream, CANCEL)
            if not client.send(block):
                break
            left, received = 90, 0
            for kind, flags, _, payload in frames:
                received += len(payload) if kind == raw_http2.DATA else 0
                left -= 1 if kind == raw_http2.HEADERS and flags & raw_http2.END_STREAM else 0
                if left == 0:
                    break
            if left > 0:
                break
            calls += 100
            if received:
                client.send(raw_http2.frame(raw_http2.WINDOW_UPDATE, 0, 0, struct.pack(">I", received)))
    results.put((calls, time.monotonic() >= over))


def run_processes(function, all_arguments):
    """All at once, until they end."""
    context = multiprocessing.get_context("spawn")  # a fork would share gRPC's sockets
    processes = [context.Process(target=function, args=arguments) for arguments in all_arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


class AddressTest(unittest.TestCase):
    """Each test has a service of its own."""

    def start(self, settings, workers=1):
        """A service with a log that can be read."""
        self.service = userd_service.Service(workers=workers, settings=settings)
        log = tempfile.NamedTemporaryFile("w+", prefix="userd-interop-log.")  # pylint: disable=consider-using-with
        self.addCleanup(log.close)
        self.log_path = pathlib.Path(log.name)
        self.addCleanup(lambda: print(self.log_path.read_text(encoding="utf-8")[-20000:], flush=True))
        self.service.log = log
        self.service.start()
        self.addCleanup(self.service.stop)
        self.service.sql("""INSERT INTO "user" (id_auth, username) VALUES (1, 'somebody')""")

    def log_lines(self, *parts):
        """Those that hold all of these."""
        return [line for line in self.log_path.read_text(encoding="utf-8").splitlines() if all(part in line for part in parts)]

    def totals(self):
        """Of all workers."""
        return self.service.status()["totals"]

    def master(self):
        """What the status says of the master."""
        return self.service.status()["master"]

    def assert_served(self):
        """From 127.0.0.1, on a new connection."""
        with grpc.insecure_channel(self.service.gateway, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            channel.unary_unary(GET_USER)(USER_1, timeout=SLACK_S)

    def test_connections_just_under_the_limit_are_bounded_together(self):
        """Eight of them: each keeps to what a connection may do."""
        self.start(BUDGETS.format(ban_s=2, exempt=""))
        run_processes(take_back_steadily, [(self.service.gateway, 4, 300)] * 8)
        self.assertGreaterEqual(self.totals()["connections_reset"], 1)
        self.assertNotEqual(self.log_lines("connection reset", "reason=cancels_of_address", f"ipv4:{ATTACKER}:"), [])
        self.assertGreaterEqual(self.master()["address_bans"], 1)
        self.assert_served()

    def test_an_exempt_address_is_not_bounded(self):
        """The same from an address that the operator names."""
        self.start(BUDGETS.format(ban_s=2, exempt="10.0.0.0/8, 127.0.0.9"))
        run_processes(take_back_steadily, [(self.service.gateway, 3, 300)] * 8)
        self.assertEqual(self.totals()["connections_reset"], 0)
        self.assertEqual(self.master()["address_bans"], 0)
        self.assertGreater(self.totals()["calls"]["started"], 3000)

    def test_who_is_reset_is_banned_for_a_growing_time(self):
        """New connections from there are closed at once; others are served, and so is that address when its time is over."""
        self.start(BUDGETS.format(ban_s=1, exempt=""))
        for seconds in (1, 2, 4):
            client = connect(self.service.gateway)
            with contextlib.closing(client):
                while take_back(client, 500):
                    pass
            userd_service.wait_for(lambda seconds=seconds: self.log_lines("address banned", f"address={ATTACKER}", f"seconds={seconds} "),
                                   f"a ban of {seconds} s")
            begin = time.monotonic()
            self.assertTrue(is_refused(self.service.gateway))
            self.assert_served()
            userd_service.wait_for(lambda: not is_refused(self.service.gateway), "the end of the ban")
            self.assertGreater(time.monotonic() - begin, seconds / 2)
        self.assertEqual(self.master()["address_bans"], 3)
        self.assertGreaterEqual(self.master()["connections_refused"]["banned"], 3)
        self.assertNotEqual(self.log_lines("connection refused", f"address={ATTACKER}", "the address is banned"), [])

    def test_a_gateway_passes_untouched(self):
        """All calls of the platform from one address, one in ten taken back, by default."""
        self.start("", workers=2)
        results = multiprocessing.get_context("spawn").Queue()
        run_processes(call_steadily, [(self.service.gateway, 4, "127.0.0.1", results)] * 4)
        found = [results.get(timeout=SLACK_S) for _ in range(4)]
        print(f"{self.id()}: {sum(calls for calls, _ in found)} calls", flush=True)
        self.assertTrue(all(is_whole for _, is_whole in found), found)
        self.assertGreater(sum(calls for calls, _ in found), 2000)
        self.assertEqual(self.totals()["connections_reset"], 0)
        self.assertEqual(self.master()["address_bans"], 0)

    def test_idle_connections_of_a_few_addresses_leave_room_for_others(self):
        """As many as there may be, from few addresses: a part is kept for those that have few, and idle ones go while it is short."""
        self.start("limits = { connections = 200; connections_per_address = 150; reserved_percent = 25; idle_shortage_timeout_ms = 1000; };")
        with contextlib.ExitStack() as stack:
            for number in range(220):
                client = connect(self.service.gateway, f"127.0.0.{2 + number % 3}")
                stack.callback(client.close)
            refused = userd_service.wait_for(lambda: self.master()["connections_refused"]["reserved"], "connections that are refused")
            self.assertGreaterEqual(refused, 60)
            self.assertLessEqual(self.totals()["connections"], 160)
            self.assert_served()
            self.assertNotEqual(self.log_lines("connections are short"), [])
            # As long as somebody wants in, idle ones are told to go, and those that do not listen are closed.
            userd_service.wait_for(lambda: is_refused(self.service.gateway, "127.0.0.2") or self.totals()["connections_idle"] > 100,
                                   "idle connections are told to go")
            userd_service.wait_for(lambda: not is_refused(self.service.gateway, "127.0.0.2") or self.totals()["connections"] < 100,
                                   "idle connections end")
            self.assertNotEqual(self.log_lines("idle connection told to go", "reason=shortage", "127.0.0.2"), [])
        self.assert_served()

    def test_an_idle_connection_is_told_to_go_and_no_call_fails(self):
        """GOAWAY: a gRPC client comes back with its next call. A connection with an open stream is not idle."""
        self.start("limits = { idle_timeout_ms = 1000; };")
        with grpc.insecure_channel(self.service.gateway, options=[("grpc.use_local_subchannel_pool", 1)]) as quiet, \
                grpc.insecure_channel(self.service.gateway, options=[("grpc.use_local_subchannel_pool", 1)]) as watching:
            method = quiet.unary_unary(GET_USER)
            method(USER_1, timeout=SLACK_S)
            stream = watching.unary_stream(WATCH)(b"", timeout=4 * SLACK_S)
            self.assertEqual(next(stream), SERVING)
            raw = connect(self.service.gateway, "127.0.0.1")
            with contextlib.closing(raw):
                goaway = next(payload for kind, _, _, payload in raw.frames() if kind == raw_http2.GOAWAY)
            self.assertEqual(goaway, struct.pack(">II", 0x7FFFFFFF, 0))
            userd_service.wait_for(lambda: self.totals()["connections_idle"] >= 2, "both idle connections are told to go")
            method(USER_1, timeout=SLACK_S)
            self.assertEqual(self.totals()["connections_reset"], 0)
            self.assertTrue(stream.is_active())
            stream.cancel()

    def test_metrics_show_who_was_refused(self):
        """By reason."""
        self.start("limits = { connections_per_address = 1; };")
        with contextlib.closing(connect(self.service.gateway)):
            userd_service.wait_for(lambda: is_refused(self.service.gateway), "a connection that is refused")
        text = self.service.run("metrics")
        self.assertRegex(text, r'userd_connections_refused_total\{reason="address"\} [1-9]')
        self.assertRegex(text, r'userd_connections_refused_total\{reason="banned"\} 0')
        self.assertRegex(text, r"userd_address_bans_total 0")
        self.assertRegex(text, r'userd_connections_idle_total\{worker="1"\} 0')


if __name__ == "__main__":
    unittest.main()
