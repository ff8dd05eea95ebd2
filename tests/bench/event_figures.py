"""The measurements of tests/bench/events, each next to its yardstick. A measurement takes the bench and the round's number, and
answers with a number for each thing that it measured: {"userd": ..., "bare": ...}."""
import contextlib
import json
import signal
import statistics
import subprocess
import time

import stand

DRAIN_LEAST_RATE = 5000   # events a second: of a long outage there are millions
DRAIN_TIMEOUT_S = 120
SAMPLE_S = 0.005
MEMORY_SAMPLE_S = 0.5
WARM_SHARE = 0.3  # of an outage: what grows at first is buffers that are used again
LATENCY_RATE = 20
CONNECTIONS = 8
STREAMS = 64


class Meter:
    """Reads the scoreboard of a running userd. A context manager."""

    def __init__(self, build, userd):
        self.process = subprocess.Popen([build / "tests/bench/event_meter", str(userd.master.pid)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(stand.STOP_TIMEOUT_S)
        self.process.stdout.close()

    def sample(self):
        """The counters now; `latency` is {(least, next): count} in microseconds."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        fields = dict(field.split("=", 1) for field in self.process.stdout.readline().split())
        buckets = [tuple(map(int, bucket.split(":"))) for bucket in fields.pop("latency").split(",") if bucket]
        return {**{key: int(value) for key, value in fields.items()}, "latency": {one[:2]: one[2] for one in buckets}}

    def wait_for(self, name, value, what, timeout_s=None):
        """The first sample whose counter has reached the value."""
        def reached():
            sample = self.sample()
            return sample if sample[name] >= value else None
        return stand.wait_for(reached, what, timeout_s or DRAIN_TIMEOUT_S, SAMPLE_S)


class Bench:
    """What the measurements share: the options, what they stand on, and which ids are not used yet."""

    def __init__(self, options, directory, postgres, broker):
        self.options = options
        self.build = options.build
        self.directory = directory
        self.postgres = postgres
        self.broker = broker
        self.userd = self.meter = None
        self.next_id = 1
        self.cpu_us = {}  # {figure: {process: [microseconds for each event]}}

    def start(self, stack):
        """userd, and its meter."""
        url = self.postgres.make_database(self.build, "events")
        self.postgres.make_database(self.build, "yardstick")
        self.userd = stack.enter_context(stand.Userd("userd", self.build, self.directory, url, workers=self.options.workers,
                                                     servers=self.broker.servers, settings=self.options.settings))
        self.meter = stack.enter_context(Meter(self.build, self.userd))
        stand.wait_for(lambda: self.userd.status()["totals"]["workers_ready"] == self.options.workers, "workers are ready")

    def take_ids(self, count):
        """The first of so many new ones."""
        first = self.next_id
        self.next_id += count
        return first

    def run_tool(self, name, *arguments):
        """A program of tests/bench: the key=value line that it prints, as numbers."""
        done = subprocess.run([self.build / "tests/bench" / name, *map(str, arguments)], capture_output=True, text=True,
                              check=False)
        if done.returncode != 0:
            raise SystemExit(f"events: {name} {arguments[0]}: {done.stderr}")
        return {key: float(value) for key, value in (field.split("=", 1) for field in done.stdout.split())}

    def produce(self, kind, topic, count, first=None):
        """What the bare producer says of itself."""
        return self.run_tool("bare_producer", kind, self.broker.servers, topic, first or self.take_ids(count), count)

    def delete_load(self, first, count, *arguments):
        """The command that deletes so many users through gRPC, each once."""
        return [self.build / "tests/bench/load_generator", "--json", "--address", ",".join(self.userd.addresses), "--method",
                "DeleteUser", "--ids", str(first + count - 1), "--calls", str(count), "--warmup", "0", *map(str, arguments)]

    @contextlib.contextmanager
    def costs(self, figure, count):
        """Notes what every process of ours, PostgreSQL and the broker spend on each event."""
        groups = {"workers": self.userd.workers, "eventd": [self.userd.eventd()], "PostgreSQL": self.postgres.pids(),
                  "broker": [self.broker.pid()]}
        before = {name: stand.cpu_seconds(pids) for name, pids in groups.items()}
        yield
        for name, pids in groups.items():
            used = stand.cpu_seconds(pids) - before[name]
            self.cpu_us.setdefault(figure, {}).setdefault(name, []).append(used * 1e6 / count)


def rate_between(begin, end, name):
    """Of a counter, each second."""
    return (end[name] - begin[name]) / ((end["at_us"] - begin["at_us"]) / 1e6)


# ---- published

def publish_backlog(bench, _):
    """Rows that are in the outbox already, from the first acknowledged to the last; and the producer alone."""
    count = bench.options.events
    bare = bench.produce("publish", "delete", count)
    first = bench.take_ids(count)
    before = bench.meter.sample()["published"]
    with bench.costs("published from a backlog", count):
        bench.postgres.sql("events", "INSERT INTO outbox (destination, id_auth, key, value) SELECT 1, id, convert_to(id::text, "
                           "'UTF8'), convert_to('{\"id\": ' || id || '}', 'UTF8') "
                           f"FROM generate_series({first}, {first + count - 1}) AS id")
        begin = bench.meter.wait_for("published", before + 1, "the relay begins")
        end = bench.meter.wait_for("published", before + count, "the backlog is published")
    return {"userd": rate_between(begin, end, "published"), "bare": bare["rate"]}


def publish_deletions(bench, _):
    """Users that are deleted through gRPC, from the first call to the last acknowledgement."""
    count = bench.options.events
    first = bench.take_ids(count)
    bench.postgres.add_users("events", count, first)
    bare = bench.produce("publish", "delete", count)
    begin = bench.meter.sample()
    with bench.costs("published, deleted through gRPC", count):
        load = subprocess.run(bench.delete_load(first, count, "--connections", CONNECTIONS, "--streams", STREAMS, "--seconds", 120),
                              capture_output=True, text=True, check=False)
        at_end = bench.meter.sample()
        fields = json.loads(load.stdout)
        if load.returncode != 0 or fields["statuses"] != {"OK": count}:
            raise SystemExit(f"events: not every user was deleted: {load.stdout} {load.stderr}")
        end = bench.meter.wait_for("published", begin["published"] + count, "the deletions are published")
    return {"userd": rate_between(begin, end, "published"), "bare": bare["rate"], "calls": fields["ok_rate"],
            "waiting_at_the_end": begin["published"] + count - at_end["published"]}


# ---- consumed

def consume(bench, _):
    """Registrations that are in the topic already, from the first in effect to the last; and bare inserts."""
    count = bench.options.registrations
    yardsticks = {}
    for kind in ("user", "claim"):
        yardsticks[kind] = bench.run_tool("insert_loop", bench.postgres.url("yardstick"), bench.take_ids(count), count,
                                          bench.options.batch, kind)["rate"]
    eventd = bench.userd.eventd()
    stand.signal_process(eventd, signal.SIGSTOP)
    try:
        bench.produce("fill", "registration", count)
    finally:
        before = bench.meter.sample()["applied"]
        stand.signal_process(eventd, signal.SIGCONT)
    with bench.costs("consumed registrations", count):
        begin = bench.meter.wait_for("applied", before + 1, "registrations take effect")
        end = bench.meter.wait_for("applied", before + count, "all registrations are in effect")
    return {"userd": rate_between(begin, end, "applied"), "bare": yardsticks["user"], "with_claims": yardsticks["claim"]}


# ---- latency

def percentile(buckets, fraction):
    """Of a histogram: {(least, next): count}; within a bucket evenly spread."""
    wanted = sum(buckets.values()) * fraction
    for (least, following), count in sorted(buckets.items()):
        if count > 0 and wanted <= count:
            return least + (following - least) * wanted / count
        wanted -= count
    return 0


def latency(bench, _):
    """One deletion at a time on an idle system, from the row's creation to the acknowledgement; and the producer alone."""
    count = bench.options.latency_calls
    bare = bench.produce("latency", "delete", count)
    first = bench.take_ids(count)
    bench.postgres.add_users("events", count, first)
    time.sleep(1)
    begin = bench.meter.sample()
    subprocess.run(bench.delete_load(first, count, "--connections", 1, "--streams", 1, "--rate", LATENCY_RATE, "--seconds", 120),
                   capture_output=True, check=True)
    end = bench.meter.wait_for("published", begin["published"] + count, "the deletions are published")
    buckets = {key: number - begin["latency"].get(key, 0) for key, number in end["latency"].items()}
    return {"userd": percentile(buckets, 0.5), "bare": bare["p50_us"], "p99": percentile(buckets, 0.99),
            "bare_p99": bare["p99_us"]}


# ---- memory

def slope_per_minute(samples):
    """Of (seconds, KiB): the straight line through them."""
    mean_s = statistics.mean(at for at, _ in samples)
    mean_kib = statistics.mean(kib for _, kib in samples)
    spread = sum((at - mean_s) ** 2 for at, _ in samples)
    return 60 * sum((at - mean_s) * (kib - mean_kib) for at, kib in samples) / spread if spread else 0


def outage(bench):
    """Deletions at a steady rate with the broker away: how memory goes, and how long the backlog takes afterwards."""
    options = bench.options
    count = int(options.outage_rate * options.outage_seconds)
    first = bench.take_ids(count)
    bench.postgres.add_users("events", count, first)
    before = bench.meter.sample()["published"]
    eventd = bench.userd.eventd()
    bench.broker.is_there(False)
    samples = {"eventd": [], "workers": []}  # seconds, KiB of all memory, KiB of their own
    processes = {"eventd": [eventd], "workers": bench.userd.workers}
    begun = time.monotonic()
    load = subprocess.Popen(bench.delete_load(first, count, "--connections", CONNECTIONS, "--streams", STREAMS, "--rate",
                                              options.outage_rate, "--seconds", 2 * options.outage_seconds + 60),
                            stdout=subprocess.PIPE, text=True)
    with contextlib.closing(load.stdout):
        while load.poll() is None:
            at = time.monotonic() - begun
            for name, pids in processes.items():
                samples[name].append((at, *(sum(stand.memory_kib(pid, kind) for pid in pids) for kind in ("Pss", "Anonymous"))))
            time.sleep(MEMORY_SAMPLE_S)
        fields = json.loads(load.stdout.read())
    waiting = int(bench.postgres.sql("events", "SELECT count(*) FROM outbox"))
    bench.broker.is_there(True)
    back = time.monotonic()
    deleted = fields["statuses"].get("OK", 0)
    bench.meter.wait_for("published", before + deleted, "the outage's events are published",
                         DRAIN_TIMEOUT_S + deleted / DRAIN_LEAST_RATE)
    result = {"writes_per_second": fields["ok_rate"], "outbox_rows": waiting, "deleted": deleted,
              "asked": count, "drained_in_s": time.monotonic() - back}
    for name, all_samples in samples.items():
        warm = [one for one in all_samples if one[0] >= WARM_SHARE * all_samples[-1][0]]
        slope = slope_per_minute([(at, own_kib) for at, _, own_kib in warm])
        result[name] = {"kib": statistics.median(kib for _, kib, _ in warm), "kib_per_minute": slope,
                        "grown_kib": slope * (warm[-1][0] - warm[0][0]) / 60}
    return result
