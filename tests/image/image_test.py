#!/usr/bin/python3
"""The container image as an orchestrator runs it: no shell, a user of its own, a read-only root, no configuration file, PID 1. In a
network namespace of its own with a private PostgreSQL (by its Unix socket) and the embedded broker."""
import gzip
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest

IMAGE, POSTGRES, BROKER, GRPC_CALL = (pathlib.Path(path).resolve() for path in sys.argv[1:5])
USER = 65532
TIMEOUT_S = 60
SKIPPED = 77


def run(*command, check=True, timeout=TIMEOUT_S):
    """Runs a command to its end; what it printed."""
    done = subprocess.run([str(word) for word in command], check=False, timeout=timeout, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if check and done.returncode != 0:
        raise AssertionError(f"{command}: status {done.returncode}: {done.stdout}")
    return done


def why_not_here():
    """What is missing on this machine; None: nothing."""
    for program in ("runc", "umoci", "ip"):
        if shutil.which(program) is None:
            return f"no {program}"
    if os.geteuid() != 0:
        return "not root"
    if not IMAGE.is_dir():
        return f"no image {IMAGE}: ./dev image makes it"
    probe = f"userd-probe-{os.getpid()}"
    if run("ip", "netns", "add", probe, check=False).returncode != 0:
        return "no network namespaces can be made"
    run("ip", "netns", "delete", probe)
    return None


class Container:
    """One database, one broker and at most one running container. A context manager."""

    def __init__(self):
        self.name = f"userd-image-{os.getpid()}"
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="userd-image."))
        self.broker = self.process = None
        self.servers = ""
        self.handle = {}

    def __enter__(self):
        try:
            run("ip", "netns", "add", self.name)
            self.inside("ip", "link", "set", "lo", "up")
            run(POSTGRES, "start", self.directory / "postgres")
            lines = (self.directory / "postgres").read_text(encoding="utf-8").splitlines()
            self.handle = dict(line.split("=", 1) for line in lines)
            os.chmod(self.handle["directory"], 0o711)
            self.sql("CREATE DATABASE user_db OWNER userd", "postgres")
            self.broker = subprocess.Popen(["ip", "netns", "exec", self.name, BROKER], stdin=subprocess.DEVNULL,
                                           stdout=subprocess.PIPE, text=True)
            self.servers = self.broker.stdout.readline().strip().partition("=")[2]
            run("umoci", "unpack", "--image", f"{IMAGE}:latest", self.directory / "bundle")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        run("runc", "--root", self.directory / "runc", "delete", "--force", self.name, check=False)
        if self.process is not None:
            self.process.wait(TIMEOUT_S)
            self.process.stdout.close()
        if self.broker is not None:
            self.broker.terminate()
            self.broker.wait(TIMEOUT_S)
            self.broker.stdout.close()
        run(POSTGRES, "remove", self.directory / "postgres", check=False)
        run("ip", "netns", "delete", self.name, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def inside(self, *command, **more):
        """A command of this machine's in the container's network."""
        return run("ip", "netns", "exec", self.name, *command, **more)

    def sql(self, text, database="user_db"):
        """Runs SQL as the administrator."""
        return run("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--command", text,
                   self.handle["socket_admin_url"] + database).stdout.strip()

    def write_config(self, arguments, environment):
        """config.json: what an orchestrator would set, on top of what the image says of itself."""
        path = self.directory / "bundle/config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        process = config["process"]
        process["terminal"] = False
        process["args"] = process["args"][:1] + arguments
        # As SQLAlchemy has it: the legacy service's own form.
        process["env"] += [f"DB_URL=postgresql+asyncpg://userd:{self.handle['password']}@/user_db"
                           f"?host=/run/postgresql&port={self.handle['port']}",
                           f"KAFKA_BOOTSTRAP_SERVERS={self.servers}", *environment]
        process["capabilities"] = {}
        config["root"]["readonly"] = True
        config["mounts"] += [
            {"destination": "/run/postgresql", "type": "bind", "source": self.handle["directory"], "options": ["bind", "ro"]},
            {"destination": "/run/userd", "type": "tmpfs", "source": "tmpfs", "options": [f"uid={USER}", "mode=0755"]}]
        for namespace in config["linux"]["namespaces"]:
            if namespace["type"] == "network":
                namespace["path"] = f"/run/netns/{self.name}"
        path.write_text(json.dumps(config), encoding="utf-8")
        return process

    def start(self, *arguments, environment=()):
        """runc run, in the background; what the image says of the process."""
        process = self.write_config(list(arguments), list(environment))
        self.process = subprocess.Popen(["runc", "--root", self.directory / "runc", "run", "--bundle", self.directory / "bundle",
                                         self.name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)
        return process

    def execute(self, *command):
        """As an orchestrator's health check does it."""
        return run("runc", "--root", self.directory / "runc", "exec", self.name, *command, check=False)

    def wait_until_ready(self):
        """By the exit status of `userd ready`, as a health check knows it."""
        deadline = time.monotonic() + TIMEOUT_S
        while self.execute("/usr/sbin/userd", "ready").returncode != 0:
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}: {self.process.stdout.read()}")
            if time.monotonic() > deadline:
                raise AssertionError("not ready in time")
            time.sleep(0.1)

    def end(self):
        """SIGTERM to PID 1, as `docker stop` sends it; the exit status and all that was logged."""
        run("runc", "--root", self.directory / "runc", "kill", self.name, "TERM")
        status = self.process.wait(TIMEOUT_S)
        log = self.process.stdout.read()
        self.process.stdout.close()
        self.process = None
        return status, log


class Image(unittest.TestCase):
    """Each test has a container of its own."""

    def test_serves_without_a_configuration_file(self):
        with Container() as container:
            process = container.start("run", "--migrate")
            container.wait_until_ready()
            container.sql('INSERT INTO "user" (id_auth, username) VALUES (17, \'neo_17\')')
            answer = container.inside(GRPC_CALL, "127.0.0.1:50053", "user.User/GetUser", '{"id": 17}').stdout
            status = container.execute("/usr/sbin/userd", "status", "--json")
            ended, log = container.end()
        self.assertEqual(process["user"], {"uid": USER, "gid": USER})
        self.assertEqual(json.loads(answer), {"username": "neo_17"})
        self.assertEqual(json.loads(status.stdout)["master"]["pid"], 1)
        self.assertEqual(ended, 0, log)
        self.assertNotIn(container.handle["password"], log)

    def test_events_reach_the_database(self):
        with Container() as container:
            container.start("run", "--migrate")
            container.wait_until_ready()
            container.inside("sh", "-c", "echo '{\"id\": 42, \"username\": \"trinity\"}' | "
                             f"kcat -P -b {container.servers} -t registration")
            deadline = time.monotonic() + TIMEOUT_S
            name = ""
            while name != "trinity" and time.monotonic() < deadline:
                name = container.sql('SELECT username FROM "user" WHERE id_auth = 42')
                time.sleep(0.1)
            ended, log = container.end()
        self.assertEqual(name, "trinity")
        self.assertEqual(ended, 0, log)

    def test_has_no_shell_and_nothing_that_is_set_uid(self):
        with Container() as container:
            root = container.directory / "bundle/rootfs"
            programs = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink() and os.access(path, os.X_OK)]
            names = {path.name for path in programs}
            odd = [str(path) for path in programs if path.stat().st_mode & 0o6000]
            self.assertIn("userd", names)
            self.assertFalse(names & {"sh", "bash", "dash", "busybox", "perl", "python3", "env", "apt", "dpkg"}, names)
            self.assertEqual(odd, [])
            container.start("run", "--migrate")
            container.wait_until_ready()
            self.assertNotEqual(container.execute("/bin/sh", "-c", "true").returncode, 0)
            container.end()

    def test_loads_into_docker_by_its_name(self):
        """As `docker load` reads the file: manifest.json in its classic store, containerd's annotation in the other one."""
        with tarfile.open(IMAGE.with_suffix(".tar")) as archive:
            members = archive.getnames()
            self.assertIn("manifest.json", members)
            docker = json.load(archive.extractfile("manifest.json"))
            index = json.load(archive.extractfile("index.json"))
            self.assertEqual(len(docker), 1)
            self.assertIn("userd:latest", docker[0]["RepoTags"])
            config = json.load(archive.extractfile(docker[0]["Config"]))
            layers = [gzip.decompress(archive.extractfile(layer).read()) for layer in docker[0]["Layers"]]
        self.assertEqual([f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers], config["rootfs"]["diff_ids"])
        self.assertIn("docker.io/library/userd:latest",
                      [entry["annotations"]["io.containerd.image.name"] for entry in index["manifests"]])
        self.assertIn("oci-layout", members)

    def test_logs_json_where_asked_for(self):
        with Container() as container:
            container.start("run", "--migrate", environment=["USERD_LOG_FORMAT=json"])
            container.wait_until_ready()
            ended, log = container.end()
        self.assertEqual(ended, 0, log)
        lines = log.splitlines()
        self.assertGreater(len(lines), 5)
        for line in lines:
            self.assertIn("message", json.loads(line), line)


if __name__ == "__main__":
    reason = why_not_here()
    if reason is not None:
        print(f"left out: the container image cannot be run here: {reason}")
        sys.exit(SKIPPED)
    unittest.main(argv=[sys.argv[0], "--verbose"])
