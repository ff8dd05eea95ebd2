#!/usr/bin/python3
"""A broker that finds a batch too large refuses all of it; only the rows that are too large by themselves may be set aside for it. On a
real Apache Kafka only: the embedded broker takes every size."""
import json
import os
import sys
import unittest

import kafka
from kafka.admin import KafkaAdminClient, NewTopic

import userd_service

MARK = f"refused{os.getpid()}"
GROUP, REGISTRATION, ADMIN_DELETE, DELETE, DEAD = (f"{MARK}.{name}" for name in ("group", "registration", "admin", "delete", "dead"))
KAFKA_SETTINGS = f"""group = "{GROUP}"; registration_topic = "{REGISTRATION}"; admin_delete_topic = "{ADMIN_DELETE}";
    delete_topic = "{DELETE}"; dead_letter_topic = "{DEAD}"; """
LARGEST = 4000          # what the broker takes in one batch: two or three of the rows
ROWS = 240
USERS = 60
TOO_LARGE = (70, 150)   # rows that no batch can hold
INSERT = f"""INSERT INTO outbox (destination, id_auth, key, value)
    SELECT 1, number % {USERS} + 1, convert_to((number % {USERS} + 1)::text, 'UTF8'),
           convert_to(json_build_object('id', number % {USERS} + 1, 'n', number, 'more',
                                        repeat('x', CASE WHEN number IN {TOO_LARGE} THEN 6000 ELSE 1000 END))::text, 'UTF8')
    FROM generate_series(1, {ROWS}) number"""


class RefusedBatch(unittest.TestCase):
    """Rows that fit one by one, and two that do not."""

    def test_only_what_is_too_large_by_itself_is_parked(self):
        """Everything else is published, in order for each user."""
        service = userd_service.Service(kafka_settings=KAFKA_SETTINGS)
        service.start_is_held = True
        with service:
            admin = KafkaAdminClient(bootstrap_servers=service.servers)
            admin.create_topics([NewTopic(topic, 3, 1) for topic in (REGISTRATION, ADMIN_DELETE, DEAD)]
                                + [NewTopic(DELETE, 3, 1, topic_configs={"max.message.bytes": str(LARGEST)})])
            admin.close()
            service.sql(INSERT)
            service.start_userd()
            userd_service.wait_for(lambda: service.sql("SELECT count(*) FROM outbox") == "0", "the outbox empties")
            parked = service.sql("SELECT convert_from(value, 'UTF8')::json->>'n' || ' ' || reason FROM outbox_parked ORDER BY id")
            self.assertEqual(parked.split("\n"), [f"{number} MSG_SIZE_TOO_LARGE" for number in TOO_LARGE])
            self.then_all_others_are_published(service)

    def then_all_others_are_published(self, service):
        """Each once, and those of one user one after the other."""
        consumer = kafka.KafkaConsumer(DELETE, bootstrap_servers=service.servers, auto_offset_reset="earliest",
                                       consumer_timeout_ms=3000)
        numbers = {}
        for record in consumer:
            value = json.loads(record.value)
            numbers.setdefault(value["id"], []).append(value["n"])
        consumer.close()
        expected = [number for number in range(1, ROWS + 1) if number not in TOO_LARGE]
        self.assertEqual(sorted(sum(numbers.values(), [])), expected)
        for found in numbers.values():
            self.assertEqual(found, sorted(found))


if __name__ == "__main__":
    if "USERD_TEST_KAFKA" not in os.environ:
        print("left out: refused batches: only on a real Apache Kafka")
        sys.exit(userd_service.STATUS_SKIPPED)
    userd_service.skip_without_kafka()
    unittest.main()
