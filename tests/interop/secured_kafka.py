#!/usr/bin/python3
"""userd and a real Apache Kafka that wants TLS and SASL (SCRAM-SHA-512): with the password in a file and as a systemd credential, with a
wrong password, with the wrong authority. The test's own clients use the broker's plain listener."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import grpc
import kafka
import kafka.admin

import userd_service

GENERATED = tempfile.TemporaryDirectory(prefix="userd-generated.")
userd_service.generate_clients(GENERATED.name)
from user import user_pb2  # noqa: E402  pylint: disable=wrong-import-position

MARK = f"secured{os.getpid()}"
WRONG_PASSWORD = "wrong-3f9a61d07b"
CREDENTIAL = "kafka-sasl-password"


class SecuredService(userd_service.Service):
    """userd on the secured listener, with topics of its own."""

    def __init__(self, number, password, as_credential=False, authority=None):
        self.handle = userd_service.read_handle(os.environ["USERD_TEST_KAFKA"])
        self.names = {name: f"{MARK}.{number}.{name}" for name in ("group", "registration", "admin", "delete", "dead")}
        super().__init__()
        self.password_file = self.directory / (CREDENTIAL if as_credential else "password")
        self.as_credential = as_credential
        self.write_password(password)
        self.kafka_settings = f"""group = "{self.names['group']}"; registration_topic = "{self.names['registration']}";
            admin_delete_topic = "{self.names['admin']}"; delete_topic = "{self.names['delete']}";
            dead_letter_topic = "{self.names['dead']}"; options = {{ security_protocol = "SASL_SSL";
            ssl_ca_location = "{authority or self.handle['ca']}"; sasl_mechanism = "SCRAM-SHA-512";
            sasl_username = "{self.handle['user']}"; sasl_password_file = "{'' if as_credential else self.password_file}"; }}; """
        self.log_path = self.directory / "log"

    def write_password(self, password):
        """As an operator does: a line, for its owner's eyes."""
        self.password_file.touch(mode=0o600)
        self.password_file.write_text(password + "\n", encoding="utf-8")

    def environment(self):
        added = {"CREDENTIALS_DIRECTORY": str(self.directory)} if self.as_credential else {}
        return dict(super().environment(), **added)

    def start_broker(self):
        """There already; its topics but for those that userd makes."""
        self.servers = self.handle["secured.servers"]
        admin = kafka.admin.KafkaAdminClient(bootstrap_servers=self.handle["bootstrap.servers"])
        admin.create_topics([kafka.admin.NewTopic(self.names[name], 3, 1) for name in ("registration", "admin")])
        admin.close()

    def start_userd(self):
        with open(self.log_path, "ab") as self.log:
            super().start_userd()

    def stop(self):
        if self.log_path.exists():
            sys.stderr.write(self.log_text())
        super().stop()

    def log_text(self):
        """So far."""
        return self.log_path.read_text(encoding="utf-8")

    def wait_for_log(self, *texts):
        """A line that holds all of them."""
        userd_service.wait_for(lambda: any(all(text in line for text in texts) for line in self.log_text().splitlines()),
                               f"a log line with {texts}")

    def register(self, auth_id):
        """An event of Auth's, over the plain listener."""
        producer = kafka.KafkaProducer(bootstrap_servers=self.handle["bootstrap.servers"], acks="all")
        producer.send(self.names["registration"], json.dumps({"id": auth_id, "username": f"user {auth_id}"}).encode()).get(20)
        producer.close()

    def is_user(self, auth_id):
        """As the Gateway sees it."""
        with grpc.insecure_channel(self.gateway) as channel:
            try:
                channel.unary_unary("/user.User/GetUser", user_pb2.UserGetRequest.SerializeToString)(
                    user_pb2.UserGetRequest(id=auth_id), timeout=5)
                return True
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.NOT_FOUND, error
                return False

    def delete(self, auth_id):
        """By the Gateway; it must not fail."""
        with grpc.insecure_channel(self.gateway) as channel:
            channel.unary_unary("/user.User/DeleteUser", user_pb2.UserDeleteRequest.SerializeToString)(
                user_pb2.UserDeleteRequest(id=auth_id), timeout=5)

    def published(self, count):
        """What is on the topic `delete`, once it is that many."""
        consumer = kafka.KafkaConsumer(self.names["delete"], bootstrap_servers=self.handle["bootstrap.servers"],
                                       auto_offset_reset="earliest", consumer_timeout_ms=userd_service.TIMEOUT_S * 1000)
        values = [json.loads(next(consumer).value)["id"] for _ in range(count)]
        consumer.close()
        return values


class SecuredKafka(unittest.TestCase):
    """What an operator of a secured cluster sees."""

    def then_nobody_shows(self, service, secret):
        """Not in the log, not in a word or a variable of a process, not in what the commands say; held by whom it concerns."""
        self.assertNotIn(secret, service.log_text())
        for command in (("check",), ("status",), ("status", "--json"), ("metrics",)):
            self.assertNotIn(secret, service.run(*command), command)
        processes = {service.master.pid: "userd", **userd_service.processes_under(service.master.pid)}
        self.assertGreaterEqual(len(processes), 4)
        for pid, name in processes.items():
            for what in ("environ", "cmdline"):
                self.assertNotIn(secret.encode(), pathlib.Path(f"/proc/{pid}/{what}").read_bytes(), f"{what} of {name}")
            if name.startswith("userd-worker"):
                self.assertFalse(userd_service.memory_holds(pid, secret.encode()), f"{name} holds the secret")
        # Or the last line looks at the wrong place.
        self.assertTrue(any(userd_service.memory_holds(pid, secret.encode()) for pid in processes))

    def then_events_go_both_ways(self, service, auth_id):
        """In: a registration; out: a delete."""
        service.register(auth_id)
        userd_service.wait_for(lambda: service.is_user(auth_id), f"user {auth_id}")
        service.delete(auth_id)

    def test_works_with_a_password_file(self):
        """And `userd dead-letters` does, too."""
        password = userd_service.read_handle(os.environ["USERD_TEST_KAFKA"])["password"]
        with SecuredService(1, password) as service:
            self.then_events_go_both_ways(service, 17)
            self.assertEqual(service.published(1), [17])
            self.then_nobody_shows(service, password)
            self.assertIn("0 dead letters pending", service.run("dead-letters", "list"))

    def test_works_with_a_credential(self):
        """Of systemd's."""
        password = userd_service.read_handle(os.environ["USERD_TEST_KAFKA"])["password"]
        with SecuredService(2, password, as_credential=True) as service:
            self.then_events_go_both_ways(service, 18)
            self.assertEqual(service.published(1), [18])
            self.then_nobody_shows(service, password)

    def test_a_wrong_password_is_said_and_hurts_no_call(self):
        """Until the file holds the right one and the service is told to read it."""
        with SecuredService(3, WRONG_PASSWORD) as service:
            service.wait_for_log("kafka", "_AUTHENTICATION", "SASL")
            service.sql("INSERT INTO \"user\" (username, id_auth) VALUES ('neo', 19)")
            self.assertTrue(service.is_user(19))
            service.delete(19)
            self.assertFalse(service.is_user(19))
            self.assertEqual(service.sql("SELECT count(*) FROM outbox"), "1")
            self.then_nobody_shows(service, WRONG_PASSWORD)
            password = service.handle["password"]
            service.write_password(password)
            service.run("reload")
            self.assertEqual(service.published(1), [19])
            self.then_events_go_both_ways(service, 20)
            self.assertEqual(sorted(service.published(2)), [19, 20])
            self.then_nobody_shows(service, password)

    def test_a_broker_of_another_authority_is_refused(self):
        """Whoever answers at the address is not believed."""
        with tempfile.TemporaryDirectory() as directory:
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-keyout", f"{directory}/key", "-out",
                            f"{directory}/ca.pem", "-days", "1", "-subj", "/CN=somebody else"], check=True, stderr=subprocess.DEVNULL)
            password = userd_service.read_handle(os.environ["USERD_TEST_KAFKA"])["password"]
            with SecuredService(4, password, authority=f"{directory}/ca.pem") as service:
                service.wait_for_log("kafka", "_SSL", "certificate")
                service.sql("INSERT INTO \"user\" (username, id_auth) VALUES ('neo', 21)")
                self.assertTrue(service.is_user(21))


if __name__ == "__main__":
    if "USERD_TEST_KAFKA" not in os.environ:
        print("left out: secured Kafka: only with a real Apache Kafka")
        sys.exit(userd_service.STATUS_SKIPPED)
    userd_service.skip_without_kafka()
    unittest.main()
