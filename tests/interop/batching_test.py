#!/usr/bin/python3
"""Batches are nobody's business but the service's: however calls are gathered on their way to the database, each has its own answer,
no read is older than its call, and what is wrong with one call hurts no other. With grpcio as the client, on two workers, and a
proxy that holds back the database's answers so that calls queue up and go together, and that turns round the order of their rows.

USERD_TEST_CALLS: random calls in the model's test (2000).
"""
import collections
import os
import random
import tempfile
import threading
import time
import unittest

import grpc
import psycopg2

import held_database
import user_history
import userd_service

GENERATED = tempfile.TemporaryDirectory(prefix="userd-generated.")
userd_service.generate_clients(GENERATED.name)
# pylint: disable=wrong-import-position
from user import user_pb2  # noqa: E402
from user_post import user_post_pb2  # noqa: E402

OK, NOT_FOUND, INVALID = grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT
WORKERS = 2
RANDOM_CALLS = int(os.environ.get("USERD_TEST_CALLS", "2000"))
UNDER_WAY = 96
NOBODY = 2_000_000_000
TAKEN = "username is already taken"


def read_names(data):
    """The answer of GetByIDs, in which each id stands once: protobuf takes the last of two entries for a key, and says nothing."""
    answer = user_post_pb2.UsersMapResponse.FromString(data)
    needed = user_post_pb2.UsersMapResponse(users=dict(answer.users)).ByteSize()
    assert needed == len(data), f"{len(data)} bytes for what {needed} can say: {answer}"
    return answer


METHODS = {
    "GetUser": ("gateway", user_pb2.UserGetRequest, user_pb2.UserOutResponse.FromString),
    "UserUpdate": ("gateway", user_pb2.UserUpdateRequest, user_pb2.UserOutResponse.FromString),
    "DeleteUser": ("gateway", user_pb2.UserDeleteRequest, user_pb2.Empty.FromString),
    "GetByID": ("post", user_post_pb2.GetByIdRequest, user_post_pb2.UserUsername.FromString),
    "GetByIDs": ("post", user_post_pb2.GetByIdsRequest, read_names),
    "GetByUsername": ("post", user_post_pb2.GetByUsernameRequest, user_post_pb2.UserId.FromString),
}
SERVICES = {"gateway": "user.User", "post": "user_post.UserPost"}


class HeldService(userd_service.Service):
    """userd whose way to the database can be held."""

    def write_config(self):
        """The database's address becomes the proxy's."""
        port = userd_service.read_handle(os.environ["USERD_TEST_POSTGRES"])["port"]
        self.proxy = held_database.HeldDatabase("127.0.0.1", int(port))
        self.direct_url = self.database_url
        self.database_url = self.database_url.replace(f":{port}/", f":{self.proxy.port}/")
        super().write_config()

    def worker_numbers(self, name):
        """One number of each worker, by slot."""
        return {worker["slot"]: worker[name] for worker in self.status()["workers"]}

    def stop(self):
        """The proxy goes last: userd ends cleanly with its database."""
        super().stop()
        self.proxy.close()


class Call:
    """One call under way. `begun` and `ended` enclose the time in which it can have taken effect."""

    def __init__(self, invoke, method, request, on_end=None):
        self.method, self.request = method, request
        self.over = threading.Event()
        self.on_end = on_end
        self.ended = None
        self.begun = time.monotonic_ns()
        self.future = invoke.future(request, timeout=userd_service.TIMEOUT_S)
        self.future.add_done_callback(self._end)

    def _end(self, _):
        self.ended = time.monotonic_ns()
        self.over.set()
        if self.on_end:
            self.on_end()

    def status(self):
        """Waits for the end."""
        assert self.over.wait(userd_service.TIMEOUT_S), f"{self.method} does not end"
        return self.future.code()

    def message(self):
        """The status's."""
        self.status()
        return self.future.details()

    def answer(self):
        """Of an OK call, as a plain value."""
        assert self.status() == OK, f"{self.method}: {self.status()} {self.message()}"
        answer = self.future.result()
        if self.method == "GetByIDs":
            return dict(answer.users)
        if self.method == "GetByUsername":
            return answer.id
        return None if self.method == "DeleteUser" else answer.username


class Peer:
    """A client with a connection of its own to each of the two ports, both on one worker."""

    def __init__(self, service, slot):
        self.channels = {port: connect_to(service, getattr(service, port), slot) for port in SERVICES}
        self.invoke = {}
        for method, (port, request, read) in METHODS.items():
            self.invoke[method] = self.channels[port].unary_unary(f"/{SERVICES[port]}/{method}", request.SerializeToString, read)

    def start(self, method, on_end=None, **fields):
        """Begins a call."""
        return Call(self.invoke[method], method, METHODS[method][1](**fields), on_end)

    def close(self):
        """Both."""
        for channel in self.channels.values():
            channel.close()


def connect_to(service, address, slot):
    """A connection that this worker serves: the master gives each new one to the worker with the fewest."""
    spare = []
    try:
        for _ in range(8 * WORKERS):
            before = service.worker_numbers("connections")
            channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
            grpc.channel_ready_future(channel).result(userd_service.TIMEOUT_S)
            if service.worker_numbers("connections")[slot] > before[slot]:
                return channel
            spare.append(channel)
    finally:
        for channel in spare:
            channel.close()
    raise AssertionError(f"no connection comes to worker {slot}")


class HistoryTest(unittest.TestCase):
    """The judge itself: what can have been, and what cannot."""

    def then(self, is_possible, *steps):
        """Steps as (begun, ended, kind, argument, result) of a user whose name was "old"."""
        self.assertEqual(user_history.is_linearizable("old", [user_history.Step(*step) for step in steps]), is_possible)

    def test_takes_any_order_of_what_overlaps(self):
        """The read may come before the rename, or after it."""
        for name in ("old", "new"):
            self.then(True, (0, 9, "rename", "new", True), (1, 8, "read", None, name))

    def test_refuses_a_read_of_what_was_over(self):
        """The old name after the new one was given, or after it was read."""
        self.then(False, (0, 1, "rename", "new", True), (2, 3, "read", None, "old"))
        self.then(False, (0, 9, "rename", "new", True), (1, 2, "read", None, "new"), (3, 4, "read", None, "old"))
        self.then(False, (0, 1, "rename", "new", True), (2, 3, "holds", "old", True))

    def test_refuses_what_no_order_explains(self):
        """Another's name, two deletions, a rename of somebody who is gone."""
        self.then(False, (0, 1, "read", None, "other"))
        self.then(False, (0, 9, "delete", None, True), (0, 9, "delete", None, True))
        self.then(True, (0, 9, "delete", None, True), (0, 9, "delete", None, False), (0, 9, "rename", "new", True))
        self.then(False, (0, 1, "delete", None, True), (2, 9, "rename", "new", True))


class BatchingTest(unittest.TestCase):
    """One service for all of them: each test has ids of its own."""

    @classmethod
    def setUpClass(cls):
        cls.service = HeldService(workers=WORKERS)
        cls.service.start()
        cls.slots = sorted(cls.service.worker_numbers("connections"))
        cls.peers = [Peer(cls.service, slot) for slot in cls.slots]
        cls.next_id = 1

    @classmethod
    def tearDownClass(cls):
        for peer in cls.peers:
            peer.close()
        cls.service.stop()

    # ---- given

    def given_users(self, count):
        """New ones; id -> name."""
        first = type(self).next_id
        type(self).next_id += count
        users = {number: f"user{number}" for number in range(first, first + count)}
        values = ", ".join(f"({number}, '{name}')" for number, name in users.items())
        self.service.sql(f'INSERT INTO "user" (id_auth, username) VALUES {values}; '  # one transaction: userd sees to claims as well
                         "INSERT INTO username_claim (id_auth, canonical, username) "
                         f'SELECT id_auth, username, username FROM "user" WHERE id_auth >= {first}')
        return users

    def when_held(self, number, primer):
        """With the worker's answers held back: begins the primer, and returns when the database has answered it: what is begun
        from then on comes after it, and queues up."""
        call = self.peers[number].start(**primer)
        userd_service.wait_for(lambda: self.service.proxy.is_holding(self.slots[number]), "an answer that is held")
        return call

    def then_went_together(self, number, before, least):
        """At least so many calls of this worker shared a statement with another one."""
        def saved():
            asked = self.service.worker_numbers("batched_requests")[self.slots[number]] - before["batched_requests"]
            return asked - (self.service.worker_numbers("batches")[self.slots[number]] - before["batches"])
        userd_service.wait_for(lambda: saved() >= least, f"{least} calls that shared a statement")

    def batch_numbers(self, number):
        """For then_went_together()."""
        return {name: self.service.worker_numbers(name)[self.slots[number]] for name in ("batches", "batched_requests")}

    # ---- then

    def then_explained(self, users, calls):
        """Each user's history is one that can have been; the names in the database are its last word."""
        steps = collections.defaultdict(list)
        for call in calls:
            for auth_id, step in steps_of(call, users):
                steps[auth_id].append(step)
        end = time.monotonic_ns()
        rows = self.service.sql(f'SELECT id_auth, username FROM "user" WHERE id_auth BETWEEN {min(users)} AND {max(users)}')
        names = dict(line.split("|") for line in rows.splitlines())
        for auth_id, name in users.items():
            last = user_history.Step(end, end, "read", None, names.get(str(auth_id)))
            self.assertTrue(user_history.is_linearizable(name, steps[auth_id] + [last]),
                            f"user {auth_id}: no order of these explains them: {sorted(steps[auth_id], key=lambda one: one.begun)}")

    # ---- tests

    def test_random_calls_get_the_answers_of_a_model(self):
        """All methods at once, through both workers; some names are asked for that nobody has."""
        users = self.given_users(24)
        chance = random.Random(time.time_ns())
        slots = threading.Semaphore(UNDER_WAY)
        names = {auth_id: [name] for auth_id, name in users.items()}
        calls = []
        for number in range(RANDOM_CALLS):
            self.assertTrue(slots.acquire(timeout=userd_service.TIMEOUT_S), "calls do not end")
            method, fields = draw_call(chance, number, names)
            calls.append(chance.choice(self.peers).start(method, slots.release, **fields))
        self.then_explained(users, calls)

    def test_a_read_is_never_older_than_its_call(self):
        """A statement that has seen the old name is still on its way back when another worker renames the user: who asks the first
        worker after that gets the new name."""
        users = self.given_users(2)
        for auth_id in users:
            old, new = users[auth_id], f"renamed{auth_id}"
            with self.service.proxy.hold(self.slots[1]):
                early = self.when_held(1, {"method": "GetByIDs", "ids": [auth_id]})
                self.assertEqual(self.peers[0].start("UserUpdate", id=auth_id, username=new).answer(), new)
                late = [self.peers[1].start("GetUser", id=auth_id) for _ in range(12)]
                late_ids = self.peers[1].start("GetByIDs", ids=[auth_id, NOBODY])
                late_holder = self.peers[1].start("GetByUsername", username=new)
                late_nobody = self.peers[1].start("GetByUsername", username=old)
            self.assertEqual(early.answer(), {auth_id: old})
            self.assertEqual([call.answer() for call in late], [new] * 12)
            self.assertEqual(late_ids.answer(), {auth_id: new})
            self.assertEqual(late_holder.answer(), auth_id)
            self.assertEqual(late_nobody.status(), NOT_FOUND)

    def test_a_read_after_a_deletion_finds_nobody(self):
        """As above."""
        (auth_id, name), = self.given_users(1).items()
        with self.service.proxy.hold(self.slots[1]):
            early = self.when_held(1, {"method": "GetUser", "id": auth_id})
            self.peers[0].start("DeleteUser", id=auth_id).answer()
            late = [self.peers[1].start("GetUser", id=auth_id), self.peers[1].start("GetByID", id=auth_id),
                    self.peers[1].start("GetByUsername", username=name)]
            late_ids = self.peers[1].start("GetByIDs", ids=[auth_id])
        self.assertEqual(early.answer(), name)
        self.assertEqual([call.status() for call in late], [NOT_FOUND] * 3)
        self.assertEqual(late_ids.answer(), {})

    def test_a_writer_reads_its_own_write_elsewhere(self):
        """Without any hold: rename here, read there at once, while others ask for the same user all the time."""
        (auth_id, _), = self.given_users(1).items()
        is_over = threading.Event()
        slots = threading.Semaphore(16)

        def disturb():
            while not is_over.is_set() and slots.acquire(timeout=userd_service.TIMEOUT_S):
                self.peers[1].start("GetUser", slots.release, id=auth_id)
        thread = threading.Thread(target=disturb)
        thread.start()
        try:
            for number in range(50):
                name = f"own{auth_id}_{number}"
                self.peers[0].start("UserUpdate", id=auth_id, username=name).answer()
                reads = [self.peers[1].start("GetUser", id=auth_id), self.peers[1].start("GetByID", id=auth_id)]
                holder = self.peers[1].start("GetByUsername", username=name)
                self.assertEqual([call.answer() for call in reads], [name, name])
                self.assertEqual(holder.answer(), auth_id)
        finally:
            is_over.set()
            thread.join()

    def test_a_bad_call_in_a_batch_hurts_only_itself(self):
        """Many renames in one statement; one wants a name that is taken, one an absent user's, one breaks a rule."""
        users = self.given_users(40)
        ids = list(users)
        writer = self.peers[1]
        before = self.batch_numbers(1)
        with self.service.proxy.hold(self.slots[1]):
            first = self.when_held(1, {"method": "UserUpdate", "id": ids[0], "username": f"primer{ids[0]}"})
            good = {auth_id: writer.start("UserUpdate", id=auth_id, username=f"good{auth_id}") for auth_id in ids[2:30]}
            taken = writer.start("UserUpdate", id=ids[30], username=users[ids[1]].upper())
            absent = writer.start("UserUpdate", id=NOBODY, username="somebody else")
            invalid = writer.start("UserUpdate", id=ids[31], username="  ")
            more = {auth_id: writer.start("UserUpdate", id=auth_id, username=f"more{auth_id}") for auth_id in ids[32:]}
        self.assertEqual(first.answer(), f"primer{ids[0]}")
        self.assertEqual({auth_id: call.answer() for auth_id, call in good.items()}, {auth_id: f"good{auth_id}" for auth_id in good})
        self.assertEqual({auth_id: call.answer() for auth_id, call in more.items()}, {auth_id: f"more{auth_id}" for auth_id in more})
        self.assertEqual((taken.status(), taken.message()), (INVALID, TAKEN))
        self.assertEqual(absent.status(), NOT_FOUND)
        self.assertEqual(invalid.status(), INVALID)
        self.then_went_together(1, before, 20)
        names = self.peers[0].start("GetByIDs", ids=ids).answer()
        self.assertEqual(names, users | {ids[0]: f"primer{ids[0]}"} | {auth_id: f"good{auth_id}" for auth_id in good} |
                         {auth_id: f"more{auth_id}" for auth_id in more})

    def test_a_name_that_is_taken_meanwhile_hurts_only_its_own_call(self):
        """The statement saw the name free, and meets it taken: PostgreSQL refuses all of it, the service only that one call."""
        users = self.given_users(12)
        ids = list(users)
        rival = psycopg2.connect(self.service.direct_url)
        try:
            with rival.cursor() as cursor:
                cursor.execute("UPDATE username_claim SET canonical = %s WHERE id_auth = %s", (f"rival{ids[0]}", ids[0]))
            with self.service.proxy.hold(self.slots[1]):
                first = self.when_held(1, {"method": "UserUpdate", "id": ids[1], "username": f"primer{ids[1]}"})
                calls = {auth_id: self.peers[1].start("UserUpdate", id=auth_id, username=f"free{auth_id}") for auth_id in ids[2:7]}
                loser = self.peers[1].start("UserUpdate", id=ids[7], username=f"rival{ids[0]}")
                calls |= {auth_id: self.peers[1].start("UserUpdate", id=auth_id, username=f"free{auth_id}") for auth_id in ids[8:]}
            userd_service.wait_for(self.has_waiter, "a statement that waits for the rival")
            rival.commit()
        finally:
            rival.close()
        self.assertEqual(first.answer(), f"primer{ids[1]}")
        self.assertEqual({auth_id: call.answer() for auth_id, call in calls.items()}, {auth_id: f"free{auth_id}" for auth_id in calls})
        self.assertEqual((loser.status(), loser.message()), (INVALID, TAKEN))
        self.assertEqual(self.peers[0].start("GetUser", id=ids[7]).answer(), users[ids[7]])

    def has_waiter(self):
        """Whether a statement waits for another's transaction."""
        return self.service.sql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                                "AND wait_event_type = 'Lock'") != "0"

    def test_equal_keys_in_one_batch_have_each_its_answer(self):
        """Equal ids are asked for once, and answered to all who asked; also where one call names an id several times."""
        users = self.given_users(3)
        one, two, three = users
        reader = self.peers[1]
        before = self.batch_numbers(1)
        with self.service.proxy.hold(self.slots[1]):
            self.when_held(1, {"method": "GetUser", "id": one})
            self.when_held(1, {"method": "GetUser", "id": two})
            calls = [(reader.start("GetUser", id=auth_id), users.get(auth_id)) for auth_id in (one, two, NOBODY, one, two, NOBODY) * 10]
            lists = [(reader.start("GetByIDs", ids=[one, one, NOBODY, three, one]), {one: users[one], three: users[three]}),
                     (reader.start("GetByIDs", ids=[three, one]), {one: users[one], three: users[three]}),
                     (reader.start("GetByIDs", ids=[NOBODY, NOBODY]), {}), (reader.start("GetByIDs"), {})]
            holders = [(reader.start("GetByUsername", username=name), auth_id) for auth_id, name in users.items() for _ in range(10)]
            nobodies = [reader.start("GetByUsername", username="no such name") for _ in range(5)]
        for call, name in calls:
            self.assertEqual(call.answer() if call.status() == OK else None, name)
        for call, expected in lists + holders:
            self.assertEqual(call.answer(), expected)
        self.assertEqual([call.status() for call in nobodies], [NOT_FOUND] * 5)
        self.then_went_together(1, before, 50)

    def test_renames_and_deletions_of_one_user_have_an_order(self):
        """Both workers hold a pile of contradicting wishes for the same users, and let go of them at once."""
        users = self.given_users(10)
        calls = []
        with self.service.proxy.hold(*self.slots):
            for number in range(WORKERS):
                self.when_held(number, {"method": "GetUser", "id": NOBODY})
            for turn in range(3):
                for auth_id in users:
                    for number, peer in enumerate(self.peers):
                        calls.append(peer.start("UserUpdate", id=auth_id, username=f"race{auth_id}_{turn}_{number}"))
                        calls.append(peer.start("GetUser", id=auth_id))
                        if turn == 1:
                            calls.append(peer.start("DeleteUser", id=auth_id))
        self.then_explained(users, calls)
        deletions = [call for call in calls if call.method == "DeleteUser"]
        self.assertEqual(sum(call.status() == OK for call in deletions), len(users), "each user is deleted once")

    def test_two_users_who_want_one_name_in_one_batch(self):
        """One of them gets it; the other one is told, and keeps its own."""
        users = self.given_users(8)
        ids = list(users)
        with self.service.proxy.hold(self.slots[1]):
            self.when_held(1, {"method": "UserUpdate", "id": ids[0], "username": f"primer{ids[0]}"})
            calls = {auth_id: self.peers[1].start("UserUpdate", id=auth_id, username=f"wanted{ids[0]}") for auth_id in ids[1:]}
        winners = [auth_id for auth_id, call in calls.items() if call.status() == OK]
        self.assertEqual(len(winners), 1, "one of them")
        for auth_id, call in calls.items():
            if auth_id not in winners:
                self.assertEqual((call.status(), call.message()), (INVALID, TAKEN))
        self.assertEqual(self.peers[0].start("GetByUsername", username=f"wanted{ids[0]}").answer(), winners[0])


def draw_call(chance, number, names):
    """A method and its request. `names` grows with those that are given."""
    auth_id = chance.choice(list(names))
    method = chance.choices(("GetUser", "GetByID", "GetByIDs", "GetByUsername", "UserUpdate", "DeleteUser"), (30, 15, 10, 15, 29, 1))[0]
    if method == "GetByIDs":
        return method, {"ids": chance.choices(list(names), k=6) + [NOBODY]}
    if method == "GetByUsername":
        return method, {"username": chance.choice(names[auth_id][-4:])}
    if method == "UserUpdate":
        names[auth_id].append(f"name{auth_id}_{number}")
        return method, {"id": auth_id, "username": names[auth_id][-1]}
    return method, {"id": auth_id}


def steps_of(call, users):
    """What one call says of whom: [(id, step)]. Statuses that no call here may have fail."""
    status, request = call.status(), call.request
    assert status in (OK, NOT_FOUND), f"{call.method}: {status} {call.message()}"
    is_found = status == OK
    span = (call.begun, call.ended)
    if call.method == "GetByIDs":
        answer = call.answer()
        assert set(answer) <= set(request.ids), f"{set(answer) - set(request.ids)} were not asked for"
        return [(auth_id, user_history.Step(*span, "read", None, answer.get(auth_id))) for auth_id in set(request.ids) if auth_id in users]
    if call.method == "GetByUsername":
        owner = int(request.username.removeprefix("name").removeprefix("user").partition("_")[0])
        assert not is_found or call.answer() == owner, f"{request.username} is said to be {call.answer()}'s"
        return [(owner, user_history.Step(*span, "holds", request.username, is_found))]
    if call.method == "UserUpdate":
        assert not is_found or call.answer() == request.username, f"{request.username} was stored as {call.answer()}"
        return [(request.id, user_history.Step(*span, "rename", request.username, is_found))]
    if call.method == "DeleteUser":
        return [(request.id, user_history.Step(*span, "delete", None, is_found))]
    return [(request.id, user_history.Step(*span, "read", None, call.answer() if is_found else None))]


if __name__ == "__main__":
    unittest.main()
