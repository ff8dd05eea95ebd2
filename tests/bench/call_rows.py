"""The figures of calls: what is measured for each, in alternation with its yardstick, and the goal that it is held against.

A block is a set of cases that are measured in turn, round by round; its rows are the figures that can be made of them. A case is
a function of (ground, seed) that makes one run and says its figures."""
import statistics

import stand
import yardsticks
from figures import Figure, median, rate_against

BUSY_POLL = "busy_poll_us = 300;"
IDS_PER_CALL = 20
# Calls that cost the database most of the time, so that the generator can really offer three times what is served.
OVERLOAD_CALL = ("--method", "GetByIDs", "--ids-per-call", 100)
OVERLOAD_DEADLINE = "1000m"


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


def open_loop(ground, seed):
    """The maximum of this moment, and then half of it by the clock."""
    server = ground.userd()
    peak = ground.load(server, seed, seconds=ground.options.seconds / 2)["ok_rate"]
    return ground.load(server, seed, "--rate", peak / 2, streams=200) | {"peak": peak}


def overload(ground, seed):
    """The maximum of this moment, and then three times of it by the clock, with a deadline as every client has one."""
    server = ground.userd()
    peak = ground.load(server, seed, *OVERLOAD_CALL)["ok_rate"]
    return ground.load(server, seed, *OVERLOAD_CALL, "--rate", 3 * peak, "--timeout", OVERLOAD_DEADLINE, connections=16,
                       streams=900, is_clean=False) | {"peak": peak}


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
    """From the moment that each call was due. Where calls were never begun, nothing can be said of the tail."""
    own = runs["open"]
    left = sum(run["not_started"] for run in own)
    result = []
    for name, key, bound in (("p99", "p99_us", 4), ("p99.9", "p999_us", 15)):
        ratio = stand.median_ratio([run[key] for run in own], [run["p50_us"] for run in own])
        result.append(Figure(f"open loop at half of the maximum, {name}", f"at most {bound} x p50",
                             f"{median(own, key):,.0f} against {median(own, 'p50_us'):,.0f} us" +
                             (f", {left} never begun" if left else ""), float("inf") if left else ratio, bound, True))
    return result


def goodput(runs):
    """What is still served in time."""
    own = runs["overload"]
    peaks = [run["peak"] for run in own]
    offered = stand.median_ratio([run["started_rate"] for run in own], peaks)
    ratio = stand.median_ratio([run["ok_rate"] for run in own], peaks)
    return [Figure(f"goodput under overload ({offered:.1f} x begun)", "at least 0.9 x the peak",
                   f"{median(own):,.0f} against {median(own, 'peak'):,.0f} calls/s", ratio, 0.9)]


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
    return [throughput, renames, alone, ({"open": open_loop}, {"open_loop": (("open",), tails)}),
            ({"overload": overload}, {"overload": (("overload",), goodput)}),
            ({str(size): sized(size) for size in sizes}, {"rows": (tuple(map(str, sizes)), table_rows)})]
