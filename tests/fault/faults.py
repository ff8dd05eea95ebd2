"""All faults by name, and those of processes and of the database: what strikes, where, and how it is taken back."""
import signal
import time

import broker_faults
import failpoints
import fault_base
import oracle
import replay_fault
import stand as stands

REACH_S = 25          # a point that is not passed by then is not reached at all
REACH_RANDOM_S = 6    # nor is one that an earlier fault has taken the occasion from
MASTER_AWAY_S = 0.5
RESTARTS = 5
BETWEEN_RESTARTS_S = 5
# A worker tries to connect again at least once in this time.
RECONNECT_S = 3.5

WITH_REBALANCE = ("group.assigned", "group.revoked", "group.asked")
NotReached = fault_base.NotReached


class PointFault(fault_base.Fault):
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
        self.kills += self.action == "kill"


class ProcessFault(fault_base.Fault):
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
            self.kills += 1
            time.sleep(MASTER_AWAY_S)
            stand.main.start()
            return
        pids = stand.main.pids(f"userd-{self.program}")
        if not pids:
            return
        pid = self.random_.choice(sorted(pids))
        if self.action == "kill":
            self.kill([pid])
            return
        stands.send_signal([pid], signal.SIGSTOP)
        time.sleep(self.stop_s)
        stands.send_signal([pid], signal.SIGCONT)


class PostgresFault(fault_base.Fault):
    """The database is restarted, crashes, hangs, or throws everybody out."""

    def __init__(self, name, random_):
        super().__init__(name, random_)
        if name == "postgres.restarts":
            self.load_s = RESTARTS * BETWEEN_RESTARTS_S

    def strike(self, stand):
        action = self.name.split(".")[1]
        if action in ("restart", "crash"):
            stand.restart_postgres(action == "crash")
        elif action == "restarts":
            self.strike_restarts(stand)
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

    def strike_restarts(self, stand):
        """Several in a row; soon after each of them calls must work again."""
        begun = time.monotonic()
        for i in range(RESTARTS):
            stopped = time.monotonic()
            stand.restart_postgres(i % 2 == 1)
            self.windows.append((stopped, time.monotonic() + RECONNECT_S))
            time.sleep(max(0, begun + (i + 1) * BETWEEN_RESTARTS_S - time.monotonic()))


class SecondFault(fault_base.Fault):
    """Another instance joins and leaves: a rebalance each time, and perhaps another relay."""

    hurts_calls = False

    def strike(self, stand):
        if stand.second.is_running():
            return
        stand.second.start(is_waiting=False)
        time.sleep(self.random_.choice((1, 4, 7)))
        if self.random_.random() < 0.5:
            stand.second.kill()
            self.kills += 1
        else:
            stand.stop_userd(stand.second, "the second instance")


class StopFault(fault_base.Fault):
    """SIGTERM while broker and database hang, then a new start."""

    def strike(self, stand):
        stand.hang_broker(True)
        stand.hang_postgres(True)
        time.sleep(0.5)
        stand.stop_userd(stand.main, "with a hung broker and a hung database")
        stand.hang_postgres(False)
        stand.hang_broker(False)
        stand.main.start()


CLASSES = {"outage": broker_faults.OutageFault, "worker": ProcessFault, "eventd": ProcessFault, "master": ProcessFault,
           "postgres": PostgresFault, "broker": broker_faults.BrokerFault, "second": SecondFault, "stop": StopFault,
           "replay": replay_fault.ReplayFault, "leader": broker_faults.ClusterFault, "controller": broker_faults.ClusterFault,
           "node": broker_faults.ClusterFault, "cluster": broker_faults.ClusterFault}
EVERYWHERE = (*failpoints.POINTS, "worker.kill", "worker.stop", "eventd.kill", "eventd.stop", "master.kill", "postgres.restart",
              "postgres.crash", "postgres.hang", "postgres.disconnect", "outage.kill", "outage.backlog", "second.joins", "stop.hung",
              "replay.kill")
# Those that take long: by name, or with --long.
LONG = {
    "embedded": ("outage.rejoin", "outage.slow", "outage.disk", "postgres.restarts", "outage.long"),
    "apache": ("outage.rejoin", "outage.slow", "postgres.restarts", "outage.long"),
    "apache3": ("outage.rejoin", "outage.slow", "postgres.restarts", "outage.long"),
}
NAMES = {
    "embedded": (*EVERYWHERE, "broker.restart", "broker.hang", "broker.slow", "broker.errors"),
    "apache": (*EVERYWHERE, "broker.restart", "broker.hang"),
    "apache3": (*EVERYWHERE, "leader.kill", "leader.elect", "controller.kill", "node.kill", "node.restart", "node.hang",
                "cluster.crash"),
}
ALL = tuple(dict.fromkeys(name for table in (NAMES, LONG) for names in table.values() for name in names))


def make(name, random_):
    """The fault of this name, with the numbers that `random_` chooses."""
    if name in failpoints.POINTS:
        return PointFault(name, random_)
    return CLASSES[name.split(".")[0]](name, random_)
