"""What every fault is. A fault strikes while the load runs; when strike() returns, nothing is left stopped, hung or away."""
import random
import signal

import stand as stands


class NotReached(Exception):
    """The fault had no occasion."""


class Fault:
    """One fault: a name, and the numbers that the seed has chosen."""

    # Calls may fail while this fault is there.
    hurts_calls = True
    # Over which the round's operations are spread; None: as the command line says.
    load_s = None

    def __init__(self, name, random_):
        self.name = name
        self.random_ = random.Random(random_.random())
        self.kills = 0     # processes that got SIGKILL
        self.windows = []  # (begin, end) of time.monotonic() in which calls may fail; empty: at any time

    def __str__(self):
        return self.name

    def kill(self, pids):
        """SIGKILL, counted."""
        self.kills += len(list(pids))
        stands.send_signal(pids, signal.SIGKILL)

    def strike(self, stand):
        """Blocks until it is over."""
        raise NotImplementedError
