"""What userd's speed is held against: a plain C core server without a database, and PostgreSQL without a server before it."""
import pathlib
import statistics
import subprocess

import stand


class Echo:
    """So many processes of stock_echo, a port for each. A context manager."""

    def __init__(self, build, processes, prefix=()):
        self.name = "stock_echo"
        self.processes = [subprocess.Popen([*prefix, build / "tests/bench/stock_echo"], stdout=subprocess.PIPE, text=True)
                          for _ in range(processes)]
        self.addresses = ["127.0.0.1:" + process.stdout.readline().strip().removeprefix("port=") for process in self.processes]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Has no other way to end."""
        for process in self.processes:
            process.kill()
            process.wait()
            process.stdout.close()

    def pids(self):
        """Whose CPU time counts."""
        return [process.pid for process in self.processes]


# The statement that GetUser becomes, for one id; and the least that a rename can be: one row, one transaction.
SELECT = """\\set id random(1, :ids)
SELECT id_auth, username FROM "user" WHERE id_auth = ANY(ARRAY[:id]::int4[]);
"""
UPDATE = """\\set id random(1, :ids)
\\set suffix random(1, 1000000000)
UPDATE "user" SET username = 'user' || :id || '_' || :suffix WHERE id_auth = :id;
"""


def find_pgbench():
    """PostgreSQL's own load generator stands beside its server."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/pgbench"))
    if not found:
        raise SystemExit("bench: no pgbench in /usr/lib/postgresql/*/bin")
    return found[-1]


def run_pgbench(directory, url, script, *, clients, seconds, ids):
    """Runs of a prepared statement, longer ones until one was long enough for a transaction: transactions a second, and the median
    of their latencies in microseconds."""
    path = directory / "pgbench.sql"
    path.write_text(script, encoding="ascii")
    log = directory / "transactions"
    command = [find_pgbench(), "--no-vacuum", "--protocol", "prepared", "--client", str(clients), "--jobs", "1", "--define",
               f"ids={ids}", "--log", "--log-prefix", log, "--file", path]
    for attempt in (1, 4, 16):
        done = subprocess.run([*command, "--time", str(attempt * max(1, round(seconds))), url], check=False, capture_output=True,
                              text=True, env=stand.environment())
        latencies = []
        for one in directory.glob("transactions.*"):
            latencies += [int(line.split()[2]) for line in one.read_text(encoding="ascii").splitlines()]
            one.unlink()
        rates = [float(line.split()[2]) for line in done.stdout.splitlines() if line.startswith("tps = ")]
        if done.returncode == 0 and rates and latencies:
            return {"ok_rate": rates[0], "p50_us": statistics.median(latencies), "is_clean": True}
    raise SystemExit(f"bench: pgbench: status {done.returncode}: {done.stdout}{done.stderr}")
