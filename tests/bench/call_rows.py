"""The figures of calls: what is measured for each, in alternation with its yardstick, and the goal that it is held against.

A block is a set of cases that are measured in turn, round by round; its rows are the figures that can be made of them. A case is
a function of (ground, seed) that makes one run and says its figures."""
import statistics

import stand
import yardsticks
from call_ground import Ground
from figures import Figure, median, rate_against

BUSY_POLL = "busy_poll_us = 300;"
IDS_PER_CALL = 20
# To refuse a call costs what the C core spends on every call, of the cores that PostgreSQL is to work on. With calls that are worth
# a thousand reads it is the choice among them that counts, with a tenth of that also their cost.
OVERLOAD_IDS = (1000, 100)
OVERLOAD_DEADLINE = "1000m"
# Of the calls that were due: a tail that begins behind these is not theirs.
TAIL_LEFT = 0.0001


# ---- cases

def echo(processes=1, **shape):
    """The yardstick."""
    return lambda ground, seed: ground.load(ground.echo(processes), seed, **shape)


def calls(*arguments, workers=1, database="bench", setting=None, **shape):
    """userd, under these arguments of the load generator."""
    return lambda ground, seed: ground.load(ground.userd(workers, database, setting=setting), seed, *arguments, **shape)


def statement(script, database, clients):
    """PostgreSQL alone."""
    return lambda ground, seed: ground.pgbench(script, database, clients)


def open_loop(make_server):
    """The maximum of this moment, and then half of it by the clock."""
    def run(ground, seed):
        server = make_server(ground)
        peak = ground.load(server, seed, seconds=ground.options.seconds / 2)["ok_rate"]
        return ground.load(server, seed, "--rate", peak / 2, streams=200) | {"peak": peak}
    return run


def overload(ids_per_call):
    """The maximum of this moment, and then three times of it by the clock, with a deadline as every client has one."""
    def run(ground, seed):
        server = ground.userd()
        call = ("--method", "GetByIDs", "--ids-per-call", ids_per_call)
        peak = ground.load(server, seed, *call)["ok_rate"]
        return ground.load(server, seed, *call, "--rate", 3 * peak, "--timeout", OVERLOAD_DEADLINE, connections=16, streams=900,
                           is_clean=False) | {"peak": peak}
    return run


# ---- figures

def reads(runs):
    """One worker."""
    return [rate_against("GetUser, 8 x 32, one worker", runs["get"], runs["echo"], base="stock echo", bound=1.25)]


def reads_two(runs):
    """As many of each."""
    return [rate_against("GetUser, 8 x 32, two workers", runs["get2"], runs["echo2"], base="two stock echoes", bound=1.1)]


def workers(runs):
    """No goal: the generator and PostgreSQL are on the same cores."""
    return [rate_against("GetUser, two workers against one", runs["get2"], runs["get"], base="one worker")]


def username(runs):
    """By name."""
    return [rate_against("GetByUsername, 8 x 32", runs["username"], runs["echo"], base="stock echo", bound=0.9)]


def ids(runs):
    """Calls, and names."""
    names = [{"ok_rate": run["names_rate"]} for run in runs["ids"]]
    return [rate_against(f"GetByIDs of {IDS_PER_CALL}, 8 x 16, calls", runs["ids"], runs["echo16"], base="stock echo", bound=0.15),
            rate_against(f"GetByIDs of {IDS_PER_CALL}, 8 x 16, names", names, runs["get"], base="GetUser", bound=3, unit="names/s")]


def mixed(runs):
    """Reads and renames."""
    return [rate_against("90 % GetUser, 10 % UserUpdate, 8 x 32", runs["mixed"], runs["echo"], base="stock echo", bound=0.6)]


def ceiling(runs):
    """No goal: what PostgreSQL gives to clients of its own that ask for one row at a time."""
    return [rate_against("GetUser against the same SELECT by pgbench, 32 clients", runs["get"], runs["select"], base="pgbench")]


def zipf(runs):
    """No goal: equal keys in a batch are asked for once."""
    return [rate_against("GetUser, ids by Zipf's law", runs["zipf"], runs["get"], base="uniform ids")]


def rename(runs):
    """Durable both."""
    return [rate_against("UserUpdate, 8 x 32", runs["rename"], runs["update"], base="UPDATE by pgbench, 32 clients", bound=1.0,
                         unit="renames/s")]


def latency_ratio(what, own, bases, bound, base):
    """Medians against the sum of the yardsticks' medians, round by round."""
    own_us = [run["p50_us"] for run in own]
    base_us = [sum(run["p50_us"] for run in one) for one in zip(*bases)]
    return Figure(what, f"at most {bound:g} x {base}", f"{statistics.median(own_us):.0f} against {statistics.median(base_us):.0f} us",
                  stand.median_ratio(own_us, base_us), bound, True)


def lone(runs):
    """One call at a time."""
    return [latency_ratio("one GetUser at a time, p50", runs["lone"], (runs["lone_echo"], runs["lone_select"]), 1.05,
                          "(stock echo + SELECT by pgbench)")]


def lone_busy(runs):
    """The same, with CPU spent on it."""
    return [latency_ratio("the same with busy_poll_us, p50", runs["lone_busy"], (runs["lone_echo"],), 1.2, "stock echo")]


def tails(runs):
    """From the moment that each call was due. Where many calls were never begun, nothing can be said of the tail."""
    made = []
    for name, own, bounds in (("", runs["open"], (4, 15)), (", stock echo", runs["open_echo"], (None, None))):
        left = sum(run["not_started"] for run in own)
        lost = left > TAIL_LEFT * sum(run["calls"] for run in own)
        for point, key, bound in (("p99", "p99_us", bounds[0]), ("p99.9", "p999_us", bounds[1])):
            ratio = stand.median_ratio([run[key] for run in own], [run["p50_us"] for run in own])
            made.append(Figure(f"open loop at half of the maximum{name}, {point}", f"at most {bound} x p50" if bound else "against p50",
                               f"{median(own, key):,.0f} against {median(own, 'p50_us'):,.0f} us" +
                               (f", {left} never begun" if left else ""), float("inf") if lost else ratio, bound, True))
    return made


def goodput(runs):
    """What is still served in time; of the cheaper calls for their own sake."""
    made = []
    for ids_per_call, bound in zip(OVERLOAD_IDS, (0.9, None)):
        own = runs[f"overload{ids_per_call}"]
        peaks = [run["peak"] for run in own]
        offered = stand.median_ratio([run["started_rate"] for run in own], peaks)
        made.append(Figure(f"goodput under overload ({offered:.1f} x begun), GetByIDs of {ids_per_call}",
                           "at least 0.9 x the peak" if bound else "against the peak",
                           f"{median(own):,.0f} against {median(own, 'peak'):,.0f} calls/s",
                           stand.median_ratio([run["ok_rate"] for run in own], peaks), bound))
    return made


def table_rows(runs):
    """The slowest against the fastest table size."""
    rates = {name: median(own) for name, own in runs.items()}
    slowest = min(rates, key=rates.get)
    fastest = max(rates, key=rates.get)
    return [Figure(f"GetUser, {' to '.join((min(rates, key=int), max(rates, key=int)))} rows", "within 10 %",
                   f"{rates[slowest]:,.0f} ({slowest}) against {rates[fastest]:,.0f} ({fastest}) calls/s",
                   rates[slowest] / rates[fastest], 0.9)]


def sized(users):
    """GetUser on a table of this size."""
    return lambda ground, seed: ground.load(ground.userd(database=f"rows{users}", users=users), seed)


def blocks(ground):
    """[(cases, rows)]: case -> how to run it; row -> (cases that it needs, how to make its figures)."""
    busy = ground.find_setting(BUSY_POLL)
    most = 7 if ground.options.full else 6
    sizes = [10 ** power for power in range(4, most + 1)] if not ground.options.quick else [1000, 10000]
    by_ids = ("--method", "GetByIDs", "--ids-per-call", IDS_PER_CALL)
    writes = ("--mix", "GetUser=90,UserUpdate=10")
    throughput = ({
        "echo": echo(), "get": calls(), "username": calls("--method", "GetByUsername"),
        "mixed": calls(*writes, database="mixed"), "zipf": calls("--keys", "zipf"),
        "select": statement(yardsticks.SELECT, "bench", 32),
        "echo16": echo(streams=16), "ids": calls(*by_ids, streams=16),
        "echo2": echo(2), "get2": calls(workers=2),
    }, {
        "get_user": (("echo", "get"), reads), "get_user_2": (("echo2", "get2"), reads_two),
        "get_by_username": (("echo", "username"), username), "get_by_ids": (("echo16", "ids", "get"), ids),
        "mixed": (("echo", "mixed"), mixed), "workers": (("get", "get2"), workers), "ceiling": (("get", "select"), ceiling),
        "zipf": (("get", "zipf"), zipf),
    })
    renames = ({"rename": calls("--method", "UserUpdate", database="renames"), "update": statement(yardsticks.UPDATE, "updates", 32)},
               {"rename": (("rename", "update"), rename)})
    single = {"connections": 1, "streams": 1}
    alone = ({"lone_echo": echo(**single), "lone_select": statement(yardsticks.SELECT, "bench", 1), "lone": calls(**single)},
             {"lone": (("lone_echo", "lone_select", "lone"), lone)})
    if busy:
        alone[0]["lone_busy"] = calls(setting=busy, **single)
        alone[1]["lone_busy"] = (("lone_echo", "lone_busy"), lone_busy)
    return [throughput, renames, alone, ({"open": open_loop(Ground.userd), "open_echo": open_loop(Ground.echo)},
             {"open_loop": (("open", "open_echo"), tails)}),
            ({f"overload{count}": overload(count) for count in OVERLOAD_IDS},
             {"overload": (tuple(f"overload{count}" for count in OVERLOAD_IDS), goodput)}),
            ({str(size): sized(size) for size in sizes}, {"rows": (tuple(map(str, sizes)), table_rows)})]
