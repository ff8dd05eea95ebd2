"""The worker's memory: when idle, for each connection, over a long load, and under a storm of calls that nobody waits for."""
import subprocess
import threading
import time

import stand
from figures import Figure, slope_per_minute

IDLE_MIB = 25
KIB_PER_CONNECTION = 40
GROWTH_MIB_PER_MINUTE = 1.0  # less than this is the allocator's breathing
PROBES = 20
STORM_MIB = 128
SETTLE_S = 1.0


class Watch:
    """Samples a process's memory in the background: (seconds since the start, KiB). A context manager."""

    def __init__(self, pid, pause_s=0.25):
        self.pid = pid
        self.pause_s = pause_s
        self.samples = []
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        start = time.monotonic()
        while not self.is_over.wait(self.pause_s):
            self.samples.append((time.monotonic() - start, stand.memory_kib(self.pid)))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join()


def fresh_userd(ground, purpose):
    """One that has served nobody."""
    server = ground.userd(purpose=purpose)
    time.sleep(SETTLE_S)
    return server


def with_connections(ground, server, count):
    """KiB while so many connections are open that have each been used."""
    command = [ground.build / "tests/bench/load_generator", "--address", ",".join(server.addresses), "--connections", str(count),
               "--streams", "1", "--rate", str(2 * count), "--warmup", "0", "--seconds", "3", "--ids", str(ground.options.ids)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as load:
        stand.wait_for(lambda: server.status()["totals"]["connections"] >= count, f"{count} connections")
        time.sleep(SETTLE_S)
        kib = stand.memory_kib(server.workers[0])
    stand.wait_for(lambda: server.status()["totals"]["connections"] == 0, "no connections")
    return kib


def connections(ground):
    """Idle, and what connections add."""
    server = fresh_userd(ground, "connections")
    idle = stand.memory_kib(server.workers[0])
    counts = (50, 100) if ground.options.quick else (100, 300, 1000)
    curve = [(0, idle)] + [(count, with_connections(ground, server, count)) for count in counts]
    # The first ones pay for what all share: what one more costs is the slope behind them.
    each = (curve[-1][1] - curve[1][1]) / (curve[-1][0] - curve[1][0])
    return [Figure("memory of an idle worker (PSS)", f"at most {IDLE_MIB} MiB", f"{idle / 1024:.1f} MiB", idle / 1024 / IDLE_MIB,
                   1.0, True),
            Figure(f"memory of a further connection, of {counts[-1]}", f"at most {KIB_PER_CONNECTION} KiB", f"{each:.1f} KiB",
                   each / KIB_PER_CONNECTION, 1.0, True)], {"memory": curve}


def soak(ground):
    """Reads and renames for a while: the second half of it does not grow."""
    server = ground.userd(database="mixed")
    seconds = ground.options.soak
    with Watch(server.workers[0]) as watch:
        fields = ground.load(server, 1, "--mix", "GetUser=80,GetByIDs=5,GetByUsername=5,UserUpdate=10", "--ids-per-call", 20,
                             seconds=seconds, is_clean=False)
    if fields["unanswered"]:
        ground.problem(f"soak: {fields['unanswered']} calls without an answer")
    late = [sample for sample in watch.samples if sample[0] >= seconds / 2] or watch.samples
    growth = slope_per_minute(late) / 1024
    return [Figure(f"memory over a load of {seconds:g} s, second half", f"less than {GROWTH_MIB_PER_MINUTE:g} MiB/min",
                   f"{growth:+.2f} MiB/min", growth / GROWTH_MIB_PER_MINUTE, 1.0, True)], {"soak": watch.samples}


def storm(ground):
    """Nobody waits for the answer: the worker must not hold what it cannot serve."""
    server = fresh_userd(ground, "storm")
    result = []
    for name, arguments in (("cancelled calls", ("--cancel-mill", 1000)), ("expired deadlines", ("--timeout", "1m"))):
        with Watch(server.workers[0], 0.05) as watch:
            ground.load(server, 1, *arguments, connections=16, streams=200, is_clean=False)
        peak = max(kib for _, kib in watch.samples) / 1024
        result.append(Figure(f"memory under a storm of {name}, peak", f"at most {STORM_MIB} MiB", f"{peak:.0f} MiB", peak / STORM_MIB,
                             1.0, True))
    # On a busy machine what is left of the storm takes a moment.
    if not any(ground.load(server, 2, connections=1, streams=1, seconds=0.5)["ok_rate"] for _ in range(PROBES)):
        ground.problem("storm: the worker does not answer after it")
    return result, {}


ROWS = {"memory": connections, "soak": soak, "storm": storm}
