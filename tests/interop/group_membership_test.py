#!/usr/bin/python3
"""An instance that cannot apply events leaves its partitions to others, and comes back when it can."""
import unittest

from kafka.structs import TopicPartition

from event_broker import REGISTRATION, EventService
from userd_service import wait_for

R0 = TopicPartition(REGISTRATION, 0)
LEAVING = "no worker can apply events: leaving the group"
END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'userd worker%'"


class GroupMembership(unittest.TestCase):
    """One service for each test."""

    def given_service(self):
        """With one user."""
        service = EventService(workers=1)
        service.__enter__()  # pylint: disable=unnecessary-dunder-call # until enterContext() is there
        self.addCleanup(service.__exit__, None, None, None)
        service.register(0, 1)
        service.then_users_become({1})
        service.then_userd_has_committed(R0, 1)
        return service

    def test_ends_when_the_database_cannot_be_used_and_begins_again_when_it_can(self):
        """A schema that is none: the workers' sessions are refused. The group has room for a member that takes all."""
        service = self.given_service()
        service.sql("ALTER TABLE schema_migration RENAME TO away")
        service.sql(END_SESSIONS + f" AND datname = '{service.database}'", is_admin=True)
        service.then_log_says(LEAVING)
        service.register(0, 2, 3)
        service.commit({R0: 2})  # has all partitions for a moment
        wait_for(lambda: service.eventd("lag") == 1, "the lag of what nobody has consumed")
        service.sql("ALTER TABLE away RENAME TO schema_migration")
        service.then_users_become({1, 3})
        wait_for(lambda: service.eventd("lag") == 0, "lag 0")

    def test_ends_when_events_are_refused_for_what_the_database_is(self):
        """Calls are answered, and nothing can be written: as with a standby, or a schema that a newer program has changed."""
        service = self.given_service()
        service.sql("ALTER TABLE user_tombstone RENAME TO away")
        service.register(0, 2)
        service.then_log_says(LEAVING)
        self.assertTrue(service.is_serving())
        service.commit({R0: 1})
        service.sql("ALTER TABLE away RENAME TO user_tombstone")
        service.then_users_become({1, 2})

    def test_begins_with_the_first_worker_that_can_apply_events(self):
        """Until then another member has everything."""
        service = self.given_service()
        service.end_userd()
        service.sql("ALTER TABLE schema_migration RENAME TO away")
        service.is_serving = lambda: True
        service.register(0, 2)
        service.start_again()
        service.then_log_says("kafka is connected")
        wait_for(lambda: service.eventd("lag") == 1, "lag 1")
        self.assertEqual(service.count_lines("subscribed"), 0)
        service.sql("ALTER TABLE away RENAME TO schema_migration")
        service.then_users_become({1, 2})


if __name__ == "__main__":
    unittest.main()
