"""userd behind a real PgBouncer: refused with the reason where it lends out its connections for single transactions or
statements, by `userd migrate` and by workers; served in session mode. Left out, aloud, where there is no pgbouncer."""
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest

import userd_service

PGBOUNCER = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")
WARM_SESSIONS = 4
REASON = "use pool_mode = session"
STATUS_UNAVAILABLE = 69


def free_port():
    """A port of loopback that nobody has now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def as_other():
    """PgBouncer does not run as root."""
    return ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups"] if os.geteuid() == 0 else []


@contextlib.contextmanager
def pooler(mode, settings=""):
    """A PgBouncer in front of the tests' PostgreSQL; its port."""
    handle = userd_service.read_handle(os.environ["USERD_TEST_POSTGRES"])
    directory = pathlib.Path(tempfile.mkdtemp(prefix="userd-pooler."))
    port = free_port()
    (directory / "users").write_text(f'"userd" "{handle["password"]}"\n', encoding="utf-8")
    (directory / "pgbouncer.ini").write_text(f"""
[databases]
* = host=127.0.0.1 port={handle["port"]}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {directory}/users
pool_mode = {mode}
{settings}
""", encoding="utf-8")
    subprocess.run(["chmod", "-R", "a+rX", directory], check=True)
    with subprocess.Popen([*as_other(), PGBOUNCER, "--quiet", directory / "pgbouncer.ini"],
                          stdin=subprocess.DEVNULL) as process:
        try:
            userd_service.wait_for(lambda: is_listening(port) or process.poll() is not None, "pgbouncer listens")
            assert process.poll() is None, "pgbouncer has ended"
            yield port
        finally:
            process.terminate()
            process.wait(timeout=userd_service.TIMEOUT_S)
            shutil.rmtree(directory)


def is_listening(port):
    """Whether somebody does on this port of loopback."""
    with contextlib.closing(socket.socket()) as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def warm(url):
    """Has the pool make several connections to the server, which then rest."""
    sessions = [subprocess.Popen(["psql", "--no-psqlrc", "--quiet", "--command", "SELECT pg_sleep(0.3)", url],
                                 stdout=subprocess.DEVNULL) for _ in range(WARM_SESSIONS)]
    assert all(session.wait(timeout=userd_service.TIMEOUT_S) == 0 for session in sessions)


class PoolerTest(unittest.TestCase):
    """One PgBouncer each."""

    def service(self, port):
        """A userd whose database is reached through the pooler, migrated without it; not started."""
        service = userd_service.Service(workers=1)
        service.start_is_held = True
        self.addCleanup(service.stop)
        service.start()
        handle = userd_service.read_handle(os.environ["USERD_TEST_POSTGRES"])
        service.database_url = service.database_url.replace(f":{handle['port']}/", f":{port}/")
        service.write_config()
        return service

    def migrate(self, service, *words):
        """`userd migrate`: exit status, and what it said."""
        done = subprocess.run([userd_service.BINARY / "master/userd", "migrate", *words, "-c",
                               service.directory / "userd.conf"], env=service.environment(), text=True,
                              timeout=userd_service.TIMEOUT_S, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return done.returncode, done.stdout

    def check(self, service):
        """`userd check --connect`: exit status, and what it said."""
        done = subprocess.run([userd_service.BINARY / "master/userd", "check", "--connect", "-c",
                               service.directory / "userd.conf"], env=service.environment(), text=True,
                              timeout=userd_service.TIMEOUT_S, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return done.returncode, done.stdout

    def refused(self, mode, settings=""):
        """By the command, and by the workers, which go on trying."""
        with pooler(mode, settings) as port:
            service = self.service(port)
            warm(service.database_url)
            status, output = self.check(service)
            self.assertEqual(status, STATUS_UNAVAILABLE, output)
            self.assertIn(REASON, output)
            for words in (("status",), ("up",), ("down",)):
                status, output = self.migrate(service, *words, "--timeout", "0")
                self.assertEqual(status, STATUS_UNAVAILABLE, output)
                self.assertIn(REASON, output)
            log_path = service.directory / "log"
            with open(log_path, "w", encoding="utf-8") as log:
                service.log = log
                service.master = subprocess.Popen(
                    [userd_service.BINARY / "master/userd", "run", "-c", service.directory / "userd.conf"],
                    stdin=subprocess.DEVNULL, stderr=log, env=service.environment())
                userd_service.wait_for(lambda: REASON in log_path.read_text(encoding="utf-8"), "the worker says why")
            self.assertNotIn("database connected", log_path.read_text(encoding="utf-8"))
            # Nothing of ours is left on connections that others get.
            self.assertEqual(service.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database ="
                                         " (SELECT oid FROM pg_database WHERE datname = current_database())"), "0")
            service.end(service.master)
            service.master = None

    def test_transaction_mode_is_refused(self):
        """The one that is used last is given out first."""
        self.refused("transaction")

    def test_transaction_mode_in_turn_is_refused(self):
        """All are given out in turn."""
        self.refused("transaction", "server_round_robin = 1")

    def test_statement_mode_is_refused(self):
        """For single statements."""
        self.refused("statement")

    def test_session_mode_serves(self):
        """And is said so."""
        with pooler("session") as port:
            service = self.service(port)
            status, output = self.migrate(service, "up")
            self.assertEqual(status, 0, output)
            status, output = self.check(service)
            self.assertEqual(status, 0, output)
            self.assertIn("behind a pooler that keeps sessions", output)
            log_path = service.directory / "log"
            with open(log_path, "w", encoding="utf-8") as log:
                service.log = log
                service.start_userd()
            self.assertIn("pooler=session_mode", log_path.read_text(encoding="utf-8"))
            service.sql("INSERT INTO outbox (destination, id_auth, key, value) VALUES (1, 17, '17', '{\"id\": 17}')")
            userd_service.wait_for(lambda: service.sql("SELECT count(*) FROM outbox") == "0", "published")
            service.end(service.master)
            service.master = None


if __name__ == "__main__":
    if PGBOUNCER is None:
        print("left out: a real PgBouncer: the package pgbouncer is not installed")
        sys.exit(userd_service.STATUS_SKIPPED)
    unittest.main()
