#!/usr/bin/python3
"""What Prometheus gets: the text is well-formed, and says what has happened."""
import http.client
import re
import signal
import socket
import subprocess
import unittest

import grpc

import userd_service

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf'^({NAME})(?:\{{((?:[a-z]+="[^"\\\n]*",?)*)\}})? ([-+0-9.eEInf]+)$')
USER_17 = b"\x08\x11"


def family_of(name, types):
    """The metric that a sample belongs to."""
    for suffix in ("_bucket", "_sum", "_count"):
        base = name.removesuffix(suffix)
        if base != name and types.get(base) == "histogram":
            return base
    return name


def parse(text):
    """{name: {labels (a frozenset of pairs): value}}, after the rules of the text format: each metric's HELP, TYPE and samples
    in one piece, no sample twice."""
    types, values, order = {}, {}, []
    assert text.endswith("\n"), "no end of the last line"
    for line in text.splitlines():
        if line.startswith("# "):
            _, kind, name, rest = line.split(" ", 3)
            assert kind in ("HELP", "TYPE"), line
            if kind == "HELP":
                assert name not in order, f"{name} is in two pieces"
                order.append(name)
            else:
                assert rest in ("counter", "gauge", "histogram"), line
                types[name] = rest
            continue
        match = SAMPLE.match(line)
        assert match, f"no sample: {line!r}"
        name, labels, value = match.groups()
        family = family_of(name, types)
        assert order and family == order[-1] and family in types, f"out of place: {line}"
        key = frozenset(tuple(pair.split("=", 1)) for pair in re.findall(r'[a-z]+="[^"]*"', labels or ""))
        assert key not in values.setdefault(name, {}), f"twice: {line}"
        values[name][key] = float(value)
    for name, kind in types.items():
        assert kind != "counter" or name.endswith("_total"), f"a counter is called {name}"
        if kind == "histogram":
            check_histogram(name, values)
    return values


def check_histogram(name, values):
    """Buckets only grow, the last is +Inf and the count."""
    series = {}
    for labels, value in values.get(f"{name}_bucket", {}).items():
        bound = [text.strip('"') for label, text in labels if label == "le"]
        assert len(bound) == 1, labels
        rest = frozenset(pair for pair in labels if pair[0] != "le")
        series.setdefault(rest, []).append((float(bound[0]), value))
    for labels, buckets in series.items():
        buckets.sort()
        counts = [count for _, count in buckets]
        assert counts == sorted(counts), f"{name}: {counts}"
        assert buckets[-1] == (float("inf"), values[f"{name}_count"][labels]), f"{name}{labels}"
        assert labels in values[f"{name}_sum"]


def total(values, name, **labels):
    """The sum of the samples that have these labels."""
    wanted = {(label, f'"{value}"') for label, value in labels.items()}
    return sum(value for key, value in values.get(name, {}).items() if wanted <= key)


class Text(unittest.TestCase):
    """`userd metrics`."""

    def test_is_well_formed_and_counts_each_call_once(self):
        with userd_service.Service(workers=2) as service:
            before = parse(service.run("metrics"))
            with grpc.insecure_channel(service.post) as channel:
                call = channel.unary_unary("/user_post.UserPost/GetByID")
                for _ in range(50):
                    with self.assertRaises(grpc.RpcError) as caught:
                        call(USER_17, timeout=10)
                    self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
            labels = {"method": "user_post.UserPost/GetByID"}

            def is_counted():
                values = parse(service.run("metrics"))
                return total(values, "userd_call_duration_seconds_count", **labels) == 50 and values

            values = userd_service.wait_for(is_counted, "50 calls")
            self.assertEqual(total(before, "userd_call_duration_seconds_count", **labels), 0)
            self.assertEqual(total(values, "userd_method_calls_total", status="NOT_FOUND", **labels), 50)
            self.assertEqual(total(values, "userd_method_calls_total", status="OK", **labels), 0)
            self.assertEqual(total(values, "userd_calls_total", result="not_found"), 50)
            self.assertEqual(total(values, "userd_calls_total", result="failed"), 0)
            (build,) = values["userd_build_info"].items()
            self.assertEqual(build[1], 1)
            self.assertRegex(dict(build[0])["version"], r'^"\d+\.\d+')
            self.assertEqual(total(values, "userd_calls_in_progress"), 0)
            spent = total(values, "userd_call_duration_seconds_sum", **labels)
            self.assertTrue(0 < spent < 50 * 10, spent)
            self.assertEqual(values["userd_up"], {frozenset(): 1})
            self.assertIn("userd_kafka_lag_records", values)
            self.assertIn("userd_publish_duration_seconds_count", values)


class Server:
    """`userd metrics --listen ADDRESS`, for a service that may or may not be there. A context manager."""

    def __init__(self, service, address="127.0.0.1:0"):
        self.process = subprocess.Popen(
            [userd_service.BINARY / "master/userd", "metrics", "--run-dir", service.directory / "run", "--listen", address],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        line = self.process.stderr.readline()
        match = re.search(r"address=\[?([^\] ]*?)\]?:(\d+) ", line)
        assert match, line
        self.host, self.port = match.group(1), int(match.group(2))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=userd_service.TIMEOUT_S)
        assert self.process.returncode == 0, f"{self.process.returncode}: {log}"

    def ask(self, path="/metrics", method="GET"):
        """Status, headers and text."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=userd_service.TIMEOUT_S)
        connection.request(method, path)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, answer.headers, text


class Http(unittest.TestCase):
    """The same, for Prometheus to fetch."""

    def test_serves_the_numbers_and_nothing_else(self):
        with userd_service.Service(workers=1) as service, Server(service) as server:
            status, headers, text = server.ask()
            self.assertEqual((status, headers["Content-Type"]), (200, "text/plain; version=0.0.4; charset=utf-8"))
            self.assertEqual(parse(text)["userd_up"], {frozenset(): 1})
            status, headers, text = server.ask(method="HEAD")
            self.assertEqual((status, text), (200, ""))
            self.assertEqual(server.ask("/")[0], 404)
            self.assertEqual(server.ask("/metrics/")[0], 404)
            status, headers, _ = server.ask(method="POST")
            self.assertEqual((status, headers["Allow"]), (405, "GET, HEAD"))

    def test_outlives_the_service_and_finds_the_next(self):
        with userd_service.Service(workers=1) as service, Server(service, "[::1]:0") as server:
            self.assertEqual(server.ask()[0], 200)
            self.assertEqual(service.end(service.master), 0)
            status, _, text = server.ask()
            self.assertEqual((status, parse(text)), (503, {"userd_up": {frozenset(): 0}}))
            service.start_userd()
            self.assertEqual(server.ask()[0], 200)

    def test_silent_clients_run_out_of_time(self):
        with userd_service.Service(workers=1) as service, Server(service) as server:
            silent = [socket.create_connection((server.host, server.port)) for _ in range(40)]
            self.assertEqual(server.ask()[0], 200)
            for connection in silent:
                connection.close()

    def test_an_address_that_cannot_be_read_is_wrong_usage(self):
        done = subprocess.run([userd_service.BINARY / "master/userd", "metrics", "--run-dir", "/nowhere", "--listen", "9464"],
                              stderr=subprocess.PIPE, text=True, timeout=userd_service.TIMEOUT_S, check=False)
        self.assertEqual(done.returncode, 64)
        self.assertIn("9464", done.stderr)


if __name__ == "__main__":
    unittest.main()
