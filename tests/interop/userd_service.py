"""userd as the platform would run it, for tests that are its peers: a database of the test's own, a broker (the embedded one, or
the real Apache Kafka whose handle file USERD_TEST_KAFKA names), free ports, a throw-away directory."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import grpc

TIMEOUT_S = 60
SOURCE = pathlib.Path(os.environ["USERD_TEST_SOURCE_DIR"])
BINARY = pathlib.Path(os.environ["USERD_TEST_BINARY_DIR"])
STATUS_SKIPPED = 77


def wait_for(condition, what, timeout_s=TIMEOUT_S):
    """Evaluates condition() until it is true; its value. Fails with `what` when the time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not in time: {what}")
        time.sleep(0.02)


def read_handle(path):
    """The key=value lines of a handle file of tests/tools/."""
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def processes_under(pid):
    """{pid: program name} of a process's living children, and theirs."""
    parents = {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            name, rest = (entry / "stat").read_text(encoding="utf-8").split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if state != "Z":
            parents[int(entry.name)] = (int(parent), name)
    found = {}
    news = {pid}
    while news:
        news = {one for one, (parent, _) in parents.items() if parent in news}
        found.update({one: parents[one][1] for one in news})
    return found


def memory_holds(pid, text):
    """Whether a process has the text in memory that it can write."""
    try:
        maps = pathlib.Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for line in maps.splitlines():
                span, rights = line.split()[:2]
                start, end = (int(number, 16) for number in span.split("-"))
                if rights != "rw-p" or end - start > 512 * 1024 * 1024:
                    continue
                memory.seek(start)
                if text in memory.read(end - start):
                    return True
    except (OSError, ValueError):
        pass
    return False


def skip_without_kafka():
    """Ends the program as skipped when it is to run against a real Kafka that could not be had."""
    handle = os.environ.get("USERD_TEST_KAFKA")
    if handle and not os.path.exists(handle):
        print("left out: real Apache Kafka: it was not started, see the test kafka_start")
        sys.exit(STATUS_SKIPPED)


def generate_clients(directory):
    """Python messages of our .proto files, as the Gateway and the Post Service generate them; puts them into sys.path."""
    protos = ["user/user.proto", "user_post/user_post.proto"]
    subprocess.run(["protoc", "--proto_path=proto", f"--python_out={directory}", *protos], cwd=SOURCE, check=True)
    sys.path.insert(0, str(directory))


class Service:
    """One running userd with what it stands on. A context manager."""

    def __init__(self, workers=2, settings="", kafka_settings=""):
        self.workers = workers
        self.settings = settings
        self.kafka_settings = kafka_settings
        self.start_is_held = False  # True: start_userd() is the test's to call
        self.log = None             # a file to write userd's log to; None: our standard error
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="userd-interop."))
        self.database = f"interop_{os.getpid()}_{time.monotonic_ns()}"
        self.broker = None
        self.master = None
        self.servers = self.database_url = self.gateway = self.post = None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def sql(self, text, is_admin=False):
        """Runs SQL through psql; the output, unaligned, without headings."""
        handle = read_handle(os.environ["USERD_TEST_POSTGRES"])
        url = handle["admin_url"] + "postgres" if is_admin else handle["url"] + self.database
        command = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1",
                   "--command", text, url]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=TIMEOUT_S).stdout.decode().strip()

    def start(self):
        """Everything, up to SERVING."""
        self.sql(f"CREATE DATABASE {self.database} OWNER userd", is_admin=True)
        self.database_url = read_handle(os.environ["USERD_TEST_POSTGRES"])["url"] + self.database
        self.start_broker()
        self.write_config()
        self.run("migrate", "up")
        if not self.start_is_held:
            self.start_userd()

    def start_broker(self):
        """The embedded one, unless a real one is named."""
        if "USERD_TEST_KAFKA" in os.environ:
            self.servers = read_handle(os.environ["USERD_TEST_KAFKA"])["bootstrap.servers"]
            return
        self.broker = subprocess.Popen([BINARY / "tests/embedded_broker"], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, text=True)
        line = self.broker.stdout.readline()
        assert line.startswith("bootstrap.servers="), line
        self.servers = line.strip().partition("=")[2]

    def write_config(self):
        """userd.conf: ports are chosen by the system."""
        (self.directory / "userd.conf").write_text(f"""
            workers = {self.workers};
            run_dir = "{self.directory}/run";
            listeners = (
              {{ name = "gateway"; address = "127.0.0.1:0"; services = [ "user.User" ]; }},
              {{ name = "post"; address = "127.0.0.1:0"; services = [ "user_post.UserPost" ]; }}
            );
            database = {{ url = "{self.database_url}"; }};
            kafka = {{ bootstrap_servers = "{self.servers}"; session_timeout_ms = 6000; {self.kafka_settings} }};
            log = {{ level = "debug"; }};
            {self.settings}
        """, encoding="utf-8")

    def status(self):
        """What `userd status` says."""
        return json.loads(self.run("status", "--json"))

    def environment(self):
        """Ours, without what would win over the file."""
        return {name: value for name, value in os.environ.items() if name not in ("DB_URL", "KAFKA_BOOTSTRAP_SERVERS")}

    def run(self, *arguments):
        """`userd ARGUMENT...`, which must work; its standard output."""
        done = subprocess.run([BINARY / "master/userd", *arguments, "-c", self.directory / "userd.conf"], check=True,
                              env=self.environment(), timeout=TIMEOUT_S, stdout=subprocess.PIPE)
        return done.stdout.decode()

    def start_userd(self):
        """`userd run`: its log goes to our standard error, where CTest looks for sanitizers' reports."""
        self.master = subprocess.Popen([BINARY / "master/userd", "run", "-c", self.directory / "userd.conf"],
                                       stdin=subprocess.DEVNULL, stderr=self.log, env=self.environment())
        listeners = self.directory / "run/listeners"
        wait_for(lambda: listeners.exists() or self.master.poll() is not None, "listening")
        addresses = dict(line.split(" ", 1) for line in listeners.read_text(encoding="utf-8").splitlines())
        self.gateway, self.post = addresses["gateway"], addresses["post"]
        wait_for(self.is_serving, "SERVING")

    def is_serving(self):
        """What health says on the Gateway's port."""
        with grpc.insecure_channel(self.gateway) as channel:
            try:
                return channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=2) == b"\x08\x01"
            except grpc.RpcError:
                return False

    def stop(self):
        """In order; a userd that does not end cleanly is a failure."""
        status = 0
        if self.master is not None:
            status = self.end(self.master)
        if self.broker is not None:
            self.end(self.broker)
            self.broker.stdout.close()
        self.sql(f"DROP DATABASE IF EXISTS {self.database} WITH (FORCE)", is_admin=True)
        shutil.rmtree(self.directory, ignore_errors=True)
        assert status == 0, f"userd ended with {status}"

    @staticmethod
    def end(process):
        """SIGTERM, and SIGKILL when that does not help in time; the exit status."""
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait(TIMEOUT_S)
