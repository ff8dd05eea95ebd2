#!/usr/bin/python3
"""Whose progress counts: another program's on this database does, and what a database that went back has forgotten is read again."""
import unittest

from kafka.structs import TopicPartition

from event_broker import ADMIN_DELETE, ALL, REGISTRATION, EventService
from userd_service import wait_for

R0, R1, D0 = TopicPartition(REGISTRATION, 0), TopicPartition(REGISTRATION, 1), TopicPartition(ADMIN_DELETE, 0)
SAVE = """CREATE TABLE saved_position AS SELECT * FROM consumed_offset; CREATE TABLE saved_user AS SELECT * FROM "user";
    CREATE TABLE saved_tombstone AS SELECT * FROM user_tombstone"""
RESTORE = """TRUNCATE consumed_offset, user_tombstone; DELETE FROM "user"; INSERT INTO consumed_offset SELECT * FROM saved_position;
    INSERT INTO "user" SELECT * FROM saved_user; INSERT INTO user_tombstone SELECT * FROM saved_tombstone"""


class ForeignProgress(unittest.TestCase):
    """One service for each test."""

    def given_service(self, **options):
        """Running, with nothing in its topics; ended with the test."""
        service = EventService(workers=1, **options)
        service.__enter__()  # pylint: disable=unnecessary-dunder-call # until enterContext() is there
        self.addCleanup(service.__exit__, None, None, None)
        return service

    def test_every_assigned_partition_has_a_position(self):
        """Also those that nothing has come from."""
        service = self.given_service()
        service.then_positions_become({one: 0 for one in ALL})
        service.then_userd_has_committed(D0, 0)

    def test_a_user_that_the_legacy_service_deleted_stays_deleted(self):
        """It consumed both events while userd was away: neither is replayed, or only the registration would take effect."""
        service = self.given_service()
        service.register(0, 1)
        service.then_users_become({1})
        service.then_userd_has_committed(R0, 1)
        service.end_userd()
        service.register(0, 2, 3)
        service.send(ADMIN_DELETE, 0, {"id": 2})
        service.sql("""INSERT INTO "user" (username, id_auth) VALUES ('user3', 3)""")
        service.commit({R0: 3, D0: 1})
        service.register(0, 4)
        service.start_again()
        service.then_users_become({1, 3, 4})
        service.then_positions_become({R0: 4, D0: 1})
        self.assertEqual(service.users(), {1, 3, 4})
        service.then_log_says("another program has consumed further", 2)
        self.assertEqual((service.eventd("foreign_progress"), service.eventd("database_rollbacks")), (2, 0))

    def test_what_a_database_that_went_back_has_forgotten_is_read_again(self):
        """A restore, or a failover to a replica that was behind."""
        service = self.given_service()
        service.register(0, 1)
        service.then_users_become({1})
        service.then_positions_become({one: 0 for one in ALL if one != R0})
        service.sql(SAVE)
        service.register(0, 2, 3)
        service.send(ADMIN_DELETE, 0, {"id": 3})
        wait_for(lambda: service.sql("SELECT count(*) FROM user_tombstone") == "1", "the tombstone of user 3")
        service.then_userd_has_committed(R0, 3)
        service.then_userd_has_committed(D0, 1)
        service.end_userd()
        service.sql(RESTORE)
        service.start_again()
        service.then_users_become({1, 2})
        service.then_positions_become({R0: 3, D0: 1})
        service.then_log_says("database went back", 2)
        self.assertEqual((service.eventd("foreign_progress"), service.eventd("database_rollbacks")), (0, 2))

    def test_a_database_that_went_back_takes_no_foreign_progress(self):
        """Userd was further in one partition, the legacy service in two others: what it did there may be forgotten too."""
        service = self.given_service()
        service.register(1, 1)
        service.then_users_become({1})
        service.then_positions_become({one: 0 for one in ALL if one != R1})
        service.sql(SAVE)
        service.register(1, 2)
        service.then_users_become({1, 2})
        service.then_userd_has_committed(R1, 2)
        service.end_userd()
        service.register(0, 3, 4)
        service.send(ADMIN_DELETE, 0, {"id": 4})
        service.commit({R0: 2, D0: 1})
        service.sql(RESTORE)
        service.start_again()
        service.then_positions_become({R0: 2, R1: 2, D0: 1})
        service.then_users_become({1, 2, 3})
        self.assertEqual((service.eventd("foreign_progress"), service.eventd("database_rollbacks")), (0, 1))

    def test_userd_on_another_database_is_not_taken_for_this_one(self):
        """Its note has another identity."""
        service = self.given_service()
        service.register(0, 1)
        service.then_users_become({1})
        service.end_userd()
        service.register(0, 2)
        service.commit({R0: 2}, "userd/1 database=5d1f6b0a-0000-4000-8000-000000000000 position=2")
        service.start_again()
        service.then_users_become({1, 2})
        service.then_log_says("userd on another database commits in this group")
        self.assertEqual((service.eventd("foreign_progress"), service.eventd("database_rollbacks")), (0, 0))


if __name__ == "__main__":
    unittest.main()
