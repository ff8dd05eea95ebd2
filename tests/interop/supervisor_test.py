#!/usr/bin/python3
"""The supervisor under load: a client that counts every call, and every call without an answer, while generations are replaced,
processes killed and the master re-executed. Small counts unless USERD_TEST_FULL is set (./dev test supervisor --full); the
figures come last. A reload or an upgrade fails no call; a kill fails at most those that were under way in the killed worker."""
import json
import os
import signal
import statistics
import subprocess
import time
import unittest

from userd_service import BINARY, Service, wait_for

IS_FULL = bool(os.environ.get("USERD_TEST_FULL"))
CONNECTIONS = 8
STREAMS = 4
IDS = 1000
DRAIN = "shutdown = { drain_timeout_ms = 5000; };"
FIGURES = []


def count(small, full):
    """How often a scenario does what it does."""
    return full if IS_FULL else small


class Load:
    """The load generator, from when it has been running for a moment to the report of the end."""

    def __init__(self, service, connections=CONNECTIONS):
        self.report = None
        self.process = subprocess.Popen(
            [BINARY / "tests/bench/load_generator", "--address", service.gateway, "--connections", str(connections), "--streams",
             str(STREAMS), "--ids", str(IDS), "--seconds", "3600", "--warmup", "0", "--reconnect", "--json"],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.connections = connections

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.report is None:
            self.process.kill()
            self.process.communicate()

    def end(self, what, **more):
        """Ends the load; (failures, unanswered among them), which go into the figures."""
        self.process.send_signal(signal.SIGTERM)
        self.report = json.loads(self.process.communicate(timeout=60)[0])
        failed = self.report["calls"] - self.report["statuses"].get("OK", 0) + self.report["unanswered"]
        FIGURES.append(f"{what}: calls={self.report['calls']} failed={failed} statuses={self.report['statuses']} "
                       f"unanswered={self.report['unanswered']} " + " ".join(f"{name}={value}" for name, value in more.items()))
        assert self.report["calls"] > 0, "no load"
        return failed


def given_service(settings="", workers=2):
    """A service with users."""
    service = Service(workers=workers, settings=settings)
    service.__enter__()
    service.sql("INSERT INTO \"user\" (id_auth, username) SELECT n, 'user' || n FROM generate_series(1, 1000) AS n")
    return service


def told(service, *arguments):
    """`userd ARGUMENT...`: its exit status, and what it said."""
    done = subprocess.run([BINARY / "master/userd", *arguments, "--run-dir", service.directory / "run"], check=False, timeout=120,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout.decode()


def status(service):
    """`userd status --json`."""
    return json.loads(told(service, "status", "--json")[1])


def ready(service):
    """READY workers of the generation in force, as status says them, by slot."""
    report = status(service)
    return [worker for worker in report["workers"]
            if worker["state"] == "ready" and worker["generation"] == report["master"]["generation"]]


def spread(service):
    """Connections of each READY worker, the most first."""
    return sorted((worker["connections"] for worker in ready(service)), reverse=True)


def median_ms(times):
    """Of times in seconds."""
    return round(statistics.median(times) * 1000)


def pss_kib(pid):
    """Proportional set size of a process."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


class Replaced(unittest.TestCase):
    """Whole generations, and the master itself: no call fails."""

    def setUp(self):
        started = time.monotonic()
        self.service = given_service(DRAIN)
        self.addCleanup(self.service.stop)
        self.start_s = time.monotonic() - started

    def repeat(self, command, times):
        """So many `userd COMMAND` in a row under load, none of which fails a call."""
        generation = status(self.service)["master"]["generation"]
        durations = []
        with Load(self.service) as load:
            for _ in range(times):
                begun = time.monotonic()
                code, said = told(self.service, command)
                durations.append(time.monotonic() - begun)
                self.assertEqual(code, 0, said)
            failed = load.end(f"{command} x {times}", median_ms=median_ms(durations), longest_ms=round(max(durations) * 1000))
        self.assertEqual(failed, 0)
        self.assertEqual(status(self.service)["master"]["generation"], generation + times)
        self.assertEqual(status(self.service)["master"]["pid"], self.service.master.pid)

    def test_reloads_fail_no_call(self):
        """One after the other, without a pause."""
        self.repeat("reload", count(3, 100))

    def test_upgrades_fail_no_call(self):
        """The master becomes its own program again, and again."""
        self.repeat("upgrade", count(3, 20))

    def test_a_broken_file_changes_nothing(self):
        """Neither by command nor by signal."""
        path = self.service.directory / "userd.conf"
        text = path.read_text(encoding="utf-8")
        with Load(self.service) as load:
            path.write_text(text.replace("workers =", "workerz ="), encoding="utf-8")
            for _ in range(count(2, 20)):
                self.assertEqual(told(self.service, "reload")[0], 1)
                self.service.master.send_signal(signal.SIGHUP)
            path.write_text(text, encoding="utf-8")
            failed = load.end("reload of a broken file")
        self.assertEqual(failed, 0)
        self.assertEqual(status(self.service)["master"]["generation"], 1)

    def test_a_reload_while_postgresql_is_away_works(self):
        """Calls get UNAVAILABLE as long as it is, each of them an answer, and are served again when it is back."""
        database = self.service.database
        with Load(self.service) as load:
            self.service.sql(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false", is_admin=True)
            self.service.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'", is_admin=True)
            wait_for(lambda: not any(worker["database_ready"] for worker in ready(self.service)), "away")
            code, said = told(self.service, "reload")
            self.service.sql(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true", is_admin=True)
            wait_for(lambda: all(worker["database_ready"] for worker in ready(self.service)), "back")
            load.end("reload while PostgreSQL is away")
        self.assertEqual(code, 0, said)
        self.assertEqual(load.report["unanswered"], 0)
        self.assertLessEqual(set(load.report["statuses"]), {"OK", "UNAVAILABLE"})

    def test_a_stop_answers_every_call(self):
        """Those that are under way are finished; later ones find nobody."""
        with Load(self.service) as load:
            time.sleep(0.5)
            self.service.master.send_signal(signal.SIGTERM)
            self.assertEqual(self.service.master.wait(60), 0)
            failed = load.end("SIGTERM")
        self.assertEqual(failed, 0)

    def test_memory_and_times(self):
        """Nothing to pass: figures."""
        with Load(self.service) as load:
            time.sleep(count(1, 10))
            report = status(self.service)
            sizes = {"master": pss_kib(report["master"]["pid"]), "eventd": pss_kib(report["eventd"]["pid"]),
                     "worker": max(pss_kib(worker["pid"]) for worker in report["workers"])}
            load.end("PSS in KiB under load", **sizes, database_to_serving_ms=round(self.start_s * 1000))


class Lost(unittest.TestCase):
    """Processes that die or hang: only what was under way in them is lost."""

    def setUp(self):
        self.service = given_service(DRAIN + "supervision = { hang_timeout_ms = 3000; };")
        self.addCleanup(self.service.stop)

    def lose_workers(self, number, times):
        """Each time one of two, and then both are there again."""
        with Load(self.service) as load:
            for i in range(times):
                lost = ready(self.service)[i % 2]  # in turn: who dies again and again comes back later and later
                os.kill(lost["pid"], number)
                wait_for(lambda gone=lost["pid"]: len(ready(self.service)) == 2 and
                         gone not in [worker["pid"] for worker in ready(self.service)], "another worker")
            failed = load.end(f"worker {signal.Signals(number).name} x {times}", most=times * CONNECTIONS * STREAMS)
        self.assertLessEqual(failed, times * CONNECTIONS * STREAMS)
        self.assertLessEqual(set(load.report["statuses"]), {"OK", "UNAVAILABLE"})

    def test_a_killed_worker_costs_only_its_calls(self):
        """kill -9."""
        self.lose_workers(signal.SIGKILL, count(2, 100))

    def test_a_stopped_worker_costs_only_its_calls(self):
        """SIGSTOP: seen by its silence."""
        self.lose_workers(signal.SIGSTOP, count(1, 3))

    def test_a_killed_eventd_costs_no_call(self):
        """kill -9."""
        times = count(2, 20)
        with Load(self.service) as load:
            for _ in range(times):
                lost = wait_for(lambda: (status(self.service)["eventd"] or {}).get("pid"), "eventd")
                os.kill(lost, signal.SIGKILL)
                wait_for(lambda gone=lost: ((status(self.service)["eventd"] or {}).get("pid") or gone) != gone, "another eventd")
            failed = load.end(f"eventd SIGKILL x {times}")
        self.assertEqual(failed, 0)


class Balance(unittest.TestCase):
    """Few long-lived connections, spread over all workers."""

    def setUp(self):
        self.service = given_service(DRAIN + "limits = { connection_age_ms = 1500; };")
        self.addCleanup(self.service.stop)

    def test_the_spread_is_even_and_even_again(self):
        """4/4; 2/1; and after a kill even again within an age, with no call failed by age."""
        with Load(self.service) as load:
            wait_for(lambda: spread(self.service) == [4, 4], "4/4")
            time.sleep(count(3, 15))
            self.assertEqual(load.end("connections of age 1.5 s"), 0)
            self.assertGreaterEqual(load.report["reconnects"], CONNECTIONS)
        with Load(self.service, connections=3) as load:
            wait_for(lambda: spread(self.service) == [2, 1], "2/1")
            self.assertEqual(load.end("3 connections over 2 workers"), 0)
        with Load(self.service) as load:
            wait_for(lambda: spread(self.service) == [4, 4], "4/4")
            os.kill(ready(self.service)[0]["pid"], signal.SIGKILL)
            wait_for(lambda: len(ready(self.service)) == 2, "another worker")
            begun = time.monotonic()
            wait_for(lambda: spread(self.service) == [4, 4], "4/4 after a kill")
            even_again_ms = round((time.monotonic() - begun) * 1000)
            load.end("kill with connections of age 1.5 s", even_again_ms=even_again_ms)


def tearDownModule():
    """The figures, when all is done."""
    print("\n" + "\n".join(FIGURES))


if __name__ == "__main__":
    unittest.main()
