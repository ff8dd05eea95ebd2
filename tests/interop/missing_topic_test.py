#!/usr/bin/python3
"""A topic that is missing, or whose partitions have no leader, holds up the events that go to it, and no others, even with more of them
waiting than the relay can hold."""
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
WRITE_DELETES_OF_MANY = """INSERT INTO outbox (destination, id_auth, key, value)
    SELECT 1, 1000 + number %% %d, convert_to((1000 + number %% %d)::text, 'UTF8'), convert_to(number::text, 'UTF8')
    FROM generate_series(1, %d) number"""
PARTITIONS = 3
USERS = 8000
DELETES = 12000


class BrokerService(userd_service.Service):
    """With a broker that takes commands."""

    def start_broker(self):
        self.broker = subprocess.Popen([userd_service.BINARY / "tests/embedded_broker", "--stdin"], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True)
        self.servers = self.broker.stdout.readline().strip().partition("=")[2]

    def command(self, line):
        """One of the broker's commands, which must work."""
        self.broker.stdin.write(line + "\n")
        self.broker.stdin.flush()
        answer = self.broker.stdout.readline()
        assert answer == "ok\n", answer

    def make_topic(self, name):
        """Three partitions."""
        self.command(f"topic {name} {PARTITIONS}")

    def set_leaders(self, topic, broker):
        """Of all partitions; -1: none has a leader."""
        for partition in range(PARTITIONS):
            self.command(f"leader {topic} {partition} {broker}")


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

    def test_partitions_without_a_leader_hold_up_their_own_topic_alone(self):
        """There is neither a delivery report for their events nor an error."""
        with BrokerService() as service:
            service.set_leaders("delete", -1)
            service.sql(WRITE_DELETES_OF_MANY % (USERS, USERS, DELETES))
            service.sql(WRITE_DEAD_LETTERS)
            userd_service.wait_for(lambda: service.sql("SELECT count(*) FROM outbox WHERE destination = 2") == "0",
                                   "dead letters are published")
            self.assertEqual(service.sql("SELECT count(*) FROM outbox"), str(DELETES))
            service.set_leaders("delete", 1)
            userd_service.wait_for(lambda: service.sql("SELECT count(*) FROM outbox") == "0", "deletes are published")
            self.then_log_holds(service, "user_service.dead_letter", [str(number) for number in range(1, DEAD_LETTERS + 1)])
            self.then_deletes_are_in_order(service)

    def then_deletes_are_in_order(self, service):
        """Each once; those of one user one after the other."""
        consumer = kafka.KafkaConsumer("delete", bootstrap_servers=service.servers, auto_offset_reset="earliest", consumer_timeout_ms=2000)
        numbers = {}
        for record in consumer:
            numbers.setdefault(record.key, []).append(int(record.value))
        consumer.close()
        self.assertEqual(sorted(sum(numbers.values(), [])), list(range(1, DELETES + 1)))
        for found in numbers.values():
            self.assertEqual(found, sorted(found))

    def then_log_holds(self, service, topic, expected):
        """Each once; those of one key in order."""
        consumer = kafka.KafkaConsumer(topic, bootstrap_servers=service.servers, auto_offset_reset="earliest", consumer_timeout_ms=2000)
        values = [record.value.decode() for record in consumer]
        consumer.close()
        self.assertEqual(values if topic == "delete" else sorted(values, key=int), expected)


if __name__ == "__main__":
    unittest.main()
