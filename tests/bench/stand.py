"""What every benchmark stands on: a PostgreSQL cluster of its own, a broker, builds of userd, and how figures are taken and said.

The machine is noisy: figures are ratios of things measured in alternation within one run, and medians of several rounds. A program
that uses this gives everything that it starts to an `contextlib.ExitStack`, so that nothing outlives it."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
TOOLS = SOURCE / "tests/tools"
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 40
# Room for the tables of every row: what PostgreSQL's manual advises, a quarter of the memory of a machine that is its own, is more.
SHARED_BUFFERS = "2GB"
TICKS = os.sysconf("SC_CLK_TCK")


# ---- processes

def cpu_seconds(pids):
    """User and system time of processes so far; those that have ended do not count."""
    total = 0
    for pid in pids:
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        except FileNotFoundError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def memory_kib(pid, kind="Pss"):
    """What a process holds in memory: its proportional set size, shared pages divided among those that share them; or, for how it
    grows, "Anonymous": a share also grows when another process ends that had the same libraries."""
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1])
    raise ValueError(f"no {kind} of process {pid}")


def children(pid, program):
    """Children of a process that run this program."""
    text = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid=,comm="], capture_output=True, text=True, check=False).stdout
    return [int(line.split()[0]) for line in text.splitlines() if line.split()[1].startswith(program)]


def wait_for(condition, what, timeout_s=START_TIMEOUT_S, pause_s=0.05):
    """Its first true value; ends the program when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(pause_s)
    raise SystemExit(f"bench: not in time: {what}")


def end_process(process):
    """SIGTERM, and SIGKILL when that does not help in time."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def signal_process(pid, number):
    """To one that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def environment():
    """Ours, without what would win over a configuration file."""
    return {name: value for name, value in os.environ.items() if name not in ("DB_URL", "KAFKA_BOOTSTRAP_SERVERS")}


# ---- what a run stands on

def read_handle(path):
    """The key=value lines of a handle file of tests/tools/."""
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


@contextlib.contextmanager
def throw_away_directory():
    """A new directory that goes with everything in it."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="userd-bench."))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Postgres:
    """A cluster of the run's own, reached by its Unix socket. A context manager."""

    def __init__(self, directory, is_durable=False):
        self.handle = directory / "postgres"
        self.options = ["--buffers", SHARED_BUFFERS, *(["--durable"] if is_durable else [])]
        self.admin_url = None

    def __enter__(self):
        subprocess.run([TOOLS / "private_postgres", "start", self.handle, *self.options], check=True, stdout=subprocess.DEVNULL)
        self.admin_url = read_handle(self.handle)["socket_admin_url"]
        return self

    def __exit__(self, *_):
        subprocess.run([TOOLS / "private_postgres", "remove", self.handle], check=False, stdout=subprocess.DEVNULL)

    def pids(self):
        """The postmaster and all of its processes of now."""
        directory = pathlib.Path(read_handle(self.handle)["directory"])
        postmaster = int((directory / "data/postmaster.pid").read_text(encoding="ascii").split()[0])
        return [postmaster, *children(postmaster, "postgres")]

    def url(self, database):
        """Of one of its databases, as its administrator."""
        return self.admin_url + database

    def sql(self, database, *statements):
        """Each statement in a transaction of its own; what the last one said, unaligned."""
        output = ""
        for statement in statements:
            output = subprocess.run(["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1",
                                     "--command", statement, self.url(database)], check=True, stdout=subprocess.PIPE, text=True).stdout
        return output.strip()

    def make_database(self, build, database):
        """A new one with userd's schema; its URL."""
        self.sql("postgres", f"CREATE DATABASE {database}")
        config = self.handle.with_name(f"migrate-{database}.conf")
        config.touch(mode=0o600)
        config.write_text(f'database = {{ url = "{self.url(database)}"; }};\n', encoding="utf-8")
        subprocess.run([build / "master/userd", "migrate", "up", "-c", config], check=True, stderr=subprocess.DEVNULL,
                       env=environment())
        return self.url(database)

    def add_users(self, database, count, first=1):
        """Users named user1 and so on, in no order on disk."""
        self.sql(database,
                 """SET userd.writer = 'on'; INSERT INTO "user" (id_auth, username) """  # as the service: the claims come with them
                 f"SELECT id, 'user' || id FROM generate_series({first}, {first + count - 1}) AS id ORDER BY random()",
                 "INSERT INTO username_claim (id_auth, canonical, username) "
                 f'SELECT id_auth, username, username FROM "user" WHERE id_auth BETWEEN {first} AND {first + count - 1}',
                 "VACUUM ANALYZE", "CHECKPOINT")


class Broker:
    """The embedded broker, or a real Apache Kafka. A context manager. `topics` are for the embedded one: (name, partitions)."""

    def __init__(self, build, directory, kind="embedded", topics=()):
        self.kind = kind
        self.handle = directory / "kafka"
        self.command = [build / "tests/embedded_broker", "--stdin"]
        for name, partitions in topics:
            self.command += ["--topic", f"{name}:{partitions}"]
        self.process = None
        self.servers = None

    def __enter__(self):
        if self.kind == "apache":
            done = subprocess.run([TOOLS / "apache_kafka", "start", self.handle], check=False)
            if done.returncode != 0:
                raise SystemExit("bench: no Apache Kafka: see above")
            self.servers = read_handle(self.handle)["bootstrap.servers"]
            return self
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.servers = self.process.stdout.readline().strip().partition("=")[2]
        if not self.servers:
            raise SystemExit("bench: the embedded broker does not start")
        return self

    def __exit__(self, *_):
        if self.kind == "apache":
            subprocess.run([TOOLS / "apache_kafka", "stop", self.handle], check=False)
            return
        end_process(self.process)
        self.process.stdin.close()
        self.process.stdout.close()

    def pid(self):
        """Whose CPU time it costs."""
        return self.process.pid if self.process else int(read_handle(self.handle)["pid.1"])

    def is_there(self, is_there):
        """Away: its connections are dropped and refused (embedded), or it is killed, and comes back on its data (Apache)."""
        if self.kind == "apache":
            subprocess.run([TOOLS / "apache_kafka", "revive" if is_there else "kill", self.handle], check=True)
            return
        self.process.stdin.write("up\n" if is_there else "down\n")
        self.process.stdin.flush()
        if self.process.stdout.readline().strip() != "ok":
            raise SystemExit("bench: the embedded broker does not obey")


class Userd:
    """One build of userd on a database. A context manager. `settings` are lines of userd.conf; without `servers` it has no Kafka."""

    def __init__(self, name, build, directory, database_url, *, workers=1, servers="127.0.0.1:1", settings="", database_settings=""):
        self.name = name
        self.build = build
        self.count = workers
        self.run_dir = directory / f"run-{name}"
        self.config = directory / f"{name}.conf"
        self.log = directory / f"{name}.log"
        self.config.touch(mode=0o600)
        self.config.write_text(f"""
workers = {workers};
run_dir = "{self.run_dir}";
listeners = (
  {{ name = "gateway"; address = "127.0.0.1:0"; services = [ "user.User", "user_post.UserPost" ]; }},
  {{ name = "post"; address = "127.0.0.1:0"; services = [ "user_post.UserPost" ]; }}
);
database = {{ url = "{database_url}"; {database_settings} }};
kafka = {{ bootstrap_servers = "{servers}"; session_timeout_ms = 6000; }};
log = {{ level = "warn"; }};
{settings}
""", encoding="utf-8")
        self.master = None
        self.addresses = self.workers = None

    def __enter__(self):
        with open(self.log, "w", encoding="utf-8") as log:
            self.master = subprocess.Popen([self.build / "master/userd", "run", "-c", self.config], stderr=log, env=environment())
        try:
            listeners = wait_for(self._listeners, f"{self.name} listens, see {self.log}")
            self.addresses = [line.split()[1] for line in listeners.splitlines() if line.startswith("gateway ")]
            self.workers = wait_for(
                lambda: (found := self.find_workers()) and len(found) == self.count and found,
                f"{self.name} starts its workers")
        except BaseException:
            end_process(self.master)
            raise
        return self

    def __exit__(self, *_):
        end_process(self.master)

    def _listeners(self):
        path = self.run_dir / "listeners"
        return path.exists() and path.read_text(encoding="ascii")

    def find_workers(self):
        """Their process ids."""
        return children(self.master.pid, "userd-worker")

    def wait_for_database(self, timeout_s=START_TIMEOUT_S):
        """Until every worker can read."""
        def is_ready():
            workers = self.status()["workers"]
            return len(workers) == self.count and all(worker["database_ready"] for worker in workers)
        wait_for(is_ready, f"{self.name} reaches its database", timeout_s)

    def pids(self):
        """Whose CPU time the calls cost."""
        return self.workers

    def eventd(self):
        """The process that owns Kafka."""
        return wait_for(lambda: children(self.master.pid, "userd-eventd"), f"{self.name} has its eventd")[0]

    def status(self):
        """What `userd status --json` says."""
        done = subprocess.run([self.build / "master/userd", "status", "--json", "-c", self.config], check=True, capture_output=True,
                              text=True, env=environment())
        return json.loads(done.stdout)


# ---- the load

def run_load(build, addresses, *arguments):
    """One run of the load generator: its figures, and `is_clean` (every call was answered, rightly and with OK)."""
    command = [build / "tests/bench/load_generator", "--json", "--address", ",".join(addresses), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise SystemExit(f"bench: load_generator: {done.stderr}")
    fields = json.loads(done.stdout)
    fields["is_clean"] = done.returncode == 0 and fields["rate"] == fields["ok_rate"]
    return fields


# ---- figures

def alternate(count, rounds, measure):
    """Measures each of so many things in each round, every other round backwards: [round][thing]."""
    runs = []
    for number in range(rounds):
        order = range(count) if number % 2 == 0 else reversed(range(count))
        results = {index: measure(index, number) for index in order}
        runs.append([results[index] for index in range(count)])
    return runs


def median_ratio(values, bases):
    """The median of the ratios of each round."""
    return statistics.median(value / base for value, base in zip(values, bases))


def first_line(command):
    """Of what a program says; "unknown" where it cannot be had."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.partition("\n")[0].strip()
    return "unknown"


def machine():
    """What figures were taken on, for whoever compares them later."""
    cpu = [line.partition(":")[2].strip() for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
           if line.startswith("model name")]
    grpc = first_line(["dpkg-query", "--show", "--showformat", "${Version}", "libgrpc-dev"])
    return {"cpu": cpu[0] if cpu else os.uname().machine, "cores": os.cpu_count(), "kernel": os.uname().release,
            "postgresql": (first_line(["psql", "--version"]).split() + ["unknown"] * 3)[2],
            "grpc": grpc.partition("-")[0], "load": os.getloadavg(), "at": time.strftime("%Y-%m-%dT%H:%M:%S%z")}


def print_table(heading, rows):
    """Columns as wide as they need; the first is aligned to the left, the others to the right."""
    lines = [heading, *rows]
    widths = [max(len(str(line[column])) for line in lines) for column in range(len(heading))]
    for line in lines:
        cells = [str(cell).rjust(width) for cell, width in zip(line, widths)]
        print("  ".join([str(line[0]).ljust(widths[0]), *cells[1:]]))


def write_json(path, figures):
    """With what they were taken on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), **figures}, indent=2) + "\n", encoding="utf-8")
