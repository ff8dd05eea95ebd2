#!/usr/bin/python3
"""What operators' tools rely on: server reflection (as grpcurl asks it) and health, Check and Watch (as grpc_health_probe and load
balancers ask it), on every listener."""
import queue
import subprocess
import threading
import unittest

import grpc
from google.protobuf import descriptor_pb2

import userd_service

GRPC_CALL = userd_service.SOURCE / "tests/tools/grpc_call"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"


def length_prefixed(number, data):
    """Field `number`, wire type 2, short."""
    return bytes([number << 3 | 2, len(data)]) + data


class IntrospectionTest(unittest.TestCase):
    """One service for all."""

    @classmethod
    def setUpClass(cls):
        cls.service = userd_service.Service(workers=1)
        cls.service.start()

    @classmethod
    def tearDownClass(cls):
        cls.service.stop()

    def tool(self, *arguments):
        """What tests/tools/grpc_call, which knows reflection only, prints."""
        return subprocess.run([GRPC_CALL, *arguments], check=True, stdout=subprocess.PIPE,
                              timeout=userd_service.TIMEOUT_S).stdout.decode().splitlines()

    def test_each_listener_lists_what_it_serves(self):
        """And not what the other one does."""
        gateway = self.tool(self.service.gateway, "list")
        post = self.tool(self.service.post, "list")
        for services in (gateway, post):
            self.assertIn("grpc.health.v1.Health", services)
            self.assertIn("grpc.reflection.v1alpha.ServerReflection", services)
            self.assertIn("grpc.reflection.v1.ServerReflection", services)
        self.assertIn("user.User", gateway)
        self.assertNotIn("user_post.UserPost", gateway)
        self.assertIn("user_post.UserPost", post)
        self.assertNotIn("user.User", post)

    def test_a_client_without_proto_files_can_call(self):
        """All that it knows it was told by reflection."""
        self.service.sql("""INSERT INTO "user" (id_auth, username) VALUES (17, 'trinity')""")
        self.assertEqual(self.tool(self.service.gateway, "user.User/GetUser", '{"id": 17}'), ['{"username": "trinity"}'])
        self.assertEqual(self.tool(self.service.post, "user_post.UserPost/GetByIDs", '{"ids": [17]}'),
                         ['{"users": {"17": "trinity"}}'])

    def ask_reflection(self, version, *requests):
        """The raw answers to raw ServerReflectionRequests, in one stream."""
        with grpc.insecure_channel(self.service.post) as channel:
            method = channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
            return list(method(iter(requests), timeout=userd_service.TIMEOUT_S))

    def test_both_versions_answer_every_kind_of_question(self):
        """By file name (3), by symbol (4), extensions of a type (6), all services (7); the host and the request come back."""
        for version in ("v1", "v1alpha"):
            by_name, by_symbol, extensions, services, unknown = self.ask_reflection(
                version, length_prefixed(1, b"here") + length_prefixed(3, b"user_post/user_post.proto"),
                length_prefixed(4, b"user_post.UserPost.GetByIDs"),
                length_prefixed(6, b"user_post.UserId"), length_prefixed(7, b""), length_prefixed(4, b"no.Such"))
            for answer in (by_name, by_symbol):
                self.assertIn(b"user_post/user_post.proto", answer)
                self.assertIn(b"GetByUsernameRequest", answer)
            self.assertTrue(by_name.startswith(length_prefixed(1, b"here")))
            self.assertIn(length_prefixed(3, b"user_post/user_post.proto"), by_name)
            self.assertIn(b"user_post.UserId", extensions)
            self.assertIn(b"user_post.UserPost", services)
            # error_response = 7 { error_code = 1: NOT_FOUND }
            self.assertIn(b"\x08\x05", unknown)

    def test_described_files_are_ours(self):
        """The descriptor is whole: every message of the file is in it."""
        (answer,) = self.ask_reflection("v1", length_prefixed(4, b"user_post.UserPost"))
        start = answer.index(b"\n\x19user_post/user_post.proto")
        names = []
        for end in range(len(answer), start, -1):
            try:
                names = [message.name for message in
                         descriptor_pb2.FileDescriptorProto.FromString(answer[start:end]).message_type]
                break
            except Exception:  # pylint: disable=broad-except
                continue
        self.assertIn("UsersMapResponse", names)

    def check(self, address, service):
        """Health/Check: bytes or the status."""
        with grpc.insecure_channel(address) as channel:
            try:
                return channel.unary_unary("/grpc.health.v1.Health/Check")(length_prefixed(1, service), timeout=10)
            except grpc.RpcError as error:
                return error.code()

    def test_health_knows_the_listeners_services(self):
        """And says NOT_FOUND for others."""
        self.assertEqual(self.check(self.service.gateway, b"user.User"), SERVING)
        self.assertEqual(self.check(self.service.post, b"user_post.UserPost"), SERVING)
        self.assertEqual(self.check(self.service.gateway, b"no.Such"), grpc.StatusCode.NOT_FOUND)

    def test_health_can_be_watched(self):
        """The first answer at once, the next at the change; an unknown name stays open."""
        with grpc.insecure_channel(self.service.gateway) as channel:
            watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
            known = watch(length_prefixed(1, b"user.User"), timeout=userd_service.TIMEOUT_S)
            unknown = watch(length_prefixed(1, b"no.Such"), timeout=userd_service.TIMEOUT_S)
            self.assertEqual(next(known), SERVING)
            self.assertEqual(next(unknown), SERVICE_UNKNOWN)
            answers = queue.Queue()
            threading.Thread(target=self.collect, args=(known, answers), daemon=True).start()
            self.service.sql(f"ALTER DATABASE {self.service.database} ALLOW_CONNECTIONS false", is_admin=True)
            self.service.sql(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                             f" WHERE datname = '{self.service.database}'", is_admin=True)
            self.assertEqual(answers.get(timeout=userd_service.TIMEOUT_S), NOT_SERVING)
            self.service.sql(f"ALTER DATABASE {self.service.database} ALLOW_CONNECTIONS true", is_admin=True)
            self.assertEqual(answers.get(timeout=userd_service.TIMEOUT_S), SERVING)
            known.cancel()
            unknown.cancel()

    @staticmethod
    def collect(stream, answers):
        """Moves what is watched into a queue, until the stream is cancelled."""
        try:
            for answer in stream:
                answers.put(answer)
        except grpc.RpcError:
            pass


class WithoutReflectionTest(unittest.TestCase):
    """reflection = false."""

    def test_reflection_is_not_served_and_the_rest_is(self):
        """An unknown method, in both versions and on each listener; health is there."""
        with userd_service.Service(workers=1, settings="reflection = false;") as service:
            for address in (service.gateway, service.post):
                with grpc.insecure_channel(address) as channel:
                    for version in ("v1", "v1alpha"):
                        method = channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
                        with self.assertRaises(grpc.RpcError) as raised:
                            list(method(iter([length_prefixed(7, b"")]), timeout=userd_service.TIMEOUT_S))
                        self.assertEqual(raised.exception.code(), grpc.StatusCode.UNIMPLEMENTED)
                    check = channel.unary_unary("/grpc.health.v1.Health/Check")
                    self.assertEqual(check(b"", timeout=userd_service.TIMEOUT_S), SERVING)


if __name__ == "__main__":
    unittest.main()
