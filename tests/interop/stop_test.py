#!/usr/bin/python3
"""What clients that do not answer can do to the end of a worker: the C core would wait 20 s for the acknowledgement of its PING, and
10 s for a client that has never spoken. A stop and a reload wait for calls, and not for such clients."""
import pathlib
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import grpc

from raw_http2 import PREFACE, SETTINGS, RawClient, frame
from userd_service import TIMEOUT_S, Service, processes_under, wait_for

USER_17 = b"\x08\x11"
GET_USER = "/user.User/GetUser"


def connect(address):
    """A TCP connection."""
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), TIMEOUT_S)


def worker_pids(service):
    """Of all generations."""
    return {pid for pid, name in processes_under(service.master.pid).items() if name == "userd-worker"}


def hold_user(service):
    """A psql session that holds the row of user 17 until its input ends."""
    session = subprocess.Popen(["psql", "--no-psqlrc", "--quiet", service.database_url], stdin=subprocess.PIPE,
                               stdout=subprocess.DEVNULL)
    session.stdin.write(b"BEGIN; SELECT 1 FROM \"user\" WHERE id_auth = 17 FOR UPDATE;\n")
    session.stdin.flush()
    wait_for(lambda: service.sql("SELECT count(*) FROM pg_locks JOIN pg_class ON pg_class.oid = relation WHERE relname = 'user' AND "
                                 "mode = 'RowShareLock' AND granted") != "0", "the lock")
    return session


class Silent(unittest.TestCase):
    """Clients of every degree of silence."""

    def setUp(self):
        self.service = Service(settings="shutdown = { drain_timeout_ms = 60000; };")
        self.log = tempfile.NamedTemporaryFile("w+", prefix="userd-interop-log.")  # pylint: disable=consider-using-with
        self.addCleanup(self.log.close)
        self.service.log = self.log.fileno()
        self.addCleanup(self.service.stop)
        self.service.start()
        self.service.sql("INSERT INTO \"user\" (id_auth, username) VALUES (17, 'trinity')")

    def make_silent_clients(self):
        """One that never spoke, one that began to, one whose SETTINGS frame has no body, one that acknowledges nothing, and one
        that has had an answer."""
        address = self.service.gateway
        clients = [connect(address) for _ in range(4)]
        clients[1].sendall(PREFACE[:10])
        clients[2].sendall(PREFACE + frame(SETTINGS, 0, 0, bytes(6))[:9])
        clients[3].sendall(PREFACE + frame(SETTINGS, 0, 0))
        served = RawClient(address, GET_USER)
        served.socket.sendall(served.acknowledge() + served.call(USER_17))
        clients.append(served.socket)
        for client in clients:
            self.addCleanup(client.close)
        for client in clients[2:]:
            wait_for(lambda one=client: one.recv(65536, socket.MSG_PEEK), "an answer of the C core")
        wait_for(lambda: b"trinity" in served.socket.recv(65536, socket.MSG_PEEK), "the answer of the call")
        return clients

    def then_idle_clients_were_cut_off(self, clients, begun):
        """By the workers, before the C core's own limits and that of the drain."""
        print(f"{len(clients)} silent clients: {time.monotonic() - begun:.2f} s", flush=True)
        said = pathlib.Path(self.log.name).read_text(encoding="utf-8")
        print(said, flush=True)
        self.assertIn("drain ends idle connections", said)
        self.assertNotIn("drain timeout", said)

    def test_do_not_hold_up_a_stop(self):
        clients = self.make_silent_clients()
        begun = time.monotonic()
        self.service.master.send_signal(signal.SIGTERM)
        self.assertEqual(self.service.master.wait(TIMEOUT_S), 0)
        self.then_idle_clients_were_cut_off(clients, begun)

    def test_do_not_keep_old_workers_of_a_reload(self):
        clients = self.make_silent_clients()
        before = worker_pids(self.service)
        begun = time.monotonic()
        self.service.run("reload")
        wait_for(lambda: not before & worker_pids(self.service), "the old workers' end")
        self.then_idle_clients_were_cut_off(clients, begun)

    def test_may_speak_to_the_next_generation(self):
        """Of a connection that has not spoken nothing was read: it is another worker's."""
        self.speak_after("reload")

    def test_may_speak_after_an_upgrade(self):
        """The next program of the master goes on with those that no worker has taken."""
        self.speak_after("upgrade")

    def speak_after(self, command):
        """Connections that have said little or nothing before the command are served after it."""
        said = [0, 10, 0, 10]
        clients = [connect(self.service.gateway) for _ in said]
        for client, count in zip(clients, said):
            self.addCleanup(client.close)
            client.sendall(PREFACE[:count])
        before = worker_pids(self.service)
        self.service.run(command)
        wait_for(lambda: not before & worker_pids(self.service), "the old workers' end")
        for client, count in zip(clients, said):
            raw = RawClient(self.service.gateway, GET_USER, connection=client, said=count)
            client.sendall(raw.acknowledge() + raw.call(USER_17))
            wait_for(lambda one=client: b"trinity" in one.recv(65536, socket.MSG_PEEK), "an answer")

    def test_calls_are_finished_before_a_stop(self):
        """A call that waits for a row's lock is answered, while a silent client looks on."""
        self.make_silent_clients()
        blocker = hold_user(self.service)
        self.addCleanup(blocker.kill)
        answers = []

        def rename():
            with grpc.insecure_channel(self.service.gateway) as channel:
                answers.append(channel.unary_unary("/user.User/UserUpdate")(b"\x08\x11\x12\x05neo42", timeout=TIMEOUT_S))

        thread = threading.Thread(target=rename)
        thread.start()
        wait_for(lambda: int(self.service.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")) > 0,
                 "a call that waits")
        self.service.master.send_signal(signal.SIGTERM)
        time.sleep(1.5)  # longer than idle clients are given
        self.assertIsNone(self.service.master.poll())
        self.assertEqual(answers, [])
        blocker.communicate(b"", TIMEOUT_S)  # the session's end
        thread.join(TIMEOUT_S)
        self.assertEqual(len(answers), 1)
        self.assertEqual(self.service.master.wait(TIMEOUT_S), 0)


if __name__ == "__main__":
    unittest.main()
