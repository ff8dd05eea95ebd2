#!/usr/bin/python3
"""One partition that cannot be read, commits that fail, and the lag of what nobody takes."""
import unittest

import psycopg2
from kafka.structs import TopicPartition

from event_broker import ADMIN_DELETE, ALL, REGISTRATION, EventService
from userd_service import wait_for

R0 = TopicPartition(REGISTRATION, 0)


class ConsumptionFault(unittest.TestCase):
    """One service for each test."""

    def given_service(self, **options):
        """Running, with nothing in its topics; ended with the test."""
        service = EventService(workers=1, **options)
        service.__enter__()  # pylint: disable=unnecessary-dunder-call # until enterContext() is there
        self.addCleanup(service.__exit__, None, None, None)
        return service

    def test_a_partition_without_a_leader_does_not_hold_up_the_others(self):
        """And is read as soon as it has one."""
        service = self.given_service(kafka_settings="create_topics = false;")
        service.register(0, 1)
        service.then_users_become({1})
        service.end_userd()
        service.tell_broker(f"leader {REGISTRATION} 1 -1")
        service.start_again()
        service.register(0, 2)
        service.then_users_become({1, 2})
        service.send(ADMIN_DELETE, 0, {"id": 1})
        service.then_users_become({2})
        service.then_log_says("partition is left out topic=registration partition=1")
        service.tell_broker(f"leader {REGISTRATION} 1 1")
        service.register(1, 3)
        service.then_users_become({2, 3})

    def test_a_commit_that_fails_is_made_again(self):
        """Ten times, and then it is there although nothing new has come."""
        service = self.given_service()
        service.then_positions_become({one: 0 for one in ALL})
        service.then_userd_has_committed(R0, 0)
        service.tell_broker("error 8 15 4")  # OffsetCommit: coordinator not available
        service.register(0, 1)
        service.then_users_become({1})
        service.then_userd_has_committed(R0, 1)

    def test_a_commit_that_is_refused_is_seen_and_made_again(self):
        """Not one that librdkafka repeats by itself."""
        service = self.given_service()
        service.then_userd_has_committed(R0, 0)
        service.tell_broker("error 8 30 3")  # OffsetCommit: group authorization failed
        service.register(0, 1)
        service.then_users_become({1})
        wait_for(lambda: service.eventd("commit_errors") >= 3, "failed commits are counted")
        service.then_userd_has_committed(R0, 1)
        service.then_log_says("kafka commit failed reason=GROUP_AUTHORIZATION_FAILED")

    def test_lag_is_known_while_positions_are_not(self):
        """The database is away from the start."""
        service = self.given_service()
        service.register(0, 1)
        service.then_users_become({1})
        service.then_userd_has_committed(R0, 1)
        service.end_userd()
        service.register(0, *range(2, 12))
        service.sql("ALTER TABLE schema_migration RENAME TO schema_migration_away")
        service.is_serving = lambda: True
        service.start_again()
        wait_for(lambda: service.eventd("lag") == 10, "lag 10")
        service.sql("ALTER TABLE schema_migration_away RENAME TO schema_migration")
        service.then_users_become(set(range(1, 12)))
        wait_for(lambda: service.eventd("lag") == 0, "lag 0")

    def test_lag_grows_while_nothing_is_taken(self):
        """Though not a single record more is fetched: librdkafka's queue is full, and nothing takes from it."""
        service = self.given_service(kafka_settings='batch_records = 1; options = { queued_min_messages = "1"; };')
        service.register(0, 1)
        service.then_users_become({1})
        with psycopg2.connect(service.database_url) as locker, locker.cursor() as cursor:
            cursor.execute('LOCK TABLE "user" IN ACCESS EXCLUSIVE MODE')
            service.register(0, *range(2, 52))
            wait_for(lambda: service.eventd("lag") == 50, "lag 50")
            for first in range(52, 552, 100):
                service.register(0, *range(first, first + 100))
            wait_for(lambda: service.eventd("lag") == 550, "lag 550")
        service.then_users_become(set(range(1, 552)))

    def test_a_partition_whose_delay_is_over_is_looked_at_while_others_are_busy(self):
        """The deletion of a user whose row is locked fails again and again; once it is not, it must not wait for the end of the
        others' backlog."""
        service = self.given_service(kafka_settings="batch_records = 1;", database_settings="statement_timeout_ms = 200; ")
        service.register(0, 1)
        service.then_users_become({1})
        backlog = 12000
        with psycopg2.connect(service.database_url) as locker, locker.cursor() as cursor:
            cursor.execute('SELECT FROM "user" WHERE id_auth = 1 FOR UPDATE')
            service.send(ADMIN_DELETE, 0, {"id": 1})
            service.then_log_says("events not applied topic=admin_delete_user partition=0")
            for number in (1, 2):
                service.send(ADMIN_DELETE, number, *({"id": 10 ** number * 10 ** 6 + one} for one in range(backlog)))
            service.then_log_says("events not applied topic=admin_delete_user partition=0", 3)
        service.then_users_become(set())
        positions = service.positions()
        for number in (1, 2):
            self.assertLess(positions[TopicPartition(ADMIN_DELETE, number)], backlog, "or nothing was shown")


if __name__ == "__main__":
    unittest.main()
