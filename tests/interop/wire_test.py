#!/usr/bin/python3
"""Clients generated from our .proto files and a client with nothing but the field numbers of the platform's contract agree, byte for
byte, in what they send and in what they make of the answers."""
import tempfile
import unittest

import grpc

import userd_service

GENERATED = tempfile.TemporaryDirectory(prefix="userd-generated.")
userd_service.generate_clients(GENERATED.name)
# pylint: disable=wrong-import-position
from user import user_pb2  # noqa: E402
from user_post import user_post_pb2  # noqa: E402


def varint(value):
    """An int32 as protobuf writes it: negative ones take ten bytes."""
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer(number, value):
    """Field `number`, wire type 0; proto3 leaves out zeros."""
    return varint(number << 3) + varint(value) if value else b""


def text(number, value):
    """Field `number`, wire type 2; proto3 leaves out empty ones."""
    data = value.encode()
    return varint(number << 3 | 2) + varint(len(data)) + data if data else b""


def packed(number, values):
    """Field `number`, repeated int32."""
    data = b"".join(varint(value) for value in values)
    return varint(number << 3 | 2) + varint(len(data)) + data if data else b""


def map_entry(number, key, value):
    """One entry of a map<int32, string>."""
    data = varint(1 << 3) + varint(key) + varint(2 << 3 | 2) + varint(len(value.encode())) + value.encode()
    return varint(number << 3 | 2) + varint(len(data)) + data


USERS = {1: "trinity", 2: "morpheus", 300000: "Zoë", 2147483647: "the last one", -7: "negative"}

# method, hand-built request, generated request, hand-built answer or status, generated answer's type
OK_CALLS = [
    ("/user.User/GetUser", integer(1, 1), user_pb2.UserGetRequest(id=1), text(1, "trinity"), user_pb2.UserOutResponse),
    ("/user.User/GetUser", integer(1, 300000), user_pb2.UserGetRequest(id=300000), text(1, "Zoë"),
     user_pb2.UserOutResponse),
    ("/user.User/GetUser", integer(1, 2147483647), user_pb2.UserGetRequest(id=2147483647), text(1, "the last one"),
     user_pb2.UserOutResponse),
    ("/user.User/GetUser", integer(1, -7), user_pb2.UserGetRequest(id=-7), text(1, "negative"),
     user_pb2.UserOutResponse),
    ("/user.User/UserUpdate", integer(1, 2) + text(2, "Morpheus"), user_pb2.UserUpdateRequest(id=2, username="Morpheus"),
     text(1, "Morpheus"), user_pb2.UserOutResponse),
    ("/user.User/UserUpdate", integer(1, 2) + text(2, "morpheus"), user_pb2.UserUpdateRequest(id=2, username="morpheus"),
     text(1, "morpheus"), user_pb2.UserOutResponse),
    ("/user_post.UserPost/GetByUsername", text(1, "morpheus"), user_post_pb2.GetByUsernameRequest(username="morpheus"),
     integer(1, 2), user_post_pb2.UserId),
    ("/user_post.UserPost/GetByUsername", text(1, "negative"), user_post_pb2.GetByUsernameRequest(username="negative"),
     integer(1, -7), user_post_pb2.UserId),
    ("/user_post.UserPost/GetByID", integer(1, 1), user_post_pb2.GetByIdRequest(id=1), text(1, "trinity"),
     user_post_pb2.UserUsername),
    ("/user_post.UserPost/GetByIDs", b"", user_post_pb2.GetByIdsRequest(), b"", user_post_pb2.UsersMapResponse),
    ("/user_post.UserPost/GetByIDs", packed(1, [300000, 5]), user_post_pb2.GetByIdsRequest(ids=[300000, 5]),
     map_entry(1, 300000, "Zoë"), user_post_pb2.UsersMapResponse),
    ("/user_post.UserPost/GetByIDs", packed(1, [-7]), user_post_pb2.GetByIdsRequest(ids=[-7]),
     map_entry(1, -7, "negative"), user_post_pb2.UsersMapResponse),
]

FAILING_CALLS = [
    ("/user.User/GetUser", b"", user_pb2.UserGetRequest(), grpc.StatusCode.NOT_FOUND, "Not found"),
    ("/user.User/DeleteUser", integer(1, 404), user_pb2.UserDeleteRequest(id=404), grpc.StatusCode.NOT_FOUND, "Not found"),
    ("/user_post.UserPost/GetByID", integer(1, 404), user_post_pb2.GetByIdRequest(id=404), grpc.StatusCode.NOT_FOUND,
     "Not found"),
    ("/user_post.UserPost/GetByUsername", text(1, "nobody"), user_post_pb2.GetByUsernameRequest(username="nobody"),
     grpc.StatusCode.NOT_FOUND, "Not found"),
    ("/user.User/UserUpdate", integer(1, 1) + text(2, "morpheus"), user_pb2.UserUpdateRequest(id=1, username="morpheus"),
     grpc.StatusCode.INVALID_ARGUMENT, "username is already taken"),
]


class WireTest(unittest.TestCase):
    """Raw bytes on the wire: channels without serializers."""

    @classmethod
    def setUpClass(cls):
        cls.service = userd_service.Service(workers=1)
        cls.service.start()
        rows = ", ".join(f"({auth_id}, '{name}')" for auth_id, name in USERS.items())
        cls.service.sql(f'INSERT INTO "user" (id_auth, username) VALUES {rows}; INSERT INTO username_claim'
                        ' (id_auth, canonical, username) SELECT id_auth, lower(username), username FROM "user"')
        cls.channels = {"user.User": grpc.insecure_channel(cls.service.gateway),
                        "user_post.UserPost": grpc.insecure_channel(cls.service.post)}

    @classmethod
    def tearDownClass(cls):
        for channel in cls.channels.values():
            channel.close()
        cls.service.stop()

    def call(self, method, data):
        """Bytes for bytes."""
        return self.channels[method.split("/")[1]].unary_unary(method)(data, timeout=userd_service.TIMEOUT_S)

    def test_both_clients_send_the_same_bytes(self):
        """What is generated from our files is what the contract's numbers make."""
        for method, by_hand, generated, *_ in OK_CALLS + FAILING_CALLS:
            with self.subTest(method=method, request=generated):
                self.assertEqual(generated.SerializeToString(deterministic=True), by_hand)

    def test_both_clients_read_the_same_answers(self):
        """The answer's bytes are the contract's, and the generated type reads and writes them alike."""
        for method, by_hand, _, expected, response_type in OK_CALLS:
            with self.subTest(method=method, request=by_hand):
                answer = self.call(method, by_hand)
                self.assertEqual(answer, expected)
                self.assertEqual(response_type.FromString(answer).SerializeToString(deterministic=True), answer)

    def test_a_map_of_many_is_the_same_in_any_order(self):
        """Entries of a map come in no order: the set of them is compared."""
        answer = self.call("/user_post.UserPost/GetByIDs", packed(1, list(USERS)))
        for auth_id, name in USERS.items():
            self.assertIn(map_entry(1, auth_id, name), answer)
        self.assertEqual(len(answer), sum(len(map_entry(1, auth_id, name)) for auth_id, name in USERS.items()))
        self.assertEqual(dict(user_post_pb2.UsersMapResponse.FromString(answer).users), USERS)

    def test_errors_are_the_contracts(self):
        """Status and message."""
        for method, by_hand, _, status, message in FAILING_CALLS:
            with self.subTest(method=method, request=by_hand):
                with self.assertRaises(grpc.RpcError) as caught:
                    self.call(method, by_hand)
                self.assertEqual((caught.exception.code(), caught.exception.details()), (status, message))

    def test_delete_answers_with_no_bytes(self):
        """Empty is empty."""
        self.service.sql("""INSERT INTO "user" (id_auth, username) VALUES (77, 'to be deleted')""")
        self.assertEqual(self.call("/user.User/DeleteUser", integer(1, 77)), b"")


if __name__ == "__main__":
    unittest.main()
