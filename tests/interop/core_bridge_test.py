#!/usr/bin/python3
"""A service that keeps to the public entry points of the gRPC C core (core_bridge = "off"): it cannot ask clients to leave, and a
reload under load fails no call all the same, because connections end by age within a drain."""
import time
import unittest

from supervisor_test import Load, given_service, metric, status, told, workers
from userd_service import wait_for

DRAIN_S = 3
SETTINGS = f'core_bridge = "off"; shutdown = {{ drain_timeout_ms = {DRAIN_S * 1000}; }};'
RELOADS = 2


class WithoutBridge(unittest.TestCase):
    """The public way."""

    def test_reloads_fail_no_call(self):
        """Each is waited for until the old workers have left, of themselves."""
        service = given_service(SETTINGS)
        self.addCleanup(service.stop)
        wait_for(lambda: metric(service, "userd_workers_ready") == 2 and (status(service)["eventd"] or {}).get("state") == "ready",
                 "everybody is READY")
        with Load(service) as load:
            for _ in range(RELOADS):
                code, said = told(service, "reload")
                self.assertEqual(code, 0, said)
                begun = time.monotonic()
                wait_for(lambda: len(workers(service)) == 2, "the old ones are gone")
                self.assertLess(time.monotonic() - begun, DRAIN_S + 2)
            failed = load.end("reload without the core bridge")
        self.assertEqual(failed, 0, load.report)
        self.assertEqual(status(service)["master"]["generation"], 1 + RELOADS)


if __name__ == "__main__":
    unittest.main()
