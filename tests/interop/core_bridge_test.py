#!/usr/bin/python3
"""A service that keeps to the public entry points of the gRPC C core (core_bridge = "off"): it cannot ask clients to leave, and a
reload under load fails no call all the same, because connections end by age within a drain."""
import pathlib
import tempfile
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
        log = tempfile.NamedTemporaryFile("w+", prefix="userd-interop-log.")  # pylint: disable=consider-using-with
        self.addCleanup(log.close)
        service = given_service(SETTINGS, log=log.fileno())
        self.addCleanup(service.stop)
        wait_for(lambda: metric(service, "userd_workers_ready") == 2 and (status(service)["eventd"] or {}).get("state") == "ready",
                 "everybody is READY")
        with Load(service) as load:
            for _ in range(RELOADS):
                code, said = told(service, "reload")
                self.assertEqual(code, 0, said)
                wait_for(lambda: len(workers(service)) == 2, "the old ones are gone")
            failed = load.end("reload without the core bridge")
        self.assertEqual(failed, 0, load.report)
        said = pathlib.Path(log.name).read_text(encoding="utf-8")
        print(said, flush=True)
        self.assertNotIn("drain timeout", said)
        self.assertNotIn("did not leave in time", said)
        self.assertEqual(status(service)["master"]["generation"], 1 + RELOADS)


if __name__ == "__main__":
    unittest.main()
