#!/usr/bin/python3
"""The platform's story, told by its own actors with clients that are not ours: grpcio as Gateway and Post Service, each on its own
port, kafka-python as Auth and as the administrators' service. On the embedded broker, or on a real Apache Kafka."""
import json
import os
import sys
import tempfile
import unittest

import grpc
import kafka

import userd_service

GENERATED = tempfile.TemporaryDirectory(prefix="userd-generated.")
userd_service.generate_clients(GENERATED.name)
# pylint: disable=wrong-import-position
from user import user_pb2  # noqa: E402
from user_post import user_post_pb2  # noqa: E402


class Gateway:
    """Knows port 50053's service."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)

    def call(self, method, request, response_type):
        """One call of user.User."""
        invoke = self.channel.unary_unary(f"/user.User/{method}", type(request).SerializeToString,
                                          response_type.FromString)
        return invoke(request, timeout=userd_service.TIMEOUT_S)

    def get_user(self, auth_id):
        """The name, or None."""
        try:
            return self.call("GetUser", user_pb2.UserGetRequest(id=auth_id), user_pb2.UserOutResponse).username
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return None
            raise

    def update_user(self, auth_id, username):
        """The name as stored."""
        request = user_pb2.UserUpdateRequest(id=auth_id, username=username)
        return self.call("UserUpdate", request, user_pb2.UserOutResponse).username

    def delete_user(self, auth_id):
        """Empty."""
        return self.call("DeleteUser", user_pb2.UserDeleteRequest(id=auth_id), user_pb2.Empty)


class PostService:
    """Knows port 50055's service."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)

    def call(self, method, request, response_type):
        """One call of user_post.UserPost."""
        invoke = self.channel.unary_unary(f"/user_post.UserPost/{method}", type(request).SerializeToString,
                                          response_type.FromString)
        return invoke(request, timeout=userd_service.TIMEOUT_S)

    def id_of(self, username):
        """GetByUsername."""
        request = user_post_pb2.GetByUsernameRequest(username=username)
        return self.call("GetByUsername", request, user_post_pb2.UserId).id

    def name_of(self, auth_id):
        """GetByID."""
        return self.call("GetByID", user_post_pb2.GetByIdRequest(id=auth_id), user_post_pb2.UserUsername).username

    def names_of(self, auth_ids):
        """GetByIDs."""
        request = user_post_pb2.GetByIdsRequest(ids=auth_ids)
        return dict(self.call("GetByIDs", request, user_post_pb2.UsersMapResponse).users)


class Auth:
    """Produces registrations as the platform's Auth does: no key, JSON. Reads `delete` in a group of its own."""

    def __init__(self, servers):
        self.producer = kafka.KafkaProducer(bootstrap_servers=servers, max_request_size=32 * 1024 * 1024,
                                            value_serializer=lambda value: json.dumps(value).encode())
        self.consumer = kafka.KafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest",
                                            enable_auto_commit=False, fetch_max_wait_ms=50)
        self.consumer.assign([kafka.TopicPartition("delete", partition) for partition in range(3)])
        self.deletions = []

    def send(self, topic, value):
        """Waits for the broker's acknowledgement."""
        self.producer.send(topic, value).get(timeout=userd_service.TIMEOUT_S)

    def poll(self):
        """All records that have been on `delete` so far."""
        for records in self.consumer.poll(timeout_ms=100).values():
            self.deletions.extend(records)
        return self.deletions

    def close(self):
        """Both connections."""
        self.producer.close(timeout=10)
        self.consumer.close(autocommit=False)


class PlatformTest(unittest.TestCase):
    """One service for all of them: ids are of each test's own."""

    @classmethod
    def setUpClass(cls):
        cls.service = userd_service.Service(workers=2)
        cls.service.start()
        cls.gateway = Gateway(cls.service.gateway)
        cls.post = PostService(cls.service.post)
        cls.auth = Auth(cls.service.servers)

    @classmethod
    def tearDownClass(cls):
        cls.auth.close()
        cls.gateway.channel.close()
        cls.post.channel.close()
        cls.service.stop()

    def wait_for_name(self, auth_id, name):
        """Until GetUser says so."""
        userd_service.wait_for(lambda: self.gateway.get_user(auth_id) == name, f"{auth_id} is {name}")

    def wait_for_deletion(self, auth_id):
        """The one record on `delete` for this id."""
        def found():
            return [record for record in self.auth.poll() if json.loads(record.value)["id"] == auth_id]
        return userd_service.wait_for(found, f"deletion of {auth_id}")[0]

    def test_a_users_life(self):
        """Register by event, read, rename, read in bulk, delete, see it on `delete`."""
        self.auth.send("registration", {"id": 17, "username": "trinity"})
        self.wait_for_name(17, "trinity")
        self.assertEqual(self.post.id_of("trinity"), 17)
        self.assertEqual(self.post.name_of(17), "trinity")
        self.assertEqual(self.gateway.update_user(17, "Neo Anderson"), "Neo Anderson")
        self.assertEqual(self.post.name_of(17), "Neo Anderson")
        self.assertEqual(self.post.id_of("neo anderson"), 17)
        self.auth.send("registration", {"id": 18, "username": "morpheus"})
        self.wait_for_name(18, "morpheus")
        self.assertEqual(self.post.names_of([17, 18, 404, 17]), {17: "Neo Anderson", 18: "morpheus"})
        self.assertEqual(self.gateway.delete_user(17), user_pb2.Empty())
        self.assertIsNone(self.gateway.get_user(17))
        record = self.wait_for_deletion(17)
        self.assertEqual(record.value, b'{"id": 17}')
        self.assertEqual(self.post.names_of([17, 18]), {18: "morpheus"})

    def test_an_administrator_deletes_a_user(self):
        """`admin_delete_user` removes the user and tells Auth and Post."""
        self.auth.send("registration", {"id": 27, "username": "cypher"})
        self.wait_for_name(27, "cypher")
        self.auth.send("admin_delete_user", {"id": 27})
        self.wait_for_name(27, None)
        self.assertEqual(self.wait_for_deletion(27).value, b'{"id": 27}')
        self.auth.send("registration", {"id": 27, "username": "cypher"})
        self.auth.send("registration", {"id": 28, "username": "switch"})
        self.wait_for_name(28, "switch")
        self.assertIsNone(self.gateway.get_user(27))

    def test_names_in_other_scripts_survive(self):
        """JSON escapes, and UTF-8 as it is."""
        names = {31: "Тринити", 32: "トリニティー", 33: "Zoë Zoë", 34: "naïve 🙂 one"}
        for auth_id, name in names.items():
            self.auth.send("registration", {"id": auth_id, "username": name})
        for auth_id, name in names.items():
            self.wait_for_name(auth_id, name)
            self.assertEqual(self.post.id_of(name), auth_id)
        self.assertEqual(self.post.names_of(list(names)), names)

    def test_what_the_gateway_shows_to_people(self):
        """INVALID_ARGUMENT with a message for a name that is taken or breaks a rule."""
        for auth_id, name in ((41, "tank driver"), (42, "dozer driver")):
            self.auth.send("registration", {"id": auth_id, "username": name})
            self.wait_for_name(auth_id, name)
        for name, message in (("TANK driver", "username is already taken"), ("ab", None), ("x" * 33, None)):
            with self.assertRaises(grpc.RpcError) as caught:
                self.gateway.update_user(42, name)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
            self.assertTrue(caught.exception.details())
            if message:
                self.assertEqual(caught.exception.details(), message)
        self.assertEqual(self.gateway.get_user(42), "dozer driver")

    def test_a_poison_message_does_not_stop_a_partition(self):
        """On each partition: nonsense, then a user."""
        for partition in range(3):
            self.auth.producer.send("registration", "nonsense", partition=partition).get(timeout=60)
            value = {"id": 50 + partition, "username": f"operator {partition}"}
            self.auth.producer.send("registration", value, partition=partition).get(timeout=60)
        for partition in range(3):
            self.wait_for_name(50 + partition, f"operator {partition}")

    def test_dead_letters_are_seen_and_sent_again_and_dropped(self):
        """Beside the running service, which makes new ones of what is sent again."""
        self.service.run("dead-letters", "drop", "--all")
        for partition in range(3):
            self.auth.producer.send("registration", {"id": "seventeen"}, partition=partition).get(timeout=60)
        self.wait_for_dead_letters(3)
        listed = self.service.run("dead-letters", "list").splitlines()[1:-1]
        letter = listed[0].split()[0]
        self.assertIn('value: {"id": "seventeen"}', self.service.run("dead-letters", "show", letter).replace("\\x22", '"'))
        self.assertIn("1 dead letters dropped", self.service.run("dead-letters", "drop", listed[-1].split()[0]))
        self.wait_for_dead_letters(2)
        self.assertIn("2 dead letters sent again", self.service.run("dead-letters", "replay", "--all"))
        self.wait_for_dead_letters(2)
        again = self.service.run("dead-letters", "list").splitlines()[1].split()[0]
        self.assertIn("header dlq-redrive: 1", self.service.run("dead-letters", "show", again))
        self.assertIn("2 dead letters dropped", self.service.run("dead-letters", "drop", "--all"))
        self.wait_for_dead_letters(0)

    def wait_for_dead_letters(self, count):
        """So many are pending, and the outbox holds no more."""
        def found():
            waits = self.service.sql("SELECT count(*) FROM outbox") != "0"
            return not waits and f"\n{count} dead letters pending\n" in "\n" + self.service.run("dead-letters", "list")
        userd_service.wait_for(found, f"{count} dead letters")

    @unittest.skipUnless("USERD_TEST_KAFKA" in os.environ, "the embedded broker keeps 5 MiB of a partition")
    def test_a_record_of_ten_megabytes_does_not_stop_a_partition(self):
        """It becomes a dead letter."""
        value = {"id": 71, "username": "x" * 10_000_000}
        self.auth.producer.send("registration", value, partition=1).get(timeout=60)
        self.auth.producer.send("registration", {"id": 72, "username": "niobe"}, partition=1).get(timeout=60)
        self.wait_for_name(72, "niobe")
        self.assertIsNone(self.gateway.get_user(71))

    def test_userd_goes_on_after_a_restart(self):
        """Nothing is applied twice, nothing is forgotten."""
        self.auth.send("registration", {"id": 61, "username": "oracle one"})
        self.wait_for_name(61, "oracle one")
        self.assertEqual(self.gateway.update_user(61, "oracle two"), "oracle two")
        self.assertEqual(self.service.end(self.service.master), 0)
        self.auth.send("registration", {"id": 62, "username": "seraph"})
        self.service.start_userd()
        self.gateway.channel.close()
        self.post.channel.close()
        type(self).gateway = Gateway(self.service.gateway)
        type(self).post = PostService(self.service.post)
        self.wait_for_name(62, "seraph")
        self.assertEqual(self.gateway.get_user(61), "oracle two")


if __name__ == "__main__":
    userd_service.skip_without_kafka()
    if "USERD_TEST_KAFKA" in os.environ:
        print(f"real Apache Kafka at {userd_service.read_handle(os.environ['USERD_TEST_KAFKA'])['bootstrap.servers']}",
              file=sys.stderr)
    unittest.main()
