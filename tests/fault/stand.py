"""What a fault run stands on, all of it its own, because all of it is restarted, hung and killed: a PostgreSQL cluster, a broker
(embedded, or a real Apache Kafka of one node or of three), one userd, and sometimes a second one beside it."""
import os
import pathlib
import shutil
import signal
import subprocess
import time

import cluster
import failpoints
import oracle
import userd_service

TOOLS = userd_service.SOURCE / "tests/tools"
DRAIN_TIMEOUT_MS = 5000
STOP_SLACK_S = 5
EMPTY_TIMEOUT_S = 60
NODES = {"apache": 1, "apache3": 3}


def send_signal(pids, number):
    """To those that still live."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


class Instance:
    """One `userd run` with a run directory of its own."""

    def __init__(self, stand, name):
        self.stand = stand
        self.name = name
        self.process = None
        self.gateway = None

    def start(self, is_waiting=True):
        """Up to SERVING, unless told not to wait."""
        directory = self.stand.directory / self.name
        listeners = directory / "listeners"
        listeners.unlink(missing_ok=True)
        self.stand.write_instance_config(self.name)
        with open(self.stand.directory / f"{self.name}.log", "ab") as log:
            self.process = subprocess.Popen(
                [self.stand.program, "run", "-c", self.stand.directory / f"{self.name}.conf"],
                stdin=subprocess.DEVNULL, stderr=log, stdout=log, env=self.stand.environment())
        if is_waiting:
            userd_service.wait_for(listeners.exists, "listening")
            self.stand.gateway = self.gateway = userd_service.wait_for(
                lambda: listeners.read_text(encoding="utf-8").split()[1:2], "addresses")[0]
            userd_service.wait_for(self.stand.is_serving, "SERVING")

    def pids(self, program):
        """Of its userd-worker or userd-eventd processes; the kernel cuts names at 15 characters."""
        return [pid for pid, name in userd_service.processes_under(self.process.pid).items() if name == program[:15]]

    def is_running(self):
        """The master lives."""
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """As a power cut would: the children leave with their master."""
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s):
        """SIGTERM; (exit status, or None when it was late and killed; seconds that it took)."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            status = None
        return status, time.monotonic() - begun


class Stand(userd_service.Service):
    """All of it. A context manager."""

    def __init__(self, kafka="embedded"):
        super().__init__(workers=2)
        self.kafka = kafka
        self.postgres_handle = self.directory / "postgres"
        self.program = userd_service.BINARY / "master/userd"
        self.cluster = cluster.Cluster(self.directory / "kafka", NODES[kafka]) if kafka in NODES else None
        self.failpoints = failpoints.Failpoints(self.directory / "failpoints")
        self.main = Instance(self, "run")
        self.second = Instance(self, "second")
        self.stops = []   # (what, status, seconds, deadline in seconds) of every stop, for the check
        self.drains = []  # (what, rows, seconds) of every outage's end: how long the outbox took to empty

    # ---- life

    def start(self):
        """Everything up to SERVING, but for the oracle."""
        self.postgres("start")
        os.environ["USERD_TEST_POSTGRES"] = str(self.postgres_handle)
        self.sql(f"CREATE DATABASE {self.database} OWNER userd", is_admin=True)
        handle = userd_service.read_handle(self.postgres_handle)
        self.database_url = handle["url"] + self.database
        self.admin_url = handle["admin_url"] + self.database
        self.database_password = handle["password"]
        self.start_broker()
        self.write_instance_config("run")
        self.run("migrate", "up")

    def run(self, *arguments):
        subprocess.run([self.program, *arguments, "-c", self.directory / "run.conf"], check=True,
                       env=self.environment(), timeout=userd_service.TIMEOUT_S, stderr=subprocess.DEVNULL)

    def start_userd(self):
        self.main.start()

    def stop(self):
        """Whatever state everything is in."""
        self.hang_postgres(False)
        for instance in (self.second, self.main):
            if instance.is_running():
                send_signal(userd_service.processes_under(instance.process.pid), signal.SIGCONT)
                instance.kill()
        if self.broker is not None:
            send_signal([self.broker.pid], signal.SIGCONT)
            self.broker.kill()
            self.broker.wait()
            self.broker.stdout.close()
            self.broker.stdin.close()
        if self.cluster is not None:
            self.cluster.stop()
        subprocess.run([TOOLS / "private_postgres", "remove", self.postgres_handle], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def environment(self):
        return dict(super().environment(), USERD_FAILPOINTS_FILE=str(self.failpoints.path))

    def write_instance_config(self, name):
        """Ports are chosen by the system; short deadlines, because they are waited for."""
        session_ms = 6000 if self.is_apache() else 3500
        (self.directory / f"{name}.conf").write_text(f"""
            workers = {self.workers};
            run_dir = "{self.directory}/{name}";
            listeners = ( {{ name = "gateway"; address = "127.0.0.1:0"; services = [ "user.User" ]; }} );
            database = {{ url = "{self.database_url}"; connect_timeout_ms = 1000; statement_timeout_ms = 3000; }};
            kafka = {{ bootstrap_servers = "{self.servers}"; session_timeout_ms = {session_ms}; batch_records = 20; }};
            shutdown = {{ drain_timeout_ms = {DRAIN_TIMEOUT_MS}; }};
            log = {{ level = "debug"; }};
        """, encoding="utf-8")

    def stop_userd(self, instance, what):
        """SIGTERM and the time that it took."""
        deadline_s = DRAIN_TIMEOUT_MS / 1000 + STOP_SLACK_S
        status, seconds = instance.stop(deadline_s + 20)
        self.stops.append((what, status, seconds, deadline_s))

    # ---- PostgreSQL

    def postgres(self, action, *options):
        """start or stop; the data stay."""
        subprocess.run([TOOLS / "private_postgres", action, self.postgres_handle, *options], check=True)

    def restart_postgres(self, is_immediate):
        """Away for a moment."""
        self.postgres("stop", *(["--immediate"] if is_immediate else []))
        self.postgres("start")

    def hang_postgres(self, is_hung):
        """SIGSTOP to every process of the cluster, or SIGCONT."""
        handle = userd_service.read_handle(self.postgres_handle) if self.postgres_handle.exists() else {}
        pid_file = pathlib.Path(handle.get("directory", "/nonexistent")) / "data/postmaster.pid"
        if not pid_file.exists():
            return
        postmaster = int(pid_file.read_text(encoding="utf-8").split()[0])
        if is_hung:
            send_signal([postmaster], signal.SIGSTOP)
            send_signal(userd_service.processes_under(postmaster), signal.SIGSTOP)
        else:
            send_signal(userd_service.processes_under(postmaster), signal.SIGCONT)
            send_signal([postmaster], signal.SIGCONT)

    # ---- rows of other writers of the database

    def admin_query(self, sql, parameters=None):
        """By the audit's user, on a connection of its own."""
        source = oracle.Database(self.admin_url)
        try:
            return source.query(sql, parameters)
        finally:
            source.close()

    def write_backlog(self, first, rows):
        """Many events at once, each about another user, whom only the audit knows: one in IDS_PER_ROUND."""
        self.admin_query("INSERT INTO outbox (destination, id_auth, key, value)"
                         " SELECT 1, id, convert_to(id::text, 'UTF8'), convert_to('{\"id\": ' || id || ', \"n\": 1}', 'UTF8')"
                         " FROM (SELECT %s + number * 1000 + 999 AS id FROM generate_series(1, %s) number) n", (first, rows))

    def write_dead_letters(self, first, last):
        """Of registrations that make sense, as if they had come from an offset that is their id."""
        self.admin_query("INSERT INTO outbox (destination, value, header_names, header_values) SELECT 2,"
                         " convert_to('{\"id\": ' || id || ', \"username\": \"letter ' || id || '\"}', 'UTF8'),"
                         " '{dlq-original-topic,dlq-original-partition,dlq-original-offset,dlq-reason}',"
                         " ARRAY['registration', '0', convert_to(id::text, 'UTF8'), 'too large']::bytea[]"
                         " FROM generate_series(%s, %s) id", (first, last))

    def count_users(self, first, last):
        """Who are there, of these ids."""
        return self.admin_query('SELECT count(*) FROM "user" WHERE id_auth BETWEEN %s AND %s', (first, last))[0][0]

    def wait_until_drained(self, what):
        """Until every row is gone that waits now; notes how long that takes."""
        source = oracle.Database(self.admin_url)
        begun = time.monotonic()
        now, rows = source.query("SELECT clock_timestamp(), count(*) FROM outbox")[0]
        left = rows
        while left and time.monotonic() < begun + EMPTY_TIMEOUT_S:
            time.sleep(0.05)
            left = source.query("SELECT count(*) FROM outbox WHERE created_at < %s", (now,))[0][0]
        source.close()
        self.drains.append((what, rows, time.monotonic() - begun))

    # ---- the broker

    def is_apache(self):
        """Not the embedded one."""
        return self.cluster is not None

    def start_broker(self):
        if self.cluster is not None:
            self.servers = self.cluster.start()
            return
        self.broker = subprocess.Popen([userd_service.BINARY / "tests/embedded_broker", "--stdin"], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True)
        self.servers = self.broker.stdout.readline().strip().partition("=")[2]
        assert self.servers

    def broker_command(self, *words):
        """To the embedded broker."""
        self.broker.stdin.write(" ".join(map(str, words)) + "\n")
        self.broker.stdin.flush()
        answer = self.broker.stdout.readline().strip()
        assert answer == "ok", f"{words}: {answer}"

    def restart_broker(self, away_s):
        """Embedded: its connections are dropped and refused. Apache: killed and started again on its data."""
        if self.cluster is not None:
            self.cluster.kill()
            time.sleep(away_s)
            self.cluster.revive()
            return
        self.broker_command("down")
        time.sleep(away_s)
        self.broker_command("up")

    def hang_broker(self, is_hung):
        """SIGSTOP or SIGCONT, to all of it."""
        if self.cluster is not None:
            self.cluster.hang(is_hung)
        else:
            send_signal([self.broker.pid], signal.SIGSTOP if is_hung else signal.SIGCONT)
