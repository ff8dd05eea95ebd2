#!/usr/bin/python3
"""`userd top` in a terminal (a pty): what it shows, the keys, other sizes, and that the terminal is left as it was, however it
ends."""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
import unittest

import userd_service

USERD = userd_service.BINARY / "master/userd"
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """A pty, with `userd top` in it. A context manager."""

    def __init__(self, service, rows=40, columns=120, **environment):
        self.master, self.slave = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.slave)
        self.text = ""
        self.process = subprocess.Popen(
            [USERD, "top", "--run-dir", service.directory / "run"], stdin=self.slave, stdout=self.slave, stderr=self.slave,
            env=dict(os.environ, **environment), preexec_fn=self.take_terminal)  # pylint: disable=subprocess-popen-preexec-fn

    def take_terminal(self):
        """In the child: a session whose terminal this is, so that Ctrl-C is a signal."""
        os.setsid()
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.slave)
        os.close(self.master)

    def resize(self, rows, columns):
        """As a window's frame would; the kernel says SIGWINCH."""
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self):
        """Whatever has come."""
        while select.select([self.master], [], [], 0.02)[0]:
            self.text += os.read(self.master, 65536).decode()
        return self.text

    def screen(self):
        """The lines of the last frame that is complete."""
        frames = [frame for frame in self.read().split("\x1b[H")[1:] if "\x1b[J" in frame]
        if not frames:
            return []
        text = COLOUR.sub("", frames[-1].split("\x1b[J")[0]).replace("\x1b[K", "").replace("\r", "")
        return text.split("\n")

    def wait_for(self, pattern):
        """The screen, once a line of it matches."""
        def has_come():
            screen = self.screen()
            return screen if any(re.search(pattern, line) for line in screen) else None
        try:
            return userd_service.wait_for(has_come, pattern, 20)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.screen()} {self.text[-300:]!r}") from None

    def type(self, keys):
        """As on a keyboard."""
        os.write(self.master, keys.encode())

    def end(self):
        """The exit status; the terminal is as before, down to its modes."""
        deadline = time.monotonic() + userd_service.TIMEOUT_S
        while self.process.poll() is None and time.monotonic() < deadline:
            self.read()
        assert self.read().rstrip().endswith(LEAVE), repr(self.text[-100:])
        assert self.text.count(ENTER) == self.text.count(LEAVE)
        assert self.text.rfind("\x1b[?25h") > self.text.rfind("\x1b[?25l"), "the cursor is away"
        assert termios.tcgetattr(self.slave) == self.before, "the terminal's modes are not what they were"
        return self.process.returncode


class Top(unittest.TestCase):
    """One service for all."""

    @classmethod
    def setUpClass(cls):
        cls.service = userd_service.Service(workers=2)
        cls.service.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.service.__exit__()

    def test_shows_methods_and_workers_and_takes_keys(self):
        with Terminal(self.service) as terminal:
            screen = terminal.wait_for(r"^user\.User/GetUser +\d+ +0 ")
            self.assertRegex(screen[0], r"^userd: pid \d+, generation 1, 2 of 2 workers ready, \d+ connections, ")
            self.assertRegex(screen[1], r"^Kafka connected, lag 0, ")
            self.assertEqual(len([line for line in screen if re.match(r" +[12] +\d+ ready ", line)]), 2, screen)
            for key, word in (("n", "sort by name"), ("p", "sort by p99"), ("+", "every 2 s"), ("--", "every 0.5 s"),
                              (" ", "space GO ON"), (" ", "space pause"), ("c", r"sort by calls/s")):
                terminal.type(key)
                terminal.wait_for(word)
            terminal.type("n")
            names = self.names(terminal.wait_for("sort by name"))
            self.assertEqual(names, sorted(names))
            terminal.type("r")
            userd_service.wait_for(lambda: self.names(terminal.screen()) == names[::-1], "the reverse order")
            terminal.type("q")
            self.assertEqual(terminal.end(), 0)

    @staticmethod
    def names(screen):
        """Of the methods, from top to bottom."""
        return [line.split()[0] for line in screen if "/" in line.split(" ")[0]]

    def test_ends_by_signals_with_the_terminal_as_it_was(self):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
            with Terminal(self.service) as terminal:
                terminal.wait_for("METHOD")
                terminal.process.send_signal(number)
                self.assertEqual(terminal.end(), 128 + number)
        with Terminal(self.service) as terminal:
            terminal.wait_for("METHOD")
            terminal.type("\x03")
            self.assertEqual(terminal.end(), 128 + signal.SIGINT)

    def test_is_stopped_and_goes_on(self):
        with Terminal(self.service) as terminal:
            terminal.wait_for("METHOD")
            terminal.type("\x1a")
            userd_service.wait_for(lambda: terminal.read().endswith(LEAVE), "the terminal as it was")
            self.assertEqual(termios.tcgetattr(terminal.slave), terminal.before)
            userd_service.wait_for(lambda: self.state(terminal.process.pid) == "T", "stopped")
            terminal.process.send_signal(signal.SIGCONT)
            userd_service.wait_for(lambda: terminal.read().count(ENTER) == 2, "the screen again")
            terminal.type("q")
            self.assertEqual(terminal.end(), 0)

    @staticmethod
    def state(pid):
        """R, S, T, ..."""
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0]

    def test_fits_into_any_window(self):
        with Terminal(self.service) as terminal:
            terminal.wait_for("METHOD")
            for rows, columns in ((8, 40), (3, 10), (1, 1), (50, 200)):
                terminal.resize(rows, columns)
                start = len(terminal.read())
                screen = userd_service.wait_for(lambda at=start: "\x1b[J" in terminal.read()[at:] and terminal.screen(), "a frame")
                self.assertLessEqual(max(len(line) for line in screen), columns)
                self.assertLessEqual(len(screen), rows)
            terminal.type("q")
            self.assertEqual(terminal.end(), 0)

    def test_waits_for_a_service_that_is_away(self):
        with userd_service.Service(workers=1) as service, Terminal(service) as terminal:
            terminal.wait_for("1 of 1 workers ready")
            service.end(service.master)
            terminal.wait_for("userd: is not running; waiting")
            service.start_userd()
            terminal.wait_for("1 of 1 workers ready")
            terminal.type("q")
            self.assertEqual(terminal.end(), 0)

    def test_has_colour_unless_it_is_not_wanted(self):
        with Terminal(self.service) as terminal:
            terminal.wait_for("METHOD")
            self.assertRegex(terminal.text, COLOUR)
        with Terminal(self.service, NO_COLOR="1") as terminal:
            terminal.wait_for("METHOD")
            self.assertNotRegex(terminal.text, COLOUR)

    def test_without_a_terminal_it_says_it_once(self):
        output = self.service.run("top")
        self.assertIn("\nmethod ", output)
        self.assertNotIn("\x1b", output)


if __name__ == "__main__":
    unittest.main()
