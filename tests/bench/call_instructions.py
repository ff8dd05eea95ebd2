"""User instructions of a worker for each call, counted by callgrind: the figure that a busy machine moves least. The table in
tests/bench/instructions.md keeps it from change to change."""
import contextlib
import os
import pathlib
import shutil
import subprocess
import time

import stand
import yardsticks
from figures import Figure

TABLE = stand.SOURCE / "tests/bench/instructions.md"
# Threads are run one at a time there, and slowly: heartbeats come late.
SETTINGS = "supervision = { hang_timeout_ms = 60000; };"
SECONDS = 2
LEAST_CALLS = 2000
MOST_S = 30
METHODS = (("GetUser", ()), ("GetByUsername", ()), ("GetByIDs of 20", ("--ids-per-call", 20)), ("UserUpdate", ()))


def command(directory):
    """The beginning of a command that is counted."""
    return [shutil.which("valgrind"), "--tool=callgrind", "--fair-sched=yes", f"--callgrind-out-file={directory}/callgrind.%p", "--quiet"]


class CountedUserd(stand.Userd):
    """Its worker runs under callgrind."""

    def __enter__(self):
        programs = self.config.with_name("counted")
        programs.mkdir()
        (programs / "userd-eventd").symlink_to(self.build / "eventd/userd-eventd")
        wrapper = programs / "userd-worker"
        words = " ".join([*command(self.config.parent), str(self.build / "worker/userd-worker")])
        wrapper.write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="ascii")
        wrapper.chmod(0o755)
        os.environ["USERD_LIBEXEC_DIR"] = str(programs)
        try:
            return super().__enter__()
        finally:
            del os.environ["USERD_LIBEXEC_DIR"]

    def find_workers(self):
        """By the name that callgrind gives them."""
        return stand.children(self.master.pid, "callgrind")


class CountedEcho(yardsticks.Echo):
    """The yardstick under callgrind."""

    def __init__(self, build, directory):
        super().__init__(build, 1, command(directory))


def control(action, pid):
    """Tells callgrind to begin again from 0 (--zero), or to write what it has counted (--dump)."""
    subprocess.run(["callgrind_control", action, str(pid)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def dumps(directory, pid):
    """What it has written so far."""
    return set(directory.glob(f"callgrind.{pid}.*"))


def total_of(dump):
    """Instructions in a dump; None while it is being written."""
    totals = [line for line in dump.read_text(encoding="utf-8", errors="replace").splitlines() if line.startswith("totals: ")]
    return int(totals[-1].split()[1]) if totals else None


def count(ground, server, pid, arguments):
    """Instructions for each call of a load."""
    run = {"connections": 8, "streams": 32, "seconds": SECONDS, "is_clean": False}
    ground.load(server, 1, *arguments, **run | {"streams": 4})  # what is done once, is done
    before = dumps(ground.directory, pid)
    control("--zero", pid)
    # So many that what a process does by the clock does not count among them.
    done, deadline = 0, time.monotonic() + MOST_S
    while done < LEAST_CALLS and time.monotonic() < deadline:
        done += ground.load(server, 2, "--warmup", 0, *arguments, **run)["calls"]
    control("--dump", pid)
    new = stand.wait_for(lambda: dumps(ground.directory, pid) - before, "callgrind writes")
    total = stand.wait_for(lambda: total_of(next(iter(new))), "callgrind has written")
    if done < LEAST_CALLS:
        print(f"bench: warning: only {done} calls in {MOST_S} s under callgrind: the machine is busy, the count is too high")
    return total / max(1, done)


def instructions(ground):
    """All methods, and the yardstick."""
    if not shutil.which("valgrind"):
        print("bench: no instructions: valgrind is missing (Debian: valgrind)")
        return [], {}
    counts = {}
    with contextlib.ExitStack() as stack:
        echo = stack.enter_context(CountedEcho(ground.build, ground.directory))
        counts["stock echo"] = count(ground, echo, echo.processes[0].pid, ())
        server = stack.enter_context(CountedUserd("counted", ground.build, ground.directory, ground.database("counted"),
                                                  settings=SETTINGS))
        server.users = ground.options.ids
        server.wait_for_database(4 * stand.START_TIMEOUT_S)
        for method, arguments in METHODS:
            counts[method] = count(ground, server, server.workers[0], ("--method", method.split(" ", maxsplit=1)[0], *arguments))
    base = counts["stock echo"]
    made = [Figure(f"{method}, user instructions for a call", "against stock echo", f"{own:,.0f} against {base:,.0f}", own / base)
            for method, own in counts.items() if method != "stock echo"]
    return made, {"instructions": counts}


def record(counts, what):
    """A further line of the table."""
    columns = list(counts)
    if not TABLE.exists():
        TABLE.write_text("# User instructions of a worker for each call\n\nCounted by callgrind under 8 x 32 calls "
                         '(`./dev bench --only instructions --record "what changed"` adds a line): the batches are as large as a '
                         "slowed-down\nprocess makes them, so that lines compare with each other and not with a profile of a "
                         "running service.\n\n| date | what changed | " + " | ".join(columns) + " |\n|---|---|" +
                         "---|" * len(columns) + "\n", encoding="utf-8")
    with open(TABLE, "a", encoding="utf-8") as table:
        table.write(f"| {time.strftime('%Y-%m-%d')} | {what} | " + " | ".join(f"{counts[name]:,.0f}" for name in columns) + " |\n")
    print(f"bench: {os.path.relpath(pathlib.Path(TABLE))} has a line more")


ROWS = {"instructions": instructions}
