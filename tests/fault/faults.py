"""The faults: what strikes, where, and how it is taken back. A fault strikes while the load runs; when strike() returns, nothing is
left stopped, hung or away."""
import random
import signal
import time

import failpoints
import oracle
import stand as stands

REACH_S = 25          # a point that is not passed by then is not reached at all
REACH_RANDOM_S = 6    # nor is one that an earlier fault has taken the occasion from
MASTER_AWAY_S = 0.5
BACKLOG_ROWS = 20000  # four times what the relay may hold; the embedded broker keeps 5 MiB of a partition
LONG_S = 120

WITH_REBALANCE = ("group.assigned", "group.revoked", "group.asked")


class NotReached(Exception):
    """The fault had no occasion."""


class Fault:
    """One fault: a name, and the numbers that the seed has chosen."""

    # Calls may fail while this fault is there.
    hurts_calls = True

    def __init__(self, name, random_):
        self.name = name
        self.random_ = random.Random(random_.random())

    def __str__(self):
        return self.name

    def strike(self, stand):
        """Blocks until it is over."""
        raise NotImplementedError


class PointFault(Fault):
    """A failpoint: the process that passes it ends there, or stops and goes on later."""

    def __init__(self, name, random_):
        super().__init__(name, random_)
        self.program = failpoints.POINTS[name][0]
        self.hurts_calls = self.program == "worker"
        self.reach_s = REACH_S
        self.action = random_.choice(("kill", "kill", "stop"))
        # Rare ones: at their first passage.
        is_rare = name in WITH_REBALANCE or name.startswith("commit.")
        self.count = 1 if is_rare else random_.randint(1, 4)
        # Longer than the session of a group's member, now and then.
        self.stop_s = random_.choice((0.3, 1, 2.5, 9 if self.program == "eventd" else 5))

    def __str__(self):
        what = f"stop {self.stop_s} s" if self.action == "stop" else "kill"
        return f"{self.name} ({what} {self.program} at passage {self.count})"

    def strike(self, stand):
        number = signal.SIGKILL if self.action == "kill" else signal.SIGSTOP
        stand.failpoints.arm(self.name, number, self.count)
        has_second = self.name in WITH_REBALANCE and not stand.second.is_running()
        if has_second:
            stand.second.start(is_waiting=False)
        pid = stand.failpoints.wait_until_fired(self.name, self.reach_s)
        if pid and self.action == "stop":
            time.sleep(self.stop_s)
            stand.failpoints.resume(pid)
        if has_second:
            time.sleep(1)
            stand.stop_userd(stand.second, "the second instance")
        if not pid:
            raise NotReached(f"{self.name} was not passed {self.count} times within {self.reach_s} s")


class ProcessFault(Fault):
    """Somebody's process, at whatever it is doing."""

    def __init__(self, name, random_):
        super().__init__(name, random_)
        self.program, self.action = name.split(".")
        self.stop_s = random_.choice((0.5, 2, 5))
        self.hurts_calls = self.program != "eventd"

    def __str__(self):
        return f"{self.name} {self.stop_s} s" if self.action == "stop" else self.name

    def strike(self, stand):
        if self.program == "master":
            stand.main.kill()
            time.sleep(MASTER_AWAY_S)
            stand.main.start()
            return
        pids = stand.main.pids(f"userd-{self.program}")
        if not pids:
            return
        pid = self.random_.choice(sorted(pids))
        if self.action == "kill":
            stands.send_signal([pid], signal.SIGKILL)
            return
        stands.send_signal([pid], signal.SIGSTOP)
        time.sleep(self.stop_s)
        stands.send_signal([pid], signal.SIGCONT)


class PostgresFault(Fault):
    """The database is restarted, crashes, hangs, or throws everybody out."""

    def strike(self, stand):
        action = self.name.split(".")[1]
        if action in ("restart", "crash"):
            stand.restart_postgres(action == "crash")
        elif action == "hang":
            stand.hang_postgres(True)
            time.sleep(self.random_.choice((1, 4, 8)))
            stand.hang_postgres(False)
        else:
            source = oracle.Database(stand.admin_url)
            for _ in range(3):
                source.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'userd%'")
                time.sleep(0.3)
            source.close()


class BrokerFault(Fault):
    """Kafka goes away, hangs, is slow, or refuses."""

    hurts_calls = False

    def strike(self, stand):
        action = self.name.split(".")[1]
        away_s = self.random_.choice((0.5, 2, 5))
        if action == "restart":
            stand.restart_broker(away_s)
        elif action == "hang":
            stand.hang_broker(True)
            time.sleep(away_s)
            stand.hang_broker(False)
        elif stand.kafka == "apache":
            return  # the rest is the embedded broker's
        elif action == "slow":
            stand.broker_command("rtt", 3000)
            time.sleep(away_s)
            stand.broker_command("rtt", 0)
        else:
            # Produce: a lost connection, NOT_LEADER, NOT_ENOUGH_REPLICAS, KAFKA_STORAGE_ERROR (a full disk), TIMED_OUT.
            for code in (-195, 6, 19, 56, 7):
                stand.broker_command("error", 0, code, self.random_.randint(1, 3))
            time.sleep(1)
            stand.broker_command("clear", 0)


class SecondFault(Fault):
    """Another instance joins and leaves: a rebalance each time, and perhaps another relay."""

    hurts_calls = False

    def strike(self, stand):
        if stand.second.is_running():
            return
        stand.second.start(is_waiting=False)
        time.sleep(self.random_.choice((1, 4, 7)))
        if self.random_.random() < 0.5:
            stand.second.kill()
        else:
            stand.stop_userd(stand.second, "the second instance")


class StopFault(Fault):
    """SIGTERM while broker and database hang, then a new start."""

    def strike(self, stand):
        stand.hang_broker(True)
        stand.hang_postgres(True)
        time.sleep(0.5)
        stand.stop_userd(stand.main, "with a hung broker and a hung database")
        stand.hang_postgres(False)
        stand.hang_broker(False)
        stand.main.start()


class OutageFault(Fault):
    """Kafka away, and something beside it."""

    hurts_calls = False

    def strike(self, stand):
        what = self.name.split(".")[1]
        stand.hang_broker(True)
        if what == "long":
            time.sleep(LONG_S)
        elif what == "backlog":
            write_backlog(stand, 1000000000 + self.random_.randrange(50) * BACKLOG_ROWS * 1000, BACKLOG_ROWS)
            time.sleep(5)
        else:
            time.sleep(0.7)
            stands.send_signal(stand.main.pids("userd-eventd"), signal.SIGKILL)
            time.sleep(0.7)
        stand.hang_broker(False)


def write_backlog(stand, first, rows):
    """Many events at once, each about another user, whom only the audit knows: ids of no round, one in IDS_PER_ROUND."""
    source = oracle.Database(stand.admin_url)
    source.query("INSERT INTO outbox (destination, id_auth, key, value)"
                 " SELECT 1, id, convert_to(id::text, 'UTF8'), convert_to('{\"id\": ' || id || ', \"n\": 1}', 'UTF8')"
                 " FROM (SELECT %s + number * 1000 + 999 AS id FROM generate_series(1, %s) number) n", (first, rows))
    source.close()


CLASSES = {"outage": OutageFault, "worker": ProcessFault, "eventd": ProcessFault, "master": ProcessFault, "postgres": PostgresFault,
           "broker": BrokerFault, "second": SecondFault, "stop": StopFault}
OTHERS = ("worker.kill", "worker.stop", "eventd.kill", "eventd.stop", "master.kill", "postgres.restart", "postgres.crash",
          "postgres.hang", "postgres.disconnect", "broker.restart", "broker.hang", "broker.slow", "broker.errors",
          "outage.kill", "outage.backlog", "second.joins", "stop.hung")
NAMES = (*failpoints.POINTS, *OTHERS)
BY_NAME_ONLY = ("outage.long",)


def make(name, random_):
    """The fault of this name, with the numbers that `random_` chooses."""
    if name in failpoints.POINTS:
        return PointFault(name, random_)
    return CLASSES[name.split(".")[0]](name, random_)
