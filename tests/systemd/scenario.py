#!/usr/bin/python3
"""The package's life under a real systemd, from installation to purge: runs within the machine of tests/systemd/machine, as root,
with everything that it needs beside it in /srv/test. The steps build on each other and run in the order of their names."""
import asyncio
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import unittest
import urllib.error
import urllib.request

import grpc

HERE = pathlib.Path("/srv/test")
HANDLE = "/run/postgres-handle"
CONFIG = pathlib.Path("/etc/userd/userd.conf")
GATEWAY, POST = "127.0.0.1:50053", "127.0.0.1:50055"
METRICS = "http://127.0.0.1:9464/metrics"
TIMEOUT_S = 30
USER_17 = b"\x08\x11"
TRINITY = b"\x0a\x07trinity"


def wait_for(condition, what, timeout_s=TIMEOUT_S):
    """Evaluates condition() until it is true; its value."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not in time: {what}")
        time.sleep(0.02)


def run(*command, is_checked=True, timeout_s=60):
    """The output of a program that must succeed."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=timeout_s, check=False, text=True)
    if is_checked and done.returncode != 0:
        raise AssertionError(f"{command}: status {done.returncode}: {done.stdout}")
    return done.stdout.strip()


def show(name, unit="userd.service"):
    """A property of the unit."""
    return run("systemctl", "show", "--value", "--property", name, unit)


def is_active(unit="userd.service"):
    """As systemctl says."""
    return show("ActiveState", unit) == "active"


def main_pid():
    """The master's."""
    return int(show("MainPID"))


def ask(address, method, request, timeout_s=5):
    """The answer of one call, or None when it failed."""
    with grpc.insecure_channel(address) as channel:
        try:
            return channel.unary_unary(method)(request, timeout=timeout_s)
        except grpc.RpcError:
            return None


def is_serving():
    """Whether the Gateway gets the user's name, from the database."""
    return ask(GATEWAY, "/user.User/GetUser", USER_17) == TRINITY


def status():
    """`userd status --json`."""
    return json.loads(run("userd", "status", "--json"))


def children_of(pid):
    """Pids of its children."""
    return [int(word) for word in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def is_running(pid):
    """Whether there is such a process."""
    return os.path.exists(f"/proc/{pid}")


class Load:
    """Calls without a pause, from a few clients; counts those without an answer. A context manager. By grpc.aio, which has a
    thread that always polls: the synchronous client may leave a new connection lying for seconds."""

    CLIENTS = 4

    def __init__(self):
        self.is_over = threading.Event()
        self.answered = [0] * self.CLIENTS
        self.failures = []
        self.thread = threading.Thread(target=lambda: asyncio.run(self.call_all()))

    async def call_all(self):
        """Every client."""
        await asyncio.gather(*(self.call(number) for number in range(self.CLIENTS)))

    async def call(self, number):
        """One client."""
        async with grpc.aio.insecure_channel(GATEWAY, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            method = channel.unary_unary("/user.User/GetUser")
            while not self.is_over.is_set():
                try:
                    await method(USER_17, timeout=20)
                    self.answered[number] += 1
                except grpc.RpcError as error:
                    self.failures.append(f"{error.code()}: {error.details()}")
                    await asyncio.sleep(0.01)

    def __enter__(self):
        self.thread.start()
        wait_for(lambda: all(self.answered), "every client has an answer")
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join()

    def wait_for_more(self, count=200):
        """So many answers from now on, by every client."""
        before = list(self.answered)
        wait_for(lambda: all(now >= then + count for now, then in zip(self.answered, before)),
                 f"more answers: {before}, {self.answered}, {self.failures[:8]}")


class Package(unittest.TestCase):
    """One machine, one life."""

    @classmethod
    def setUpClass(cls):
        run(HERE / "private_postgres", "start", HANDLE)
        handle = dict(line.split("=", 1) for line in pathlib.Path(HANDLE).read_text(encoding="utf-8").splitlines())
        cls.password, cls.port, cls.admin_url = handle["password"], handle["port"], handle["admin_url"]
        run("psql", "--no-psqlrc", "--command", "CREATE DATABASE user_db OWNER userd", cls.admin_url + "postgres")
        cls.broker = subprocess.Popen([HERE / "embedded_broker"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        cls.servers = cls.broker.stdout.readline().strip().partition("=")[2]

    @classmethod
    def tearDownClass(cls):
        cls.broker.terminate()
        cls.broker.wait(TIMEOUT_S)
        cls.broker.stdout.close()
        run(HERE / "private_postgres", "remove", HANDLE)

    def setUp(self):
        self.begin = time.time()

    def run(self, result=None):
        """What the units said goes with a failure."""
        count = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > count:
            print(run("journalctl", "--no-pager", "--lines", "60", "--output", "cat", is_checked=False), flush=True)

    def log(self, unit="userd.service"):
        """The unit's, since the test began."""
        return run("journalctl", "--no-pager", "--unit", unit, "--since", f"@{int(self.begin)}", "--output", "cat")

    def restart(self):
        """Anew, and serving."""
        run("systemctl", "reset-failed", "userd.service", is_checked=False)
        run("systemctl", "restart", "userd.service")
        wait_for(is_serving, "serving")

    # --- steps ---

    def test_01_installation_makes_a_user_and_a_running_service(self):
        run("dpkg", "--install", HERE / "first.deb")
        self.assertTrue(is_active())
        self.assertEqual(run("systemctl", "is-enabled", "userd.service"), "enabled")
        self.assertEqual(run("systemctl", "is-enabled", "userd-gateway.socket", is_checked=False), "disabled")
        self.assertEqual(run("stat", "--format", "%U:%G %a", CONFIG), "root:userd 640")
        self.assertEqual(run("stat", "--format", "%U %a", "/etc/credstore"), "root 700")
        workers = len(os.sched_getaffinity(0))
        wait_for(lambda: show("StatusText").startswith(f"{workers} worker"), "a line of numbers")

    def test_02_serves_with_a_password_that_only_it_can_read(self):
        text = CONFIG.read_text(encoding="utf-8")
        text = text.replace("userd@127.0.0.1/", f"userd@127.0.0.1:{self.port}/").replace("127.0.0.1:9092", self.servers)
        CONFIG.write_text(text.replace("workers = 0;", "workers = 2;"), encoding="utf-8")
        credential = pathlib.Path("/etc/credstore/database-password")
        credential.write_text(self.password + "\n", encoding="utf-8")
        credential.chmod(0o600)
        run("env", f"DB_URL=postgresql://userd:{self.password}@127.0.0.1:{self.port}/user_db", "userd", "migrate", "up")
        run("psql", "--no-psqlrc", "--command", """INSERT INTO "user" (username, id_auth) VALUES ('trinity', 17)""",
            self.admin_url + "user_db")
        self.restart()
        self.assertEqual(ask(POST, "/user_post.UserPost/GetByID", USER_17), TRINITY)

    def test_03_works_in_its_sandbox(self):
        run("systemd-analyze", "security", "--no-pager", "--threshold=15", "userd.service")
        for pid in [main_pid()] + children_of(main_pid()):
            facts = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
                         .splitlines() if ":\t" in line)
            self.assertEqual((facts["CapEff"], facts["CapBnd"], facts["NoNewPrivs"], facts["Seccomp"]),
                             ("0" * 16, "0" * 16, "1", "2"), pid)
            self.assertNotEqual(facts["Uid"].split()[0], "0")
        # what the sandbox forbids and a setting needs is said in the log
        self.assertNotIn("is not kept", run("journalctl", "--no-pager", "--unit", "userd.service", "--output", "cat"))
        self.assertEqual(show("NRestarts"), "0")
        self.assertEqual(len(children_of(main_pid())), 3)

    def test_04_reload_costs_no_call(self):
        pid = main_pid()
        before = status()["master"]["generation"]
        with Load() as load:
            for _ in range(3):
                run("systemctl", "reload", "userd.service")
                load.wait_for_more()
        self.assertEqual(load.failures, [])
        self.assertEqual((main_pid(), status()["master"]["generation"]), (pid, before + 3))
        print(f"reload: {sum(load.answered)} calls, 0 failed", flush=True)

    def test_05_a_reload_of_a_broken_file_fails_and_changes_nothing(self):
        text = CONFIG.read_text(encoding="utf-8")
        CONFIG.write_text(text.replace("workers = 2;", "workerz = 2;"), encoding="utf-8")
        try:
            run("systemctl", "reload", "userd.service", is_checked=False)
            self.assertIn("did you mean", wait_for(lambda: re.search(".*workerz.*", self.log()), "the reason").group())
        finally:
            CONFIG.write_text(text, encoding="utf-8")
        self.assertTrue(is_active() and is_serving())

    def test_06_upgrade_of_the_package_keeps_the_service(self):
        pid = main_pid()
        program = os.stat(f"/proc/{pid}/exe").st_ino
        with Load() as load:
            run("dpkg", "--install", HERE / "second.deb")
            wait_for(lambda: is_active() and os.stat(f"/proc/{main_pid()}/exe").st_ino != program, "the new program")
            load.wait_for_more()
        print(f"upgrade: {sum(load.answered)} calls, {len(load.failures)} failed", flush=True)
        self.assertRegex(run("dpkg-query", "--show", "--showformat", "${Version}", "userd"), r"^[0-9.]+\+second$")
        self.assertEqual(load.failures, [])
        self.assertEqual(main_pid(), pid)
        self.assertEqual(CONFIG.read_text(encoding="utf-8").count("workers = 2;"), 1)

    def install(self, name):
        """Another release; what dpkg says. The service goes on as the same process, and every call is answered."""
        pid = main_pid()
        with Load() as load:
            said = run("dpkg", "--install", HERE / name)
            load.wait_for_more()
        self.assertEqual(load.failures, [])
        self.assertEqual((main_pid(), is_active(), show("NRestarts")), (pid, True, "0"))
        return said

    def test_06a_upgrade_of_the_package_with_a_mistake_in_the_configuration_keeps_the_service(self):
        text = CONFIG.read_text(encoding="utf-8")
        CONFIG.write_text(text.replace("workers = 2;", "workerz = 2;"), encoding="utf-8")
        try:
            said = self.install("third.deb")
        finally:
            CONFIG.write_text(text, encoding="utf-8")
        self.assertIn("the running service goes on, and has not taken the new release:", said)
        self.assertIn("workerz", said)
        self.assertIn("When this is mended: userd upgrade", said)
        run("userd", "upgrade")
        self.assertTrue(is_serving())

    def test_06b_upgrade_of_the_package_with_a_worker_that_cannot_run_keeps_the_service(self):
        said = self.install("unfit.deb")
        self.assertIn("the running service goes on, and has not taken the new release:", said)
        self.assertRegex(said, "a new worker ended before it was ready|the new worker.s program cannot be run")
        self.assertIn("has taken the new release", self.install("second.deb"))

    def test_06c_upgrade_of_the_package_during_a_reload_waits_for_it(self):
        generation = status()["master"]["generation"]
        run("systemctl", "kill", "--signal", "HUP", "userd.service")
        self.assertIn("has taken the new release", self.install("third.deb"))
        self.assertEqual(status()["master"]["generation"], generation + 2)
        self.install("second.deb")

    def test_06d_signals_to_the_whole_unit_spoil_no_reload(self):
        generation = status()["master"]["generation"]
        for _ in range(10):
            run("systemctl", "kill", "--signal", "HUP", "userd.service")
        wait_for(lambda: status()["master"]["generation"] > generation + 1, "reloads")
        self.assertNotIn("reload failed", self.log())

    def test_07_a_killed_master_is_started_again_and_leaves_no_child(self):
        pid = main_pid()
        children = children_of(pid)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: main_pid() not in (0, pid), "a new master")
        wait_for(is_serving, "serving")
        wait_for(lambda: not any(is_running(child) for child in children), "the old children's end")
        self.assertEqual(show("NRestarts"), "1")

    def test_08_the_watchdog_sees_a_master_that_stands_still(self):
        drop_in = pathlib.Path("/run/systemd/system/userd.service.d/watchdog.conf")
        drop_in.parent.mkdir(parents=True)
        drop_in.write_text("[Service]\nWatchdogSec=2\n", encoding="utf-8")
        run("systemctl", "daemon-reload")
        self.restart()
        pid = main_pid()
        time.sleep(3)  # a master that works is let live for longer than that
        self.assertEqual((main_pid(), show("NRestarts")), (pid, "0"))
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: main_pid() not in (0, pid), "a new master")
        wait_for(is_serving, "serving")
        self.assertIn("watchdog", self.log().lower())
        drop_in.unlink()
        run("systemctl", "daemon-reload")

    def test_09_stop_is_clean(self):
        with Load() as load:
            pids = [main_pid()] + children_of(main_pid())
            run("systemctl", "stop", "userd.service")
        self.assertEqual((show("Result"), show("ExecMainStatus"), is_active()), ("success", "0", False))
        self.assertFalse(any(is_running(pid) for pid in pids))
        self.assertFalse(os.path.exists("/run/userd"))
        # what was refused was refused: no call was cut off
        self.assertEqual([text for text in load.failures if "UNAVAILABLE" not in text], [])

    def test_09a_a_stop_that_was_asked_for_stays_one(self):
        run("systemctl", "start", "userd.service")
        wait_for(is_serving, "serving")
        run("userd", "stop")
        wait_for(lambda: show("ActiveState") != "deactivating", "the end of the unit")
        # one that is to be started again is "activating" and "auto-restart"
        self.assertEqual((show("ActiveState"), show("SubState"), show("Result")), ("inactive", "dead", "success"))

    def test_09b_what_passes_by_itself_never_becomes_final(self):
        with socket.create_server(("0.0.0.0", 50053)):
            run("systemctl", "start", "--no-block", "userd.service")
            wait_for(lambda: int(show("NRestarts")) > 5, "more tries than systemd's limit would allow")
        wait_for(is_serving, "serving")
        run("systemctl", "stop", "userd.service")
        self.assertIn("cannot listen on", self.log())

    def test_09c_a_secret_that_is_not_there_yet_is_waited_for(self):
        text = CONFIG.read_text(encoding="utf-8")
        secret = pathlib.Path("/var/lib/userd/late")
        CONFIG.write_text(text.replace("options = { };", f'options = {{ sasl_password_file = "{secret}"; }};', 1), encoding="utf-8")
        self.assertIn(str(secret), CONFIG.read_text(encoding="utf-8"))
        try:
            run("systemctl", "reset-failed", "userd.service", is_checked=False)
            run("systemctl", "start", "--no-block", "userd.service")
            wait_for(lambda: int(show("NRestarts")) > 1, "a second try")
            self.assertIn(f"cannot read {secret}", self.log())
            secret.write_text("late\n", encoding="utf-8")
            shutil.chown(secret, "userd")
            wait_for(is_serving, "serving")
        finally:
            CONFIG.write_text(text, encoding="utf-8")
            secret.unlink(missing_ok=True)
        run("systemctl", "stop", "userd.service")

    def test_10_a_connection_starts_the_service(self):
        run("systemctl", "start", "userd-gateway.socket", "userd-post.socket")
        self.assertFalse(is_active())
        answer = ask(GATEWAY, "/user.User/GetUser", USER_17, timeout_s=TIMEOUT_S)
        self.assertEqual(answer, TRINITY)
        wait_for(is_active, "active")
        log = self.log()
        self.assertRegex(log, r"listening listener=gateway address=\S+:50053 inherited=yes")
        self.assertRegex(log, r"listening listener=post address=\S+:50055 inherited=yes")
        self.assertNotIn("inherited socket closed", log)

    def test_11_restart_behind_sockets_fails_no_call(self):
        with socket.create_connection(("127.0.0.1", 50053)), Load() as load:
            run("systemctl", "restart", "userd.service")
            load.wait_for_more()
        self.assertEqual(load.failures, [])
        print(f"restart behind sockets, with a silent client: {sum(load.answered)} calls, 0 failed", flush=True)

    def test_12_metrics_come_from_a_process_with_fewer_rights(self):
        run("systemctl", "start", "userd-metrics.service")
        with urllib.request.urlopen(METRICS, timeout=TIMEOUT_S) as answer:
            self.assertIn("\nuserd_up 1\n", answer.read().decode())
        pid = int(show("MainPID", "userd-metrics.service"))
        self.assertNotEqual(os.stat(f"/proc/{pid}").st_uid, os.stat(f"/proc/{main_pid()}").st_uid)
        run("systemd-analyze", "security", "--no-pager", "--threshold=15", "userd-metrics.service")
        # it outlives the service, and finds the next one
        run("systemctl", "stop", "userd-gateway.socket", "userd-post.socket", "userd.service")
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(METRICS, timeout=TIMEOUT_S).close()
        with caught.exception as answer:
            self.assertEqual((answer.code, "\nuserd_up 0\n" in "\n" + answer.read().decode()), (503, True))
        run("systemctl", "start", "userd.service")
        with urllib.request.urlopen(METRICS, timeout=TIMEOUT_S) as answer:
            self.assertEqual(answer.status, 200)

    def test_19_installation_after_a_removal_runs_it_again(self):
        run("dpkg", "--remove", "userd")
        wait_for(lambda: not is_active(), "the end")
        run("dpkg", "--install", HERE / "second.deb")
        self.assertEqual((is_active(), run("systemctl", "is-enabled", "userd.service")), (True, "enabled"))
        wait_for(is_serving, "serving")

    def test_20_removal_stops_it_and_purge_leaves_nothing(self):
        pid = main_pid()
        run("dpkg", "--remove", "userd")
        self.assertFalse(is_running(pid))
        self.assertTrue(CONFIG.exists())
        self.assertFalse(os.path.exists("/lib/systemd/system/userd.service"))
        run("dpkg", "--purge", "userd")
        for path in ("/etc/userd", "/var/lib/userd", "/run/userd", "/etc/systemd/system/multi-user.target.wants/userd.service",
                     "/etc/systemd/system/userd.service"):
            self.assertFalse(os.path.lexists(path), path)


if __name__ == "__main__":
    unittest.main(verbosity=2, failfast=True)
