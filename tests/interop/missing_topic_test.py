#!/usr/bin/python3
"""A topic that is missing holds up the events that go to it, and no others: here the one for dead letters, with more of them waiting than
the relay can hold."""
import subprocess
import unittest

import kafka

import userd_service

DEAD = "dead.letters.made.late"
DEAD_LETTERS = 12000
WRITE_DEAD_LETTERS = f"""INSERT INTO outbox (destination, value, header_names, header_values)
    SELECT 2, convert_to(number::text, 'UTF8'), '{{dlq-reason}}', ARRAY['test'::bytea] FROM generate_series(1, {DEAD_LETTERS}) number"""
WRITE_DELETES = """INSERT INTO outbox (destination, id_auth, key, value)
    SELECT 1, 7, '7', convert_to('{"id": 7, "n": ' || number || '}', 'UTF8') FROM generate_series(%d, %d) number"""


class BrokerService(userd_service.Service):
    """With a broker that takes commands."""

    def start_broker(self):
        self.broker = subprocess.Popen([userd_service.BINARY / "tests/embedded_broker", "--stdin"], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True)
        self.servers = self.broker.stdout.readline().strip().partition("=")[2]

    def make_topic(self, name):
        """Three partitions."""
        self.broker.stdin.write(f"topic {name} 3\n")
        self.broker.stdin.flush()
        assert self.broker.stdout.readline() == "ok\n"


class MissingTopic(unittest.TestCase):
    """Before it is there, and after."""

    def test_holds_up_its_own_events_alone(self):
        """In order, as always."""
        with BrokerService(kafka_settings=f'dead_letter_topic = "{DEAD}"; create_topics = false;') as service:
            service.sql(WRITE_DEAD_LETTERS)
            for first in (1, 101, 201):
                service.sql(WRITE_DELETES % (first, first + 99))
                userd_service.wait_for(lambda: service.sql("SELECT count(*) FROM outbox WHERE destination = 1") == "0",
                                       "deletes are published")
            self.assertEqual(service.sql("SELECT count(*) FROM outbox"), str(DEAD_LETTERS))
            service.make_topic(DEAD)
            userd_service.wait_for(lambda: service.sql("SELECT count(*) FROM outbox") == "0", "dead letters are published")
            self.then_log_holds(service, "delete", [f'{{"id": 7, "n": {number}}}' for number in range(1, 301)])
            self.then_log_holds(service, DEAD, [str(number) for number in range(1, DEAD_LETTERS + 1)])

    def then_log_holds(self, service, topic, expected):
        """Each once; those of one key in order."""
        consumer = kafka.KafkaConsumer(topic, bootstrap_servers=service.servers, auto_offset_reset="earliest", consumer_timeout_ms=2000)
        values = [record.value.decode() for record in consumer]
        consumer.close()
        self.assertEqual(values if topic == "delete" else sorted(values, key=int), expected)


if __name__ == "__main__":
    unittest.main()
