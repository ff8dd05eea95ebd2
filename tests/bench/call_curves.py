"""How the figures of calls move with connections and with rate: for the plots, without goals."""
import stand
from figures import median

RATE_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)


def connections(ground):
    """Throughput of userd and of the yardstick, calls/s by connections of 32 streams."""
    counts = (1, 8) if ground.options.quick else (1, 2, 4, 8, 16, 32, 64)
    servers = (ground.userd(), ground.echo())
    curve = []
    for count in counts:
        runs = stand.alternate(2, min(2, ground.options.rounds),
                               lambda index, number, count=count: ground.load(servers[index], number, connections=count,
                                                                              seconds=ground.options.seconds / 2))
        curve.append((count, *(median([one[index] for one in runs]) for index in range(2))))
    return [], {"connections": curve}


def rates(ground):
    """p50, p99 and p99.9 in microseconds by calls/s offered; from 10 to 90 % of the maximum."""
    server = ground.userd()
    peak = ground.load(server, 0)["ok_rate"]
    curve = []
    for share in RATE_SHARES:
        run = ground.load(server, 1, "--rate", share * peak, streams=200)
        curve.append((share * peak, run["p50_us"], run["p99_us"], run["p999_us"]))
    return [], {"rates": curve}


ROWS = {"connections": connections, "rates": rates}
