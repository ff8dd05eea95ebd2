#!/usr/bin/python3
"""Calls that begin and do not come: HEADERS without a message, or with a part of one. Each costs the worker a call that it never hears
of. Attackers come from an address of their own, the polite client from 127.0.0.1."""
import contextlib
import multiprocessing
import pathlib
import re
import socket
import struct
import tempfile
import threading
import time
import unittest

import grpc

import raw_http2
import userd_service

GET_USER = "/user.User/GetUser"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
SERVING = b"\x08\x01"
ATTACKER = "127.0.0.9"
USER_1 = b"\x08\x01"
SLACK_S = 30
PEAK_LIMIT_KIB = 128 * 1024
AFTER_LIMIT_KIB = 72 * 1024
STREAMS = 90  # a connection may have 100


def connect(address, source=ATTACKER, path=GET_USER):
    """A connection that speaks HTTP/2 and has acknowledged the server's settings."""
    host, port = address.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), SLACK_S, (source, 0))
    client = raw_http2.RawClient(address, path, connection=connection)
    client.send(client.acknowledge())
    return client


def begin_calls(client, count, part=b""):
    """Calls of which no more comes than this part of a message."""
    block = bytearray()
    for _ in range(count):
        stream = client.next_stream()
        block += raw_http2.frame(raw_http2.HEADERS, raw_http2.END_HEADERS, stream, client.headers())
        if part:
            block += raw_http2.frame(raw_http2.DATA, 0, stream, part)
    return client.send(block)


def hold_open(address, connections, seconds, part, source=ATTACKER):
    """Calls that do not come on so many connections, which are made anew when they are ended. A process of its own."""
    over = time.monotonic() + seconds
    clients = []
    while time.monotonic() < over:
        with contextlib.suppress(OSError):
            if len(clients) < connections:
                clients.append(connect(address, source))
                clients[-1].socket.settimeout(0.2)
                begin_calls(clients[-1], STREAMS, part)
                continue
        for client in list(clients):
            client.socket.setblocking(False)
            try:
                if client.socket.recv(65536):
                    continue
            except BlockingIOError:
                continue
            except OSError:
                pass
            client.close()
            clients.remove(client)
        time.sleep(0.01)
    for client in clients:
        client.close()


class PoliteClient:
    """One call at a time, in a thread."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self.method = self.channel.unary_unary(GET_USER)
        self.method(USER_1, timeout=SLACK_S)
        self.calls, self.failures = 0, []
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        """Until told to end."""
        while not self.is_over.is_set():
            try:
                self.method(USER_1, timeout=SLACK_S)
            except grpc.RpcError as error:
                self.failures.append(f"{error.code()} {error.details()}")
            self.calls += 1
            time.sleep(0.005)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join()
        self.channel.close()


class HalfOpenTest(unittest.TestCase):
    """Each test has a worker of its own: its memory is looked at."""

    def start(self, settings):
        """A service with a log that can be read."""
        self.service = userd_service.Service(workers=1, settings=settings)
        log = tempfile.NamedTemporaryFile("w+", prefix="userd-interop-log.")  # pylint: disable=consider-using-with
        self.addCleanup(log.close)
        self.log_path = pathlib.Path(log.name)
        self.addCleanup(lambda: print(self.log_path.read_text(encoding="utf-8")[-20000:], flush=True))
        self.service.log = log
        self.service.start()
        self.addCleanup(self.service.stop)
        self.service.sql("""INSERT INTO "user" (id_auth, username) VALUES (1, 'somebody')""")
        self.worker = next(pid for pid, name in userd_service.processes_under(self.service.master.pid).items()
                           if name.startswith("userd-worker"))

    def log_lines(self, *parts):
        """Those that hold all of these."""
        return [line for line in self.log_path.read_text(encoding="utf-8").splitlines() if all(part in line for part in parts)]

    def memory_kib(self, name):
        """Of the worker: VmRSS, VmHWM."""
        status = pathlib.Path(f"/proc/{self.worker}/status").read_text(encoding="ascii")
        return int(re.search(name + r":\s+(\d+)", status).group(1))

    def totals(self):
        """Of the worker."""
        return self.service.status()["totals"]

    def under(self, processes, *arguments):
        """The attack beside a polite client; what it may cost at most, and that it is over when it is over."""
        context = multiprocessing.get_context("spawn")  # a fork would share gRPC's sockets
        workers = [context.Process(target=hold_open, args=arguments) for _ in range(processes)]
        with PoliteClient(self.service.gateway) as polite:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        totals, peak_kib = self.totals(), self.memory_kib("VmHWM")
        print(f"{self.id()}: {polite.calls} calls, worker {peak_kib / 1024:.0f} MiB, {totals['connections_reset']} resets, "
              f"{totals['open_requests']} open", flush=True)
        self.assertEqual(polite.failures, [])
        self.assertGreater(polite.calls, 0)
        self.assertLess(peak_kib, PEAK_LIMIT_KIB)
        self.assertGreater(totals["connections_reset"], 0)
        self.assertGreater(totals["connections_open"], 0)
        self.assertNotEqual(self.log_lines("connection reset", "reason=open_requests_of_", f"ipv4:{ATTACKER}:"), [])
        userd_service.wait_for(lambda: self.totals()["open_requests"] == 0, "no request is open any more")
        userd_service.wait_for(lambda: self.memory_kib("VmRSS") < AFTER_LIMIT_KIB, "memory is given back")

    def test_calls_without_a_message(self):
        """A hundred connections. Without bans: what holds is the bound on open requests alone."""
        self.start("limits = { ban_seconds = 0; };")
        self.under(2, self.service.gateway, 50, 3, b"")

    def test_calls_without_a_message_on_many_connections(self):
        """A thousand."""
        self.start("limits = { ban_seconds = 0; };")
        self.under(2, self.service.gateway, 500, 6, b"")

    def test_calls_with_a_part_of_a_message(self):
        """As much of it as the client has room for is kept, too."""
        self.start("limits = { ban_seconds = 0; one_way_bytes = 0; };")
        self.under(2, self.service.gateway, 50, 3, b"\0\0\x10\0\0" + b"x" * 16000)

    def test_who_holds_calls_open_is_banned(self):
        """By default."""
        self.start("")
        hold_open(self.service.gateway, 60, 3, b"")
        userd_service.wait_for(lambda: self.log_lines("address banned", f"address={ATTACKER}", "reason=open_requests_of_"), "a ban")

    def test_a_request_has_a_time_to_come(self):
        """Its client is told to go, and is reset if it does not. Streams that have had their first message stay as long as they like."""
        self.start("limits = { request_timeout_ms = 1000; ban_seconds = 0; };")
        with grpc.insecure_channel(self.service.gateway, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            watch = channel.unary_stream(WATCH)(b"", timeout=4 * SLACK_S)
            self.assertEqual(next(watch), SERVING)
            asked = threading.Event()

            def questions():
                yield b"\x22\x09user.User"
                asked.wait()

            reflection = channel.stream_stream(REFLECTION)(questions(), timeout=4 * SLACK_S)
            next(reflection)
            slow = connect(self.service.gateway)
            with contextlib.closing(slow):
                begin_calls(slow, 1)
                kinds = [kind for kind, _, _, _ in slow.frames()]  # until the connection ends
            self.assertIn(raw_http2.GOAWAY, kinds)
            self.assertNotEqual(self.log_lines("connection told to go reason=request_timeout", f"ipv4:{ATTACKER}:"), [])
            self.assertNotEqual(self.log_lines("connection reset reason=request_timeout", f"ipv4:{ATTACKER}:"), [])
            self.assertTrue(watch.is_active())
            self.assertTrue(reflection.is_active())
            self.assertEqual(self.totals()["connections_reset"], 1)
            asked.set()
            watch.cancel()
            reflection.cancel()

    def test_who_is_told_to_go_gets_no_frame_amid_another(self):
        """GOAWAY is sent beside the C core: not while an answer is on its way, of which a part may have left."""
        self.start("limits = { request_timeout_ms = 500; ban_seconds = 0; };")
        with contextlib.closing(connect(self.service.gateway)) as slow:
            before = self.totals()["calls"]["ok"]
            slow.send(raw_http2.frame(raw_http2.SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))  # no room for an answer
            slow.send(slow.call(USER_1))
            userd_service.wait_for(lambda: self.totals()["calls"]["ok"] > before, "an answer")
            begin_calls(slow, 1)
            kinds = [kind for kind, _, _, _ in slow.frames()]  # until it is reset for its request, seconds later
        self.assertNotIn(raw_http2.GOAWAY, kinds)
        self.assertNotEqual(self.log_lines("connection reset reason=request_timeout", f"ipv4:{ATTACKER}:"), [])

    def test_the_end_of_a_connection_is_the_end_of_its_requests(self):
        """Also where the C core ends it, and does not read from it again: they are not held against those that come later."""
        self.start("limits = { ban_seconds = 0; open_requests = 64; };")
        clients = [connect(self.service.gateway) for _ in range(5)]
        for client in clients:
            begin_calls(client, 15)  # fewer than 16 are always fine; 75 are not
            userd_service.wait_for(lambda: self.totals()["open_requests"] == 15, "its requests are known")
            client.send(raw_http2.frame(raw_http2.SETTINGS, 0, 1))  # of a stream: an error of the connection
            self.assertTrue(client.is_ended(SLACK_S))
            client.close()
            userd_service.wait_for(lambda: self.totals()["open_requests"] == 0, "no request is open any more")
        with contextlib.closing(connect(self.service.gateway)) as client:
            begin_calls(client, 16)
            userd_service.wait_for(lambda: self.totals()["open_requests"] == 16, "there is room for others")
        self.assertEqual(self.totals()["connections_reset"], 0)

    def test_settings_without_end(self):
        """Each is answered."""
        self.start("limits = { ban_seconds = 0; };")
        with contextlib.closing(connect(self.service.gateway)) as client:
            userd_service.wait_for(lambda: not client.send(raw_http2.frame(raw_http2.SETTINGS, 0, 0, struct.pack(">HI", 4, 65535)) * 50),
                                   "the end of the connection")
        self.assertNotEqual(self.log_lines("connection reset reason=settings", f"ipv4:{ATTACKER}:"), [])

    def test_metrics_show_open_requests(self):
        """As they are now."""
        self.start("")
        with contextlib.closing(connect(self.service.gateway)) as client:
            begin_calls(client, 7)
            userd_service.wait_for(lambda: 'userd_open_requests{worker="1"} 7' in self.service.run("metrics"), "seven open requests")
        userd_service.wait_for(lambda: 'userd_open_requests{worker="1"} 0' in self.service.run("metrics"), "none")
        self.assertIn('userd_connections_open_total{worker="1"} 0', self.service.run("metrics"))


if __name__ == "__main__":
    unittest.main()
