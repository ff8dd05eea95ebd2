#!/usr/bin/python3
"""The supervisor under load: a client that counts every call, and every call without an answer, while generations are replaced,
processes killed and the master re-executed. Small counts unless USERD_TEST_FULL is set (./dev test supervisor --full); the
figures come last. A reload or an upgrade fails no call; a kill fails only calls that were under way in the killed worker."""
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import time
import unittest

from userd_service import BINARY, TIMEOUT_S, Service, processes_under, wait_for

IS_FULL = bool(os.environ.get("USERD_TEST_FULL"))


def count(small, full):
    """How often a scenario does what it does."""
    return full if IS_FULL else small


CONNECTIONS = 8
STREAMS = 4
IDS = 1000
DRAIN = "shutdown = { drain_timeout_ms = 5000; };"
STABLE_S = 10.0  # a worker that was READY for so long comes back after the shortest delay
LATE_S = 1.0     # how late a loaded machine may show us what has happened
AGE_MS = 3000
LOST_WORKERS = count(4, 6)  # enough for one to be lost every two seconds
FIGURES = []


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


def given_service(settings="", workers=2, log=None):
    """A service with users. `log`: a file to write its log to."""
    service = Service(workers=workers, settings=settings)
    service.log = log
    service.__enter__()
    service.sql("INSERT INTO \"user\" (id_auth, username) SELECT n, 'user' || n FROM generate_series(1, 1000) AS n")
    return service


def told(service, *arguments):
    """`userd ARGUMENT...`: its exit status, and what it said."""
    done = subprocess.run([BINARY / "master/userd", *arguments, "--run-dir", service.directory / "run"], check=False, timeout=120,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout.decode()


def metric(service, name):
    """A number of `userd metrics`, which looks at the service once."""
    return next(int(float(line.split()[1])) for line in told(service, "metrics")[1].splitlines() if line.startswith(name + " "))


def status(service):
    """`userd status --json`, which looks at the service for a second."""
    return json.loads(told(service, "status", "--json")[1])


def ready(service):
    """READY workers of the generation in force, as status says them, by slot."""
    report = status(service)
    return [worker for worker in report["workers"]
            if worker["state"] == "ready" and worker["generation"] == report["master"]["generation"]]


def ports_of(pid, address):
    """The clients' ports of the connections to `address` that a process holds."""
    inodes = set()
    try:
        entries = list(pathlib.Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return set()  # gone
    for entry in entries:
        try:
            target = os.readlink(entry)
        except OSError:
            continue  # closed in between
        if target.startswith("socket:["):
            inodes.add(target[len("socket:["):-1])
    listening = int(address.rpartition(":")[2])
    ports = set()
    for line in pathlib.Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        own, peer = (int(field.partition(":")[2], 16) for field in fields[1:3])
        if own == listening and fields[9] in inodes:
            ports.add(peer)
    return ports


def workers(service):
    """Process ids of the workers that live, of all generations, with the clients' ports of the connections that each holds."""
    pids = [pid for pid, name in processes_under(service.master.pid).items() if name == "userd-worker"]
    return {pid: ports_of(pid, service.gateway) for pid in pids}


def spread(service):
    """Connections of each worker, the most first."""
    return sorted((len(ports) for ports in workers(service).values()), reverse=True)


def wait_for_another(service, lost, number):
    """Until there are `number` READY workers again, and not `lost`."""
    wait_for(lambda: len(pids := set(workers(service))) == number and lost not in pids, "another worker")
    wait_for(lambda: metric(service, "userd_workers_ready") == number, "another READY worker")


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
        self.service = given_service(DRAIN)
        self.addCleanup(self.service.stop)

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

    def test_a_signal_brings_a_new_generation(self):
        """SIGHUP under load: how long until each worker of the new generation is READY."""
        times_s = []
        with Load(self.service) as load:
            for generation in range(2, 2 + count(2, 10)):
                wait_for(lambda: len(workers(self.service)) == 2, "the old ones are gone")
                begun = time.monotonic()
                self.service.master.send_signal(signal.SIGHUP)
                wait_for(lambda wanted=generation: metric(self.service, "userd_generation") == wanted, "a new generation")
                times_s.append(time.monotonic() - begun)
            failed = load.end(f"SIGHUP x {len(times_s)}", serving_median_ms=median_ms(times_s),
                              serving_longest_ms=round(max(times_s) * 1000))
        self.assertEqual(failed, 0)

    def test_memory_and_spread(self):
        """Figures; and eight connections are four and four."""
        def sizes():
            report = status(self.service)
            return {"master": pss_kib(report["master"]["pid"]), "eventd": pss_kib(report["eventd"]["pid"]),
                    "worker": max(pss_kib(worker["pid"]) for worker in report["workers"])}
        idle = sizes()
        with Load(self.service) as load:
            time.sleep(count(1, 10))
            loaded = sizes()
            held = spread(self.service)
            load.end("PSS in KiB", idle=idle, loaded=loaded, connections_per_worker=held)
        self.assertEqual(held, [4, 4])


class Lost(unittest.TestCase):
    """Processes that die or hang: only what was under way in them is lost."""

    def setUp(self):
        self.service = given_service(DRAIN + "supervision = { hang_timeout_ms = 3000; };", workers=LOST_WORKERS)
        self.addCleanup(self.service.stop)

    def settled(self):
        """Whether all workers live, with all connections among them."""
        held = [len(ports) for ports in workers(self.service).values()]
        return len(held) == LOST_WORKERS and sum(held) == CONNECTIONS

    def lost_in_turn(self, times):
        """The worker that is to be lost next, so many times: each slot when its last process has lived long enough to be forgiven,
        or the wait until it is back would grow to ten seconds."""
        lost_at = {}
        for _ in range(times):
            wait_for(self.settled, "all workers and connections")
            chosen = min(ready(self.service), key=lambda worker: (lost_at.get(worker["slot"], 0), -worker["connections"]))
            back_s = time.monotonic() - lost_at.get(chosen["slot"], 0)
            time.sleep(max(0, STABLE_S + LATE_S - back_s))
            yield chosen
            lost_at[chosen["slot"]] = time.monotonic()

    def lose_workers(self, number, times):
        """Each time one of them, and then all are there again. What failed was on connections that a lost worker held: not on those
        of another, nor on such that were made at the very moment and handed to it before the master could know."""
        ports = []
        times_s = []
        with Load(self.service) as load:
            for lost in self.lost_in_turn(times):
                ports.extend(workers(self.service)[lost["pid"]])
                os.kill(lost["pid"], number)
                begun = time.monotonic()
                wait_for_another(self.service, lost["pid"], LOST_WORKERS)
                times_s.append(time.monotonic() - begun)
            failed = load.end(f"worker {signal.Signals(number).name} x {times}", connections_lost=len(ports),
                              most=len(ports) * STREAMS, median_back_ms=median_ms(times_s),
                              longest_back_ms=round(max(times_s) * 1000))
        losses = load.report["losses"]
        self.assertEqual(load.report["losses_left_out"], 0)
        self.assertEqual(sum(loss["calls"] for loss in losses), failed)
        self.assertGreaterEqual(len(ports), times, "workers without connections were lost")
        self.assertLessEqual({loss["port"] for loss in losses}, set(ports), "calls failed that were not in a lost worker")
        self.assertLessEqual(max((loss["calls"] for loss in losses), default=0), STREAMS)
        self.assertEqual(set(load.report["statuses"]), {"OK"})

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


class Started(unittest.TestCase):
    """From nothing to READY."""

    def test_ready_is_told(self):
        """`userd run` where database and broker are there: exec until the service manager is told."""
        service = Service()
        service.start_is_held = True
        self.addCleanup(service.stop)
        service.start()
        times_s = [self.ready_s(service) for _ in range(count(2, 10))]
        FIGURES.append(f"start x {len(times_s)}: ready_median_ms={median_ms(times_s)} "
                       f"ready_longest_ms={round(max(times_s) * 1000)}")

    def ready_s(self, service):
        """One start and stop; how long until READY=1."""
        path = service.directory / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(path))
            manager.settimeout(TIMEOUT_S)
            begun = time.monotonic()
            with subprocess.Popen([BINARY / "master/userd", "run", "-c", service.directory / "userd.conf"],
                                  stdin=subprocess.DEVNULL, env=service.environment() | {"NOTIFY_SOCKET": str(path)}) as userd:
                try:
                    while b"READY=1" not in manager.recv(4096).split(b"\n"):
                        pass
                    lasted_s = time.monotonic() - begun
                finally:
                    code = service.end(userd)
        path.unlink()
        self.assertEqual(code, 0)
        return lasted_s


class Balance(unittest.TestCase):
    """Few long-lived connections, spread over all workers."""

    def setUp(self):
        self.service = given_service(DRAIN + f"limits = {{ connection_age_ms = {AGE_MS}; }};")
        self.addCleanup(self.service.stop)

    def test_the_spread_is_even_and_even_again(self):
        """4/4; 2/1; with no call failed by age."""
        with Load(self.service) as load:
            wait_for(lambda: spread(self.service) == [4, 4], "4/4")
            time.sleep(count(2, 10) * AGE_MS / 1000)
            self.assertEqual(load.end(f"connections of age {AGE_MS} ms"), 0)
            self.assertGreaterEqual(load.report["reconnects"], CONNECTIONS)
        with Load(self.service, connections=3) as load:
            wait_for(lambda: spread(self.service) == [2, 1], "2/1")
            self.assertEqual(load.end("3 connections over 2 workers"), 0)

    def renewed_until_even(self):
        """Waits for 4/4; how many of the connections that were made since then have become of age before it was."""
        old = set().union(*workers(self.service).values())
        made, renewed = set(), set()

        def is_even():
            held = workers(self.service)
            present = set().union(*held.values())
            made.update(present - old)
            renewed.update(made - present)
            return sorted(len(ports) for ports in held.values()) == [4, 4]

        wait_for(is_even, "4/4 after a kill")
        return len(renewed)

    def test_the_spread_is_even_again_after_a_kill(self):
        """Before every connection was renewed twice: each that is of age comes back to the worker with the fewest, where the one that it
        leaves, which still counts, is told from the others."""
        back_s, even_s, renewed = [], [], []
        with Load(self.service) as load:
            for _ in range(count(2, 10)):
                wait_for(lambda: spread(self.service) == [4, 4], "4/4")
                lost = min(workers(self.service))
                os.kill(lost, signal.SIGKILL)
                begun = time.monotonic()
                wait_for_another(self.service, lost, 2)
                back_s.append(time.monotonic() - begun)
                renewed.append(self.renewed_until_even())
                even_s.append(time.monotonic() - begun)
            load.end(f"kill x {len(even_s)} with connections of age {AGE_MS} ms", back_ms=[round(s * 1000) for s in back_s],
                     even_again_ms=[round(s * 1000) for s in even_s], renewed_twice=renewed)
        self.assertLess(max(renewed), CONNECTIONS)


def tearDownModule():
    """The figures, when all is done."""
    print("\n" + "\n".join(FIGURES))


if __name__ == "__main__":
    unittest.main()
