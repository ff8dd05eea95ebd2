#!/usr/bin/python3
"""Signals that arrive when nobody is ready for them: to the whole group (`systemctl kill`), before the master has its loop, while
a reload is under way."""
import os
import re
import signal
import subprocess
import time
import unittest

from userd_service import BINARY, Service, processes_under, wait_for

# The check of these properties is a child that lives for a moment, at each start and each reload.
KAFKA = "options = { socket_timeout_ms = 20000; };"


class Signals(unittest.TestCase):
    """The master and its children are a process group of their own."""

    def setUp(self):
        self.service = Service(workers=2, kafka_settings=KAFKA)
        self.service.start_is_held = True
        self.addCleanup(self.service.stop)
        self.service.start()
        self.path = self.service.directory / "log"

    def start(self):
        """`userd run` as the leader of a group; returns at once."""
        with open(self.path, "ab") as log:
            self.service.master = subprocess.Popen(
                [BINARY / "master/userd", "run", "-c", self.service.directory / "userd.conf"], stdin=subprocess.DEVNULL,
                stderr=log, env=self.service.environment(), start_new_session=True)

    def log(self):
        """All that was said."""
        return self.path.read_text(encoding="utf-8")

    def wait_for_log(self, pattern, count=1):
        """Until so many lines match."""
        wait_for(lambda: len(re.findall(pattern, self.log())) >= count or self.service.master.poll() is not None, pattern)
        self.assertIsNone(self.service.master.poll(), self.log())

    def generation(self):
        """The last one that was put in force."""
        return int(re.findall("serving workers=[0-9]+ generation=([0-9]+)", self.log())[-1])

    def tearDown(self):
        print(self.log(), flush=True)

    def test_to_the_whole_group_spoil_no_reload(self):
        """Again and again while children are being started: none of them is ended by it, and what they ask for is done."""
        self.start()
        self.wait_for_log("serving workers=2 generation=1")
        for _ in range(120):
            os.killpg(self.service.master.pid, signal.SIGHUP)
            time.sleep(0.004)
        os.killpg(self.service.master.pid, signal.SIGHUP)
        wait_for(lambda: len(re.findall("reloading file=", self.log())) + 1 == len(re.findall("serving workers=", self.log())),
                 "every reload that was begun has ended")
        self.assertNotIn("reload failed", self.log())
        self.assertNotIn("reload refused", self.log())
        self.assertNotIn("killed by signal", self.log())
        self.assertGreater(self.generation(), 2)

    def test_before_the_loop_do_not_end_the_master(self):
        """While the configuration is being checked, at the start."""
        self.start()
        wait_for(lambda: "userd-eventd" in processes_under(self.service.master.pid).values(), "the check of kafka.options")
        os.killpg(self.service.master.pid, signal.SIGHUP)
        self.wait_for_log("serving workers=2 generation=2")

    def test_during_a_reload_are_remembered(self):
        """What the file says at the last one is what counts."""
        self.start()
        self.wait_for_log("serving workers=2 generation=1")
        self.service.workers = 3
        self.service.master.send_signal(signal.SIGHUP)
        self.wait_for_log("reloading file=")
        self.service.write_config()
        self.service.master.send_signal(signal.SIGHUP)
        self.wait_for_log("serving workers=3")
        self.assertNotIn("reload refused", self.log())

    def test_for_an_upgrade_during_a_reload_are_remembered(self):
        """SIGUSR2, too."""
        self.start()
        self.wait_for_log("serving workers=2 generation=1")
        self.service.master.send_signal(signal.SIGHUP)
        self.wait_for_log("reloading file=")
        os.killpg(self.service.master.pid, signal.SIGUSR2)
        self.wait_for_log("upgraded file=")
        self.wait_for_log("serving workers=2 generation=3")
        self.assertNotIn("upgrade refused", self.log())

    def test_second_upgrade_waits_for_the_first(self):
        """Two packages in a row: the first is told how it went, and the second has its turn."""
        self.start()
        self.wait_for_log("serving workers=2 generation=1")
        command = [BINARY / "master/userd", "upgrade", "--run-dir", self.service.directory / "run"]
        first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.wait_for_log("upgraded file=")
        second = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for process in (first, second):
            said = process.communicate(timeout=60)[0]
            self.assertEqual(process.returncode, 0, said)
        self.assertEqual(self.generation(), 3)
        self.assertEqual(len(re.findall("upgraded file=", self.log())), 2)


if __name__ == "__main__":
    unittest.main()
