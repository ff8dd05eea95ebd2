"""The test's side of common/failpoint.h: the table of all points, and how to arm one and see it fire."""
import mmap
import os
import signal
import struct
import time

SLOTS = 64
SLOT = struct.Struct("=40sIiII8x")
OFFSET_COUNTDOWN = 44

# Every FAILPOINT() of the programs: its name, the program that passes it, what it means.
POINTS = {
    "write.before": ("worker", "a write is about to be sent to the database"),
    "write.sent": ("worker", "a write is sent, its COMMIT unknown"),
    "write.committed": ("worker", "a write is committed, nobody told"),
    "relay.selected": ("worker", "the relay has read rows"),
    "relay.sent": ("worker", "rows are sent to eventd"),
    "publish.produced": ("eventd", "a row is handed to librdkafka"),
    "publish.appended": ("eventd", "a delivery report has come, and is not looked at"),
    "publish.answered": ("eventd", "the relay is told"),
    "relay.reported": ("worker", "the relay hears of deliveries"),
    "relay.delete.before": ("worker", "delivered rows are about to go"),
    "relay.delete.sent": ("worker", "the DELETE is sent, its COMMIT unknown"),
    "relay.delete.after": ("worker", "delivered rows are gone"),
    "deliver.fetched": ("eventd", "a record is fetched"),
    "deliver.dispatched": ("eventd", "a batch is sent to a worker"),
    "intake.received": ("worker", "a batch has come from eventd"),
    "intake.sent": ("worker", "a batch's transaction is under way"),
    "intake.committed": ("worker", "a batch is committed, eventd not told"),
    "intake.answered": ("worker", "eventd is told"),
    "deliver.answered": ("eventd", "eventd hears that a batch is applied"),
    "commit.before": ("eventd", "an offset commit is about to be sent"),
    "commit.after": ("eventd", "an offset commit is sent"),
    "group.assigned": ("eventd", "a rebalance gives partitions"),
    "group.revoked": ("eventd", "a rebalance takes partitions"),
    "group.asked": ("eventd", "a worker is asked for positions"),
}


class Failpoints:
    """The shared file: made before userd starts, which hands its name (variable USERD_FAILPOINTS_FILE) on."""

    def __init__(self, path):
        self.path = path
        self.names = list(POINTS)
        with open(path, "wb") as file:
            for name in self.names:
                file.write(SLOT.pack(name.encode(), 0, 0, 0, 0))
            file.write(b"\0" * SLOT.size * (SLOTS - len(self.names)))
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), SLOTS * SLOT.size)

    def read(self, name):
        """(passages, countdown, signal, pid)."""
        return SLOT.unpack_from(self.map, self.names.index(name) * SLOT.size)[1:]

    def passages(self):
        """How often each point was passed."""
        return {name: self.read(name)[0] for name in self.names}

    def arm(self, name, signal_number, count):
        """The process whose passage is number `count` from now on raises the signal on itself."""
        base = self.names.index(name) * SLOT.size
        struct.pack_into("=II", self.map, base + OFFSET_COUNTDOWN + 4, signal_number, 0)
        struct.pack_into("=i", self.map, base + OFFSET_COUNTDOWN, count)

    def disarm(self, name):
        """Nobody is hit any more."""
        struct.pack_into("=i", self.map, self.names.index(name) * SLOT.size + OFFSET_COUNTDOWN, 0)

    def wait_until_fired(self, name, timeout_s):
        """The pid that was hit, or None when the time is over (then the point is disarmed)."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            pid = self.read(name)[3]
            if pid:
                return pid
            time.sleep(0.01)
        self.disarm(name)
        return self.read(name)[3] or None

    @staticmethod
    def resume(pid):
        """SIGCONT for one that a point has stopped, if it still lives."""
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass
