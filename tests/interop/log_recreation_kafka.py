#!/usr/bin/python3
"""Logs that are made anew under the same name on a real Apache Kafka: while userd runs, and while it does not. The
embedded broker cannot delete a topic."""
import os
import sys
import time
import unittest

from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

import userd_service
from event_broker import EventService
from userd_service import wait_for

MARK = f"recreation{os.getpid()}"


class LogRecreationOnKafka(unittest.TestCase):
    """Topics and a group of its own for each test."""

    def setUp(self):
        self.name = f"{MARK}.{time.monotonic_ns()}"
        self.registration, self.admin_delete = f"{self.name}.registration", f"{self.name}.admin"
        settings = f"""group = "{self.name}"; registration_topic = "{self.registration}"; admin_delete_topic = "{self.admin_delete}";
            delete_topic = "{self.name}.delete"; dead_letter_topic = "{self.name}.dead"; create_topics = false;"""
        self.service = EventService(
            workers=1, group=self.name, registration=self.registration, admin_delete=self.admin_delete, kafka_settings=settings)
        self.service.start_is_held = True
        self.service.__enter__()  # pylint: disable=unnecessary-dunder-call # until enterContext() is there
        self.addCleanup(self.service.__exit__, None, None, None)
        self.admin = KafkaAdminClient(bootstrap_servers=self.service.servers)
        self.addCleanup(self.admin.close)
        for topic in (self.registration, self.admin_delete, f"{self.name}.delete", f"{self.name}.dead"):
            self.make_topic(topic)

    def make_topic(self, topic):
        """As soon as an older one of the name is gone."""
        def is_made():
            try:
                self.admin.create_topics([NewTopic(topic, 2, 1)])
            except KafkaError:
                return False
            return True
        wait_for(is_made, f"topic {topic} is made")

    def recreate(self, topic):
        """Deleted and made."""
        self.admin.delete_topics([topic])
        self.make_topic(topic)

    def test_while_userd_does_not_run(self):
        """The new log is longer than the old one was."""
        service = self.service
        service.start_userd()
        service.register(0, 1, 2)
        service.register(1, 3)
        service.then_users_become({1, 2, 3})
        service.end_userd()
        self.recreate(self.registration)
        service.register(0, *range(11, 18))
        service.start_again()
        service.then_users_become({1, 2, 3, *range(11, 18)})
        service.then_log_says("partition was made anew")
        self.assertEqual(service.eventd("log_recreated"), 2)
        service.then_positions_become({TopicPartition(self.registration, 0): 7, TopicPartition(self.registration, 1): 0})

    def test_while_userd_runs(self):
        """Filled at once, with more records than the position counts."""
        service = self.service
        service.start_userd()
        service.register(0, 1, 2)
        service.then_users_become({1, 2})
        service.then_userd_has_committed(TopicPartition(self.registration, 0), 2)
        self.recreate(self.registration)
        service.register(0, *range(11, 18))
        service.then_users_become({1, 2, *range(11, 18)})
        service.register(1, 21)
        service.then_users_become({1, 2, *range(11, 18), 21})
        self.assertGreaterEqual(service.eventd("log_recreated"), 1)
        service.then_positions_become({TopicPartition(self.registration, 0): 7})
        wait_for(lambda: service.eventd("lag") == 0, "lag 0")


if __name__ == "__main__":
    if "USERD_TEST_KAFKA" not in os.environ:
        print("left out: new logs: only on a real Apache Kafka")
        sys.exit(userd_service.STATUS_SKIPPED)
    userd_service.skip_without_kafka()
    unittest.main()
