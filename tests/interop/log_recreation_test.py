#!/usr/bin/python3
"""A log that was made anew under the same name is read from its start, and only such a one."""
import unittest

from kafka.structs import TopicPartition

from event_broker import REGISTRATION, EventService
from userd_service import wait_for

R0, R1 = TopicPartition(REGISTRATION, 0), TopicPartition(REGISTRATION, 1)


class LogRecreation(unittest.TestCase):
    """One service for each test."""

    def given_service(self, **options):
        """Running, with nothing in its topics; ended with the test."""
        service = EventService(workers=1, **options)
        service.__enter__()  # pylint: disable=unnecessary-dunder-call # until enterContext() is there
        self.addCleanup(service.__exit__, None, None, None)
        return service

    def test_a_log_that_was_made_anew_is_read_from_its_start(self):
        """With more records than the position counts, which nobody could tell by the offsets."""
        service = self.given_service()
        service.register(0, 1, 2, 3)
        service.register(1, 4)
        service.then_users_become({1, 2, 3, 4})
        service.end_userd()
        service.replace_broker()
        service.register(0, *range(11, 18))
        service.register(1, *range(21, 24))
        service.start_again()
        service.then_users_become({1, 2, 3, 4, *range(11, 18), *range(21, 24)})
        service.then_log_says("partition was made anew", 2)
        self.assertEqual(service.eventd("log_recreated"), 2)
        service.then_positions_become({R0: 7, R1: 3})
        service.end_userd()
        service.start_again()
        service.then_log_says("reading partitions=6")
        self.assertEqual(service.count_lines("made anew"), 0)
        self.assertEqual(service.positions()[R0], 7)

    def test_a_log_that_was_made_anew_and_is_shorter_is_read_from_its_start(self):
        """Its end is below the position."""
        service = self.given_service()
        service.register(0, 1, 2, 3)
        service.then_users_become({1, 2, 3})
        service.end_userd()
        service.replace_broker()
        service.register(0, 11, 12)
        service.start_again()
        service.then_users_become({1, 2, 3, 11, 12})
        self.assertEqual(service.eventd("log_recreated"), 1)
        service.then_positions_become({R0: 2})

    def test_the_same_log_goes_on_where_it_was(self):
        """Nothing is counted; also where an earlier version has stored nothing of the last record, which is made good."""
        service = self.given_service()
        service.register(0, 1, 2, 3)
        service.then_users_become({1, 2, 3})
        service.end_userd()
        service.sql("UPDATE consumed_offset SET record_offset = NULL, record_timestamp = NULL, record_checksum = NULL")
        service.sql('DELETE FROM "user" WHERE id_auth = 2')
        service.start_again()
        service.register(0, 4)
        service.then_users_become({1, 3, 4})
        self.assertEqual((service.eventd("log_recreated"), service.eventd("foreign_progress")), (0, 0))
        service.end_userd()
        service.sql("UPDATE consumed_offset SET record_offset = NULL, record_timestamp = NULL, record_checksum = NULL")
        service.start_again()
        known = "SELECT count(*) FROM consumed_offset WHERE record_offset = next_offset - 1 AND record_checksum IS NOT NULL"
        wait_for(lambda: service.sql(known) == "1", "the last record of the partition is stored without a new one")
        self.assertEqual(service.positions()[R0], 4)


if __name__ == "__main__":
    unittest.main()
