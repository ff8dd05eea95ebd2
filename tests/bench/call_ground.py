"""What the benchmark of calls stands on: databases, servers and yardsticks, each started when it is first asked for and kept to the
end; an idle server costs nothing."""
import subprocess
import sys

import stand
import yardsticks

WARMUP_S = 0.4
# The guards against strangers are not what is measured: all connections are one address's. Those against overload stay as they are.
LIMITS = "connections_per_address = 10000; connection_rate_per_address = 0;"


class Ground:
    """`options` are those of the command line: ids, seconds, rounds."""

    def __init__(self, stack, build, options):
        self.stack = stack
        self.build = build
        self.options = options
        self.directory = stack.enter_context(stand.throw_away_directory())
        self.made = {}
        self.problems = []

    def _once(self, key, make):
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def postgres(self):
        """With fsync: what is said to be done is durable."""
        return self._once(("postgres",), lambda: self.stack.enter_context(stand.Postgres(self.directory, is_durable=True)))

    def database(self, name, users=None):
        """The URL of a database with so many users, --ids unless told."""
        def make():
            url = self.postgres().make_database(self.build, name)
            self.postgres().add_users(name, users or self.options.ids)
            return url
        return self._once(("database", name), make)

    def echo(self, processes=1):
        """stock_echo."""
        return self._once(("echo", processes),
                          lambda: self.stack.enter_context(yardsticks.Echo(self.build, processes)))

    def userd(self, workers=1, database="bench", users=None, setting=None, purpose=""):
        """userd on one of the databases; one of its own for a purpose, or for a setting: (group, line), the group "" for none."""
        def make():
            name = f"userd{len(self.made)}"
            lines = {"": "", "database": "", "limits": LIMITS}
            if setting:
                lines[setting[0]] += setting[1]
            server = self.stack.enter_context(stand.Userd(
                name, self.build, self.directory, self.database(database, users), workers=workers,
                settings=f"limits = {{ {lines['limits']} }}; {lines['']}", database_settings=lines["database"]))
            server.users = users or self.options.ids
            server.wait_for_database()
            return server
        return self._once(("userd", workers, database, setting, purpose), make)

    def find_setting(self, line):
        """(group, line) of a setting, where `userd check` knows it; None: it does not."""
        config = self.directory / "probe.conf"
        config.touch(mode=0o600)
        for group in ("", "database", "limits"):
            config.write_text(f"{group} = {{ {line} }};" if group else line, encoding="utf-8")
            done = subprocess.run([self.build / "master/userd", "check", "-c", config], check=False, capture_output=True,
                                  env=stand.environment())
            if done.returncode == 0:
                return group, line
        return None

    def load(self, server, seed, *arguments, connections=8, streams=32, seconds=None, is_clean=True):
        """One run of the load generator. Its answers are looked at, and what is not as it must be is kept as a problem."""
        users = getattr(server, "users", None)
        command = ["--connections", connections, "--streams", streams, "--seconds", seconds or self.options.seconds,
                   "--warmup", WARMUP_S, "--seed", seed + 1, *arguments]
        if users:
            command += ["--ids", users, "--verify"]
        fields = stand.run_load(self.build, server.addresses, *command)
        if fields["wrong"] or (is_clean and not fields["is_clean"]):
            self.problem(f"{server.name}: {' '.join(map(str, arguments))}: wrong={fields['wrong']} "
                         f"unanswered={fields['unanswered']} statuses={fields['statuses']}")
        return fields

    def problem(self, text):
        """Ends the run with a failure, after the table."""
        self.problems.append(text)
        print(f"bench: not as it must be: {text}", file=sys.stderr)

    def pgbench(self, script, database, clients):
        """One run of a statement."""
        return yardsticks.run_pgbench(self.directory, self.database(database), script, clients=clients,
                                      seconds=self.options.seconds, ids=self.options.ids)
