#!/usr/bin/python3
"""What Prometheus gets: the text is well-formed, and says what has happened."""
import re
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
            self.assertEqual(total(values, "userd_calls_total", result="failed"), 50)
            self.assertEqual(total(values, "userd_calls_in_progress"), 0)
            spent = total(values, "userd_call_duration_seconds_sum", **labels)
            self.assertTrue(0 < spent < 50 * 10, spent)
            self.assertEqual(values["userd_up"], {frozenset(): 1})
            self.assertIn("userd_kafka_lag_records", values)
            self.assertIn("userd_publish_duration_seconds_count", values)


if __name__ == "__main__":
    unittest.main()
