#!/usr/bin/python3
"""The fault suite: load, a fault in the middle of it, recovery, and then all invariants against what really happened.

  fault.py [--point NAME]... [--repeat N] [--seed S]      each point (or those that are named) in a round of its own
  fault.py --random --seconds N [--seed S]                rounds of several random faults, until the time is over
  common: --kafka embedded|apache|apache3 (three nodes, three replicas), --long (the long faults too), --list

A round's operations and faults follow from the seed and the round's number alone; what a run prints is enough to run it again.
USERD_TEST_BINARY_DIR names a build with failpoints, USERD_TEST_SOURCE_DIR the sources. Exit status 0, 1, or 77 (left out)."""
import argparse
import collections
import itertools
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "interop"))
# pylint: disable=wrong-import-position
import userd_service  # noqa: E402

GENERATED = tempfile.TemporaryDirectory(prefix="userd-generated.")
userd_service.generate_clients(GENERATED.name)
import checks  # noqa: E402
import failpoints  # noqa: E402
import faults  # noqa: E402
import load  # noqa: E402
import oracle  # noqa: E402
import stand as stands  # noqa: E402

STATUS_LEFT_OUT = 77
# Joining a group takes 3 s, twice a session when a member was killed, and half a minute when the broker has lost the question.
# A real Kafka is started anew in some rounds, on a machine that does other things.
SETTLE_S = {"embedded": 60, "apache": 150, "apache3": 150}
WARM_UP_S = 60
SETTLE_WORD_S = 15
FIRST_FAULT_S = 0.4
ROUNDS_PER_STAND = 12    # then everything is made anew: what is checked is all that a stand has seen
RANDOM_FAULTS = (1, 4)

Round = collections.namedtuple("Round", "number faults")


def say(text):
    """One line, at once."""
    print(text, flush=True)


def check_points():
    """The table of failpoints names exactly the points that the programs have."""
    found = set()
    for room in ("common", "master", "worker", "eventd"):
        for path in (userd_service.SOURCE / room).rglob("*.c"):
            found |= set(re.findall(r'FAILPOINT\("([^"]+)"\)', path.read_text(encoding="utf-8")))
    assert found == set(failpoints.POINTS), f"tests/fault/failpoints.py and the programs differ: {found ^ set(failpoints.POINTS)}"


def names_of(options):
    """The faults that a run chooses from."""
    return options.point or faults.NAMES[options.kafka] + (faults.LONG[options.kafka] if options.long else ())


def point_rounds(options):
    """Each point, `repeat` times."""
    share, shares = options.share
    names = names_of(options)[share - 1::shares]
    for i in range(len(names) * options.repeat):
        number = options.first_round + i
        random_ = random.Random(f"faults {options.seed} {number}")
        yield Round(number, [(FIRST_FAULT_S, faults.make(names[i % len(names)], random_))])


def random_rounds(options):
    """Until the time is over."""
    deadline = time.monotonic() + options.seconds
    number = options.first_round
    while time.monotonic() < deadline:
        random_ = random.Random(f"faults {options.seed} {number}")
        chosen = [(random_.uniform(0.1, 1.5), faults.make(random_.choice(names_of(options)), random_))
                  for _ in range(random_.randint(*RANDOM_FAULTS))]
        for _, fault in chosen:
            fault.reach_s = faults.REACH_RANDOM_S
        yield Round(number, chosen)
        number += 1


class Run:
    """One driver run: stands one after the other, each with some rounds."""

    def __init__(self, options):
        self.options = options
        self.violations = collections.Counter()
        self.faults = collections.Counter()
        self.not_reached = []
        self.counts = collections.Counter()
        self.codes = collections.Counter()

    def strike(self, stand, round_, work):
        """The faults of a round, one after the other."""
        for delay_s, fault in round_.faults:
            time.sleep(delay_s)
            try:
                fault.strike(stand)
                self.faults[str(fault).split(" ", 1)[0]] += 1
                self.counts["kills"] += fault.kills
            except faults.NotReached as error:
                self.not_reached.append(str(error))
                # Of several random faults one may take another one's occasion.
                if not self.options.random:
                    work.failures.append(str(error))
            except Exception as error:  # pylint: disable=broad-except
                work.failures.append(f"fault {fault}: {error!r}")

    def run_round(self, stand, source, work, round_):
        """Load, faults, rest, checks; the complaints."""
        begun = time.monotonic()
        before = (work.operations, source.watcher.looks)
        failed, drains = len(work.failed), len(stand.drains)
        load_s = max(self.options.load_seconds, *(fault.load_s or 0 for _, fault in round_.faults))
        threads = work.start(load.plan(self.options.seed, round_.number, load_s))
        striker = threading.Thread(target=self.strike, args=(stand, round_, work), daemon=True)
        striker.start()
        striker.join()
        for thread in threads:
            thread.join()
        unsettled = self.settle(source, SETTLE_S[self.options.kafka])
        evidence = checks.Evidence(stand, source, work, unsettled)
        found = checks.run_all(evidence)
        self.check_calls(round_, work.failed[failed:], found)
        seconds = time.monotonic() - begun
        result = "violated " + ", ".join(found) if found else "holds"
        say(f"round {round_.number}: {', '.join(str(fault) for _, fault in round_.faults)}: {result}"
            f" operations={work.operations - before[0]} seconds={seconds:.1f}"
            + "".join(f" emptied={rows} rows in {empty_s:.1f} s" for _, rows, empty_s in stand.drains[drains:]))
        return found, evidence

    @staticmethod
    def check_calls(round_, failed, found):
        """Calls that need not fail do not fail: Kafka and eventd are no business of theirs, and the database comes back."""
        hurting = [fault for _, fault in round_.faults if fault.hurts_calls]
        if any(not fault.windows for fault in hurting):
            return
        windows = [window for fault in hurting for window in fault.windows]
        words = collections.Counter(words for begun, ended, words in failed
                                    if not any(begun < window[1] and ended > window[0] for window in windows))
        if words:
            found["calls_fail_only_when_they_must"] = [f"calls failed without a reason: {dict(words)}"]

    @staticmethod
    def settle(source, timeout_s):
        """Waits until nothing moves any more; "" or what still does when the time is over."""
        deadline = time.monotonic() + timeout_s
        next_word = time.monotonic() + SETTLE_WORD_S
        while True:
            what = source.unsettled()
            if not what or time.monotonic() > deadline:
                return what
            if time.monotonic() > next_word:
                say(f"    waiting: {what}")
                next_word += SETTLE_WORD_S
            time.sleep(0.1)

    def warm_up(self, source, work):
        """The group has its partitions: the first one waits 3 s for others."""
        work.producer.send("registration", b'{"id": 1, "username": "first of all"}').get(timeout=WARM_UP_S)
        what = self.settle(source, WARM_UP_S)
        assert not what, f"the service does not come to work: {what}"
        userd_service.wait_for(lambda: len(source.gauge.most_kib) == 2, "a look at the memory")
        source.gauge.first_kib = dict(source.gauge.most_kib)

    def tell(self, round_, found, stand):
        """What was violated, and how to see it again."""
        for name, complaints in found.items():
            self.violations[name] += 1
            say(f"VIOLATED {name}: {getattr(checks, name, None).__doc__ if hasattr(checks, name) else ''}")
            for complaint in complaints[:checks.COMPLAINTS_MAX]:
                say(f"    {complaint}")
            if len(complaints) > checks.COMPLAINTS_MAX:
                say(f"    and {len(complaints) - checks.COMPLAINTS_MAX} more")
        kept = pathlib.Path(tempfile.mkdtemp(prefix="userd-fault."))
        for log in stand.directory.glob("*.log"):
            shutil.copy(log, kept)
        say(f"    logs: {kept}; again: --seed {self.options.seed} --first-round {round_.number} "
            + ("--random --seconds 1" if self.options.random else f"--point {round_.faults[0][1].name}"))

    def count(self, evidence, work):
        """For the closing lines; what the last round has left."""
        if evidence is None:
            return
        self.codes += work.codes
        self.counts["operations"] += work.operations
        self.counts["events committed"] += len(evidence.events)
        occurrences = evidence.occurrences()
        self.counts["events in the log"] += sum(map(len, occurrences.values()))
        self.counts["repeats by ce_id"] += sum(len(records) - 1 for records in occurrences.values())
        self.counts["records consumed"] += sum(len(evidence.records[topic]) for topic in oracle.CONSUMED)
        self.counts["dead letters"] += sum(event.destination == 2 for event in evidence.events)
        sent = collections.Counter(record.value for record in evidence.records["registration"] if b'"letter ' in (record.value or b""))
        self.counts["letters replayed"] += len(sent)
        self.counts["letters sent twice"] += sum(count > 1 for count in sent.values())
        self.counts["most rows of a relay"] = max(self.counts["most rows of a relay"], evidence.gauge.most_rows)
        for program, kib in evidence.gauge.most_kib.items():
            name = f"most KiB of {program}"
            self.counts[name] = max(self.counts[name], kib)

    def run_stand(self, rounds):
        """As many rounds as one stand is for; False when there are no more, or one failed."""
        first = next(rounds, None)
        if first is None:
            return False
        with stands.Stand(self.options.kafka) as stand:
            source = oracle.Oracle(stand)
            work = load.Load(stand)
            stand.start_userd()
            self.warm_up(source, work)
            evidence = None
            try:
                for round_ in itertools.islice(itertools.chain((first,), rounds), ROUNDS_PER_STAND):
                    found, evidence = self.run_round(stand, source, work, round_)
                    self.counts["rounds"] += 1
                    if found:
                        self.tell(round_, found, stand)
                        return self.options.keep_going
            finally:
                self.count(evidence, work)
            stand.stop_userd(stand.main, "at rest")
            late = list(checks.stopping_meets_its_deadline(evidence))
            if late:
                self.tell(round_, {"stopping_meets_its_deadline": late}, stand)
            work.close()
            source.close()
        return not late or self.options.keep_going

    def run(self):
        """All of it; the exit status."""
        rounds = random_rounds(self.options) if self.options.random else point_rounds(self.options)
        try:
            while self.run_stand(rounds):
                pass
        except KeyboardInterrupt:
            say("interrupted")
        for name in self.not_reached:
            say(f"not reached: {name}")
        say("faults: " + " ".join(f"{name}={count}" for name, count in sorted(self.faults.items())))
        say("calls: " + " ".join(f"{name}={count}" for name, count in sorted(self.codes.items())))
        say("counts: " + ", ".join(f"{name} {count}" for name, count in self.counts.items()))
        say(f"violations: {sum(self.violations.values())}"
            + "".join(f" {name}={count}" for name, count in self.violations.items()))
        return 1 if self.violations else 0


def share_of(text):
    """(K, N) of "K/N"."""
    share, shares = (int(number) for number in text.split("/"))
    if not 1 <= share <= shares:
        raise ValueError(text)
    return share, shares


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description="the fault suite of userd")
    parser.add_argument("--point", action="append", choices=faults.ALL, metavar="NAME", help="may be repeated; see --list")
    parser.add_argument("--share", type=share_of, default=(1, 1), metavar="K/N", help="of the points every Nth, from the Kth on")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--first-round", type=int, default=0, help="where to begin: what a round does follows from its number")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    parser.add_argument("--load-seconds", type=float, default=2.5, help="over which a round's operations are spread")
    parser.add_argument("--kafka", choices=tuple(faults.NAMES), default="embedded")
    parser.add_argument("--long", action="store_true", help="the faults that take long as well")
    parser.add_argument("--keep-going", action="store_true", help="after a violation, on a new stand")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.list:
        for name in faults.NAMES[options.kafka] + faults.LONG[options.kafka]:
            say(f"{name:20} {' '.join(failpoints.POINTS.get(name, ()))}")
        return 0
    unknown = set(options.point or ()) - {*faults.NAMES[options.kafka], *faults.LONG[options.kafka]}
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: not with --kafka {options.kafka}")
    if options.kafka != "embedded" and subprocess.run([stands.TOOLS / "apache_kafka", "fetch"], check=False).returncode == 77:
        return STATUS_LEFT_OUT
    check_points()
    # Whoever ends us lets us clean up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    say(f"seed {options.seed}, {options.kafka} broker, "
        + (f"random for {options.seconds} s" if options.random else f"{len(names_of(options))} points"))
    return Run(options).run()


if __name__ == "__main__":
    sys.exit(main())
