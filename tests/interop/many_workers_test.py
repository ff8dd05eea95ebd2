#!/usr/bin/python3
"""More workers than half of the most that can be configured: two whole generations of them, and one that drains, find room."""
import unittest

from userd_service import Service, processes_under, wait_for

WORKERS = 40


class ManyWorkers(unittest.TestCase):
    """Each of them with one session of the database."""

    def test_are_reloaded_and_upgraded(self):
        service = Service(workers=WORKERS)
        service.start_is_held = True
        self.addCleanup(service.stop)
        service.start()
        path = service.directory / "userd.conf"
        path.write_text(path.read_text(encoding="utf-8").replace("database = {", "database = { connections = 1;"), encoding="utf-8")
        service.start_userd()
        wait_for(lambda: service.status()["totals"]["workers_ready"] == WORKERS, "all workers")
        for command in ("reload", "upgrade", "reload"):
            service.run(command)
        report = service.status()
        self.assertEqual(report["master"]["generation"], 4)
        self.assertEqual(report["totals"]["workers_ready"], WORKERS)
        wait_for(lambda: list(processes_under(service.master.pid).values()).count("userd-worker") == WORKERS,
                 "the end of the old generations")


if __name__ == "__main__":
    unittest.main()
