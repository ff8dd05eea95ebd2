#!/usr/bin/python3
"""Several instances on one database: the outbox goes on within 30 s when the one that publishes it is lost without a word, or loses Kafka.

A network that is cut is made twice: by a proxy that is stopped, so that its kernel goes on acknowledging what PostgreSQL sends, and, as
root, by a network namespace whose link goes down, so that nobody acknowledges anything."""
import contextlib
import multiprocessing
import os
import pathlib
import selectors
import signal
import socket
import subprocess
import tempfile
import time
import unittest

import userd_service

TAKEOVER_S = 30
ROWS = 5
WRITE_ROWS = f"""INSERT INTO outbox (destination, id_auth, key, value)
    SELECT 1, number, convert_to(number::text, 'UTF8'), convert_to('{{"id": ' || number || '}}', 'UTF8')
    FROM generate_series(1, {ROWS}) number"""
HOST_ADDRESS = "10.213.77.1"
GUEST_ADDRESS = "10.213.77.2"


def forward(listener, target):
    """Carries bytes between each connection and `target`, for ever."""
    peers = {}
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                client, _ = listener.accept()
                server = socket.create_connection(target)
                peers[client], peers[server] = server, client
                selector.register(client, selectors.EVENT_READ)
                selector.register(server, selectors.EVENT_READ)
                continue
            if key.fileobj not in peers:
                continue
            try:
                data = key.fileobj.recv(65536)
                peers[key.fileobj].sendall(data)
            except OSError:
                data = b""
            if not data:
                other = peers.pop(key.fileobj)
                peers.pop(other)
                for one in (key.fileobj, other):
                    selector.unregister(one)
                    one.close()


class Proxy:
    """A process before PostgreSQL that can be stopped. A context manager."""

    def __enter__(self):
        handle = userd_service.read_handle(os.environ["USERD_TEST_POSTGRES"])
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.process = multiprocessing.get_context("fork").Process(
            target=forward, args=(listener, ("127.0.0.1", int(handle["port"]))), daemon=True)
        self.process.start()
        listener.close()
        return self

    def __exit__(self, *_):
        self.go_on()
        self.process.kill()
        self.process.join()

    def hold(self):
        """Its kernel acknowledges, and nobody reads."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self):
        """As if nothing had been."""
        os.kill(self.process.pid, signal.SIGCONT)


class Instance(userd_service.Service):
    """A service on the database of another, by a way of its own: `url` makes a URL of the database's, `prefix` goes before commands."""

    def __init__(self, first=None, servers=None, url=None, prefix=(), **options):
        super().__init__(workers=1, **options)
        self.first = first
        self.given_servers = servers
        self.url = url
        self.prefix = list(prefix)

    def start(self):
        self.log = open(self.directory / "log", "w+b")  # pylint: disable=consider-using-with
        if self.first is None:
            self.sql(f"CREATE DATABASE {self.database} OWNER userd", is_admin=True)
        else:
            self.database = self.first.database
        self.database_url = userd_service.read_handle(os.environ["USERD_TEST_POSTGRES"])["url"] + self.database
        self.servers = self.given_servers
        if self.servers is None:
            self.start_broker()
        self.write_config()
        if self.first is None:
            self.run("migrate", "up")
        if self.url is not None:
            self.database_url = self.url(self.database_url)
            self.write_config()
        self.start_userd()

    def start_userd(self):
        self.master = subprocess.Popen([*self.prefix, userd_service.BINARY / "master/userd", "run", "-c", self.directory / "userd.conf"],
                                       stdin=subprocess.DEVNULL, stderr=self.log, env=self.environment())
        userd_service.wait_for(self.answers, "its master answers")

    def answers(self):
        """Whether `userd status` works; the gateway may be out of our reach."""
        with contextlib.suppress(subprocess.CalledProcessError):
            return bool(self.status()["workers"])
        return False

    def stop(self):
        try:
            if self.first is not None:
                self.sql = lambda *_, **__: ""  # the database is the first one's to drop
            super().stop()
        finally:
            if self.log is not None:
                self.log.close()

    def says(self, text):
        """Whether the log holds it."""
        return text in pathlib.Path(self.log.name).read_text(encoding="utf-8", errors="replace")

    def end(self, process):  # pylint: disable=arguments-differ
        status = super().end(process)
        if process is self.master:
            os.write(2, pathlib.Path(self.log.name).read_bytes())  # where CTest looks for sanitizers' reports
        return status

    def outbox(self):
        """What this instance says of the outbox."""
        return self.status()["totals"]["outbox"]

    def is_relay(self):
        """Whether it publishes, as it thinks."""
        with contextlib.suppress(subprocess.CalledProcessError):
            return any(worker["relay"] for worker in self.status()["workers"])
        return False

    def await_relay(self, timeout_s=userd_service.TIMEOUT_S):
        """It publishes, and its session holds the lock."""
        userd_service.wait_for(self.is_relay, "the relay", timeout_s)
        userd_service.wait_for(lambda: self.sql("SELECT has_lock AND can_publish FROM outbox_lease") == "t", "the lease")

    def is_empty(self):
        """Nothing waits."""
        return self.sql("SELECT count(*) FROM outbox") == "0"


class LostRelay(unittest.TestCase):
    """The owner of the lease is there no more, and its session is."""

    def check_takeover(self, lost, other, cut):
        """`other` publishes what waits within 30 s."""
        fence = int(lost.sql("SELECT fence FROM outbox_lease"))
        cut()
        began = time.monotonic()
        other.sql(WRITE_ROWS)
        userd_service.wait_for(other.is_empty, "published by another", TAKEOVER_S)
        self.assertLess(time.monotonic() - began, TAKEOVER_S)
        self.assertTrue(other.is_relay())
        self.assertGreater(int(other.sql("SELECT fence FROM outbox_lease")), fence)
        self.assertTrue(other.says("relay holds the outbox"))
        userd_service.wait_for(lambda: other.sql("SELECT has_lock FROM outbox_lease") == "t", "the lock of the lost session is taken")
        userd_service.wait_for(lambda: not lost.is_relay(), "the lost one knows that it is none")

    def test_by_a_proxy_that_is_stopped(self):
        """PostgreSQL's keepalives are answered all the time: they would find nothing."""
        with Proxy() as proxy, Instance(url=lambda url: url.replace(url.rpartition(":")[2].partition("/")[0], str(proxy.port))) as lost:
            lost.await_relay()
            with Instance(first=lost, servers=lost.servers) as other:
                self.check_takeover(lost, other, proxy.hold)
                proxy.go_on()
                other.sql(WRITE_ROWS)
                userd_service.wait_for(other.is_empty, "published")
                self.assertTrue(other.is_relay())
                self.assertFalse(lost.is_relay())

    def test_by_a_network_that_is_cut(self):
        """Nobody answers: real packets are dropped."""
        with Namespace() as namespace:
            lost = Instance(url=namespace.url, prefix=namespace.prefix)
            lost.start_broker = lambda: namespace.start_broker(lost)
            with lost:
                lost.await_relay()
                with Instance(first=lost) as other:
                    self.check_takeover(lost, other, namespace.cut)
                    namespace.mend()

    def test_by_a_process_that_is_killed(self):
        """The session ends with it: nobody waits for the end of the lease."""
        with Instance() as lost:
            lost.await_relay()
            with Instance(first=lost, servers=lost.servers) as other:
                userd_service.wait_for(lambda: other.says('relay" backend_pid'), "another that waits")
                for pid, name in userd_service.processes_under(lost.master.pid).items():
                    if name.startswith("userd-worker"):
                        os.kill(pid, signal.SIGKILL)
                userd_service.wait_for(lambda: other.sql("SELECT fence FROM outbox_lease") == "2", "a successor")
                self.assertTrue(lost.says("reason=owner_has_gone") or other.says("reason=owner_has_gone"))


class Namespace:
    """A network of its own with a link to ours, and PostgreSQL at our end of it. A context manager."""

    def __init__(self):
        self.name = f"userd-test-{os.getpid()}"
        self.link = f"ut{os.getpid() % 1000000}"
        self.prefix = ["ip", "netns", "exec", self.name]
        self.postgres = None
        self.old_handle = os.environ["USERD_TEST_POSTGRES"]

    @staticmethod
    def ip(*words):
        """ip(8), which must work."""
        subprocess.run(["ip", *words], check=True, timeout=userd_service.TIMEOUT_S, capture_output=True)

    def __enter__(self):
        try:
            self.ip("netns", "add", self.name)
        except (OSError, subprocess.SubprocessError) as error:
            text = f"left out: a network that is cut: no network namespace can be made: {error}"
            print(text, flush=True)
            raise unittest.SkipTest(text) from error
        try:
            self.open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def open(self):
        """The link, and a cluster that listens on it."""
        self.ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        self.ip("address", "add", f"{HOST_ADDRESS}/30", "dev", self.link)
        self.ip("link", "set", self.link, "up")
        self.ip("-n", self.name, "address", "add", f"{GUEST_ADDRESS}/30", "dev", "eth0")
        self.ip("-n", self.name, "link", "set", "lo", "up")
        self.ip("-n", self.name, "link", "set", "eth0", "up")
        self.postgres = tempfile.mktemp(prefix="userd-interop-postgres.")
        self.tool("start")
        handle = userd_service.read_handle(self.postgres)
        os.environ["USERD_TEST_POSTGRES"] = self.postgres
        data = pathlib.Path(handle["directory"]) / "data"
        with open(data / "pg_hba.conf", "a", encoding="utf-8") as rules:
            rules.write(f"host all all {GUEST_ADDRESS}/32 scram-sha-256\n")
        with open(data / "postgresql.conf", "a", encoding="utf-8") as settings:
            settings.write(f"listen_addresses = '127.0.0.1,{HOST_ADDRESS}'\n")
        self.tool("stop")
        self.tool("start")

    def tool(self, verb):
        """tests/tools/private_postgres."""
        subprocess.run([userd_service.SOURCE / "tests/tools/private_postgres", verb, self.postgres], check=True, timeout=120,
                       stdout=subprocess.DEVNULL)

    def __exit__(self, *_):
        os.environ["USERD_TEST_POSTGRES"] = self.old_handle
        with contextlib.suppress(Exception):
            self.tool("remove")
        with contextlib.suppress(Exception):
            self.ip("netns", "del", self.name)
        with contextlib.suppress(Exception):
            self.ip("link", "del", self.link)

    def start_broker(self, service):
        """One of its own: whoever is in here reaches nothing else of ours."""
        service.broker = subprocess.Popen([*self.prefix, userd_service.BINARY / "tests/embedded_broker"],  # pylint: disable=consider-using-with
                                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        service.servers = service.broker.stdout.readline().strip().partition("=")[2]

    @staticmethod
    def url(url):
        """The way from in there."""
        return url.replace("127.0.0.1", HOST_ADDRESS)

    def cut(self):
        """From now on what is sent is dropped."""
        self.ip("-n", self.name, "link", "set", "eth0", "down")

    def mend(self):
        """And arrives again."""
        self.ip("-n", self.name, "link", "set", "eth0", "up")


class RelayWithoutKafka(unittest.TestCase):
    """The owner of the lease is well, and does not reach Kafka."""

    def test_gives_way_to_one_that_reaches_it(self):
        """And is the one again when it alone is left."""
        with Instance(servers="127.0.0.1:1") as poor:
            userd_service.wait_for(poor.is_relay, "the only one publishes")
            poor.sql(WRITE_ROWS)
            with Instance(first=poor) as rich:
                userd_service.wait_for(poor.is_empty, "published by the one that reaches Kafka", TAKEOVER_S)
                self.assertTrue(rich.is_relay())
                userd_service.wait_for(lambda: not poor.is_relay(), "the other gave way")
            userd_service.wait_for(poor.is_relay, "the only one publishes again")

    def test_says_that_nobody_publishes(self):
        """In the log, in the status and in the metrics, and when it is over."""
        with Instance(servers="127.0.0.1:1") as poor:
            poor.sql(WRITE_ROWS)
            userd_service.wait_for(lambda: poor.says("nobody relays the outbox since=20"), "the log says it")
            outbox = poor.outbox()
            self.assertGreater(outbox["unrelayed_us"], 10_000_000)
            self.assertEqual(outbox["backlog"], ROWS)
            self.assertIn("outbox: nobody relays it since ", poor.run("status"))
            seconds = [line for line in poor.run("metrics").splitlines() if line.startswith("userd_outbox_unrelayed_seconds")]
            self.assertGreater(float(seconds[0].split()[1]), 10)
            with Instance(first=poor, servers="127.0.0.1:1") as second:
                userd_service.wait_for(lambda: second.outbox()["backlog"] == ROWS, "an instance that does not publish sees the backlog")
                userd_service.wait_for(lambda: second.outbox()["oldest_us"] > 10_000_000, "and its age")
                userd_service.wait_for(lambda: second.outbox()["unrelayed_us"] > 10_000_000, "and for how long")
                self.assertFalse(second.is_relay())
            with Instance(first=poor) as rich:
                userd_service.wait_for(lambda: poor.outbox()["unrelayed_us"] == 0, "somebody publishes")
                self.assertEqual(rich.outbox()["unrelayed_us"], 0)
                userd_service.wait_for(lambda: poor.says("the outbox is relayed again"), "the log says so")


if __name__ == "__main__":
    unittest.main()
