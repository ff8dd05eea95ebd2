"""The faults of the broker: Kafka goes away, hangs, is slow, refuses, changes its leaders; and what else happens meanwhile."""
import time

import fault_base
import oracle

BACKLOG_ROWS = 20000  # four times what the relay may hold; the embedded broker keeps 5 MiB of a partition
LONG_S = 120
LONG_ROWS_PER_SECOND = 200
DISK_FULL_S = 20
SLOW_REPLY_S = 3
SLOW_S = 20
CLUSTER_LOAD_S = 8    # a dead leader is missed for about five seconds
STORAGE_ERROR = 56    # KAFKA_STORAGE_ERROR, what a full disk comes to
PRODUCE = 0


class BrokerFault(fault_base.Fault):
    """One broker goes away, hangs, is slow, or refuses."""

    hurts_calls = False

    def strike(self, stand):
        action = self.name.split(".")[1]
        away_s = self.random_.choice((0.5, 2, 5))
        if action == "restart":
            stand.restart_broker(away_s)
            self.kills += stand.is_apache()
        elif action == "hang":
            stand.hang_broker(True)
            time.sleep(away_s)
            stand.hang_broker(False)
        elif action == "slow":
            stand.broker_command("rtt", SLOW_REPLY_S * 1000)
            time.sleep(away_s)
            stand.broker_command("rtt", 0)
        else:
            # Produce: a lost connection, NOT_LEADER, NOT_ENOUGH_REPLICAS, KAFKA_STORAGE_ERROR (a full disk), TIMED_OUT.
            for code in (-195, 6, 19, STORAGE_ERROR, 7):
                stand.broker_command("error", PRODUCE, code, self.random_.randint(1, 3))
            time.sleep(1)
            stand.broker_command("clear", PRODUCE)


class ClusterFault(fault_base.Fault):
    """One of three nodes dies, restarts or hangs, or leaders move while all of them live."""

    hurts_calls = False
    load_s = CLUSTER_LOAD_S

    def choose(self, stand):
        """The node that is struck."""
        if self.name.startswith("leader."):
            return stand.cluster.leader("delete", self.random_.randrange(oracle.PARTITIONS))
        if self.name.startswith("controller."):
            return stand.cluster.controller()
        return self.random_.choice(stand.cluster.nodes)

    def strike(self, stand):
        cluster = stand.cluster
        away_s = self.random_.choice((0.5, 3, 6))
        if self.name == "leader.elect":
            for _ in range(3):
                cluster.elect("delete")
                cluster.elect("registration")
                cluster.wait_until_in_sync(["delete", "registration"])
            return
        node = self.choose(stand)
        if self.name == "node.hang":
            cluster.hang(True, node)
            time.sleep(away_s)
            cluster.hang(False, node)
        elif self.name == "node.restart":
            cluster.end(node)
            time.sleep(away_s)
            cluster.revive(node)
        else:
            nodes = cluster.nodes if self.name == "cluster.crash" else [node]
            cluster.kill(*nodes)
            self.kills += len(nodes)
            time.sleep(away_s)
            cluster.revive(*nodes)
        cluster.wait_until_in_sync([*oracle.CONSUMED, *oracle.PUBLISHED, "__consumer_offsets"])


class OutageFault(fault_base.Fault):
    """Kafka cannot be used for a while, and something beside it. Afterwards the outbox must empty soon."""

    hurts_calls = False

    def __init__(self, name, random_):
        super().__init__(name, random_)
        self.load_s = {"outage.long": LONG_S, "outage.slow": SLOW_S, "outage.disk": DISK_FULL_S}.get(name)

    def strike(self, stand):
        getattr(self, "strike_" + self.name.split(".")[1])(stand)
        stand.wait_until_drained(self.name)

    def strike_kill(self, stand):
        """eventd dies while Kafka hangs."""
        stand.hang_broker(True)
        time.sleep(0.7)
        self.kill(stand.main.pids("userd-eventd"))
        time.sleep(0.7)
        stand.hang_broker(False)

    def strike_rejoin(self, stand):
        """A new eventd asks to join the group, and Kafka hangs for longer than a session: the embedded broker forgets the question."""
        self.kill(stand.main.pids("userd-eventd"))
        time.sleep(1.5)
        stand.hang_broker(True)
        time.sleep(6)
        stand.hang_broker(False)

    def strike_backlog(self, stand):
        """More rows than the relay may hold."""
        stand.hang_broker(True)
        stand.write_backlog(self.first_id(), BACKLOG_ROWS)
        time.sleep(5)
        stand.hang_broker(False)

    def strike_long(self, stand):
        """Two minutes under load, with a backlog that grows."""
        stand.hang_broker(True)
        begun = time.monotonic()
        first = self.first_id()
        for second in range(LONG_S):
            stand.write_backlog(first + second * LONG_ROWS_PER_SECOND * 1000, LONG_ROWS_PER_SECOND)
            time.sleep(max(0, begun + second + 1 - time.monotonic()))
        stand.hang_broker(False)

    def strike_slow(self, stand):
        """Every reply takes seconds."""
        if not stand.is_apache():
            stand.broker_command("rtt", SLOW_REPLY_S * 1000)
            time.sleep(SLOW_S)
            stand.broker_command("rtt", 0)
            return
        for _ in range(int(SLOW_S / SLOW_REPLY_S)):
            stand.hang_broker(True)
            time.sleep(SLOW_REPLY_S)
            stand.hang_broker(False)
            time.sleep(0.1)

    def strike_disk(self, stand):
        """Every Produce is refused, as by a broker whose disk is full."""
        stand.broker_command("error", PRODUCE, STORAGE_ERROR, 100000)
        time.sleep(DISK_FULL_S)
        stand.broker_command("clear", PRODUCE)

    def first_id(self):
        """Of rows about users whom only the audit knows: ids of no round, one in IDS_PER_ROUND."""
        return 1000000000 + self.random_.randrange(50) * BACKLOG_ROWS * 1000
