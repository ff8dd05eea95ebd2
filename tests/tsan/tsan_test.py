#!/usr/bin/python3
"""The real programs under ThreadSanitizer: calls of which half are cancelled, reloads, killed database sessions, streams and events,
all at once, and not one report; and a race that is planted into a worker is reported, so that silence means something."""
import os
import pathlib
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "interop"))
import grpc  # noqa: E402
import kafka  # noqa: E402

from userd_service import BINARY, SOURCE, Service, wait_for  # noqa: E402

USERS = 2000
LOAD_S = int(os.environ.get("USERD_TEST_TSAN_SECONDS", "10"))
REPORT = "WARNING: ThreadSanitizer"


class WatchedService(Service):
    """userd whose programs write what ThreadSanitizer finds into files of their own."""

    def __init__(self, settings="", libexec=None):
        super().__init__(workers=2, settings=settings)
        self.libexec = libexec
        self.log = open(self.directory / "userd.log", "wb")

    def environment(self):
        options = (f"log_path={self.directory}/report:exitcode=0:halt_on_error=0:history_size=4:ignore_noninstrumented_modules=1"
                   f":suppressions={SOURCE}/tests/tsan/suppressions")
        environment = super().environment() | {"TSAN_OPTIONS": options}
        if self.libexec is not None:
            environment["USERD_LIBEXEC_DIR"] = str(self.libexec)
        return environment

    def stop(self):
        try:
            super().stop()
        finally:
            self.log.close()

    def reports(self):
        """What has been found so far, by all processes."""
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in self.directory.glob("report.*"))


def add_users(service):
    """The users that the load generator asks for: ids from 1 on, each name begins with "user" and the id."""
    service.sql(f'INSERT INTO "user" (id_auth, username) SELECT i, \'user\' || i FROM generate_series(1, {USERS}) AS i')


def start_load(service, *options, seconds=LOAD_S):
    """The load generator on both listeners; what it prints is read at its end."""
    command = [BINARY / "tests/bench/load_generator", "--connections", "6", "--streams", "16", "--seconds", str(seconds),
               "--ids", str(USERS), "--reconnect", *options]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def disturb(service, until):
    """Reloads, killed database sessions, streams that are left, and events, until the time is over; how many rounds."""
    producer = kafka.KafkaProducer(bootstrap_servers=service.servers)
    rounds = 0
    while time.monotonic() < until:
        for number in range(20):
            producer.send("registration", b'{"id": %d, "username": "event%d"}' % (100000 + rounds * 20 + number, number))
            producer.send("admin_delete_user", b'{"id": %d}' % (100000 + rounds * 20 + number - 10))
        producer.flush(30)
        with grpc.insecure_channel(service.gateway) as channel:
            watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=20)
            assert next(iter(watch)) == b"\x08\x01"
            service.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND pid <> pg_backend_pid()", is_admin=False)
            service.run("reload")
            watch.cancel()
        rounds += 1
    producer.close(5)
    return rounds


class ThreadSanitizer(unittest.TestCase):
    """One test for each way of calls, and one for the test itself."""

    def run_under_load(self, settings):
        """Everything at once; then an orderly end, and what was found."""
        with WatchedService(settings) as service:
            add_users(service)
            until = time.monotonic() + LOAD_S
            gateway = start_load(service, "--address", service.gateway, "--mix", "GetUser=6,UserUpdate=3,DeleteUser=1",
                                 "--cancel-mill", "500")
            post = start_load(service, "--address", service.post, "--mix", "GetByID=2,GetByIDs=1,GetByUsername=2",
                              "--cancel-mill", "300", "--timeout", "200m")
            rounds = disturb(service, until)
            said = [load.communicate(timeout=LOAD_S + 60)[0] for load in (gateway, post)]
            # Reloads and killed sessions may leave calls without an answer, none with a wrong one.
            self.assertTrue(all(" wrong=0 " in text for text in said), said)
            calls = service.status()["totals"]["calls"]["started"]
            pid = service.master.pid
            self.assertEqual(service.end(service.master), 0)
            service.master = None
            log = (service.directory / "userd.log").read_text(encoding="utf-8", errors="replace")
            reports = service.reports()
        self.assertGreater(rounds, 0)
        print(f"pid={pid} rounds={rounds} calls_of_last_workers={calls}", file=sys.stderr)
        self.assertNotIn(REPORT, reports)
        self.assertNotIn("Sanitizer", log)

    def test_no_race_is_reported(self):
        self.run_under_load("")

    def test_no_race_is_reported_without_core_bridge(self):
        self.run_under_load('core_bridge = "off";')

    def test_a_planted_race_is_reported(self):
        planted = BINARY / "worker/userd-worker-planted"
        with WatchedService() as prepared:
            libexec = prepared.directory / "libexec"
            libexec.mkdir()
            (libexec / "userd-worker").symlink_to(planted)
            (libexec / "userd-eventd").symlink_to(BINARY / "eventd/userd-eventd")
            prepared.end(prepared.master)
            prepared.master = None
            prepared.libexec = libexec
            prepared.start_userd()
            add_users(prepared)
            load = start_load(prepared, "--address", prepared.gateway, "--method", "GetUser", seconds=3)
            wait_for(lambda: REPORT in prepared.reports(), "report of the planted race")
            load.communicate(timeout=60)
            self.assertIn("planted", prepared.reports())


if __name__ == "__main__":
    unittest.main()
