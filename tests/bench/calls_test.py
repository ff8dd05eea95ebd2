#!/usr/bin/python3
"""That the benchmark of calls works, and that its tools see what they are there to see. Says nothing about speed.

  tests/bench/calls_test.py [--verbose] BUILD_DIR
"""
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import unittest

import call_report
import figures
import stand
import yardsticks

BUILD = pathlib.Path(sys.argv.pop()).resolve()
TIMEOUT_S = 240
MACHINE = {"cpu": "a CPU", "cores": 2, "kernel": "6", "postgresql": "15", "grpc": "1", "load": (0.1, 0, 0), "at": "2026-01-01T00:00:00"}


class CallsTest(unittest.TestCase):
    """The program, from the command line to what it writes."""

    def test_measures_every_kind_of_row(self):
        """A few rows of each kind, as short as can be."""
        rows = ("get_by_ids", "rename", "overload", "storm")
        with tempfile.TemporaryDirectory(prefix="userd-bench.") as output:
            done = subprocess.run([sys.executable, "-B", stand.SOURCE / "tests/bench/calls", BUILD, "--quick", "--ids", "500",
                                   "--only", ",".join(rows), "--output", output], check=False, capture_output=True, text=True,
                                  timeout=TIMEOUT_S)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            said = json.loads((pathlib.Path(output) / "calls.json").read_text(encoding="utf-8"))
        self.assertEqual(said["problems"], [])
        self.assertEqual(len(said["figures"]), 7)
        for figure in said["figures"]:
            self.assertGreater(figure["value"], 0, figure)
            self.assertIn(figure["what"], done.stdout)
        for case in ("echo16", "ids", "get", "rename", "update", "overload1000", "overload100"):
            self.assertGreater(said["runs"][case][0]["ok_rate"], 0, case)
        self.assertEqual(said["runs"]["get"][0]["statuses"].keys(), {"OK"})

    def test_names_a_row_that_is_not_there(self):
        """And those that are."""
        done = subprocess.run([sys.executable, "-B", stand.SOURCE / "tests/bench/calls", BUILD, "--only", "get_usr"], check=False,
                              capture_output=True, text=True, timeout=TIMEOUT_S)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("no row get_usr; there are get_user,", done.stderr)


class LoadTest(unittest.TestCase):
    """The load generator against the yardstick, which answers all calls alike."""

    def setUp(self):
        self.echo = yardsticks.Echo(BUILD, 1)

    def tearDown(self):
        self.echo.__exit__()

    def load(self, *arguments):
        """A short run."""
        return stand.run_load(BUILD, self.echo.addresses, "--warmup", 0, "--connections", 2, "--streams", 4, *arguments)

    def test_sees_wrong_answers(self):
        """Everybody is called user12345: right for one id only."""
        fields = self.load("--seconds", 0.2, "--verify", "--ids", 1000)
        self.assertEqual(fields["wrong"], fields["calls"])
        self.assertFalse(fields["is_clean"])
        self.assertTrue(self.load("--seconds", 0.2)["is_clean"])

    def test_counts_latency_from_when_a_call_was_due(self):
        """A server that stands still for a part of the time delays as large a part of the calls, begun or not."""
        process = self.echo.processes[0]
        process.send_signal(signal.SIGSTOP)
        timer = threading.Timer(1.0, process.send_signal, [signal.SIGCONT])
        timer.start()
        fields = self.load("--seconds", 2, "--rate", 500)
        timer.join()
        self.assertGreater(fields["p90_us"], 300_000, fields)
        self.assertLess(fields["p50_us"], 900_000, fields)
        self.assertGreater(fields["max_us"], 700_000, fields)

    def test_says_what_it_could_not_begin(self):
        """Eight streams to a server that does not answer in time."""
        process = self.echo.processes[0]
        process.send_signal(signal.SIGSTOP)
        timer = threading.Timer(1.5, process.send_signal, [signal.SIGCONT])
        timer.start()
        fields = self.load("--seconds", 0.5, "--rate", 1000)
        timer.join()
        self.assertGreater(fields["not_started"], 400, fields)

    def test_comes_back_to_a_server_that_was_away(self):
        """With --reconnect: what was under way is unanswered, what comes later is answered."""
        command = [BUILD / "tests/bench/load_generator", "--json", "--address", "127.0.0.1:1", "--connections", "2", "--seconds",
                   "0.3", "--warmup", "0"]
        done = subprocess.run([*command, "--reconnect"], check=False, capture_output=True, text=True, timeout=TIMEOUT_S)
        self.assertGreater(json.loads(done.stdout)["refused"], 2, "it goes on trying")
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("Connection refused", done.stderr)


class ReportTest(unittest.TestCase):
    """How figures are judged and said."""

    def test_holds_a_figure_against_its_goal(self):
        """At least, at most, or none."""
        self.assertTrue(figures.Figure("", "", "", 1.3, 1.25).is_met())
        self.assertFalse(figures.Figure("", "", "", 1.2, 1.25).is_met())
        self.assertTrue(figures.Figure("", "", "", 1.2, 1.25, True).is_met())
        self.assertIsNone(figures.Figure("", "", "", 1.2).is_met())

    def test_takes_ratios_within_each_round(self):
        """Both were slow in the second round: the ratio is what it was."""
        figure = figures.rate_against("", [{"ok_rate": 20}, {"ok_rate": 2}, {"ok_rate": 22}],
                                      [{"ok_rate": 10}, {"ok_rate": 1}, {"ok_rate": 11}], base="")
        self.assertEqual(figure.value, 2)

    def test_finds_a_slope(self):
        """Per minute, of samples in seconds."""
        self.assertAlmostEqual(figures.slope_per_minute([(second, 7 + 3 * second) for second in range(10)]), 180)

    def test_rewrites_only_its_own_part_of_the_document(self):
        """Twice, with what stands around it kept."""
        made = [figures.Figure("GetUser", "at least 1.25 x", "5 against 4", 1.3, 1.25)]
        with tempfile.TemporaryDirectory(prefix="userd-bench.") as name:
            directory = pathlib.Path(name)
            (directory / "throughput.svg").write_text("<svg/>", encoding="ascii")
            call_report.DOCUMENT, call_report.RESULTS = directory / "README.md", directory / "results"
            for old in ("", "old\n"):
                call_report.DOCUMENT.write_text("head\n" + call_report.BEGIN + old + call_report.END + "tail\n", encoding="utf-8")
                call_report.update_document(made, MACHINE, directory)
            text = call_report.DOCUMENT.read_text(encoding="utf-8")
            self.assertTrue((directory / "results/throughput.svg").exists())
        self.assertTrue(text.startswith("head\n" + call_report.BEGIN) and text.endswith(call_report.END + "tail\n"))
        self.assertIn("| GetUser | at least 1.25 x | 5 against 4 | 1.30 | yes |", text)
        self.assertNotIn("old", text)


if __name__ == "__main__":
    unittest.main()
