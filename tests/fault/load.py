"""What is done to the service while faults strike: operations that follow from a seed alone, by peers that know no more than the
platform's do."""
import collections
import json
import random
import threading
import time

import grpc
import kafka
import psycopg2

from user import user_pb2

IDS_PER_ROUND = 1000
USERS = 120
COUNTER_KEYS = 6
GRPC_THREADS = 3
COUNTER_THREADS = 3
CALL_TIMEOUT_S = 8
SANE = {"OK", "NOT_FOUND", "INVALID_ARGUMENT", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}

Operation = collections.namedtuple("Operation", "at kind arguments")

GARBAGE = (b"", b"not JSON", b"[]", b"17", b"null", b"{", b'{"username": "neo"}', b'{"id": "17", "username": "neo"}',
           b'{"id": 17.5, "username": "neo"}', b'{"id": 9999999999, "username": "neo"}', b'{"id": true, "username": "neo"}',
           b'{"id": 1, "id": "2", "username": "neo"}', b'\xff\xfe{"id": 17}', b'{"id": 17, "username": "neo"} more')


def new_name(auth_id):
    """The only name that this user is ever renamed to."""
    return f"name {auth_id}"


def plan(seed, number, duration_s):
    """The operations of one round: {who: [Operation]}, each list in the order of `at`."""
    random_ = random.Random(f"operations {seed} {number}")
    base = (number + 1) * IDS_PER_ROUND
    ids = [base + i for i in range(USERS)]
    events, calls, counters = [], [], []
    for auth_id in ids:
        at = random_.uniform(0, duration_s * 0.6)
        value = json.dumps({"id": auth_id, "username": f"user {auth_id}"}).encode()
        events.append(Operation(at, "registration", (value,)))
        if random_.random() < 0.15:
            again = random_.uniform(0, duration_s)
            other = json.dumps({"id": auth_id, "username": f"again {auth_id}"}).encode()
            events.append(Operation(again, "registration", (random_.choice((value, other)),)))
    for auth_id in random_.sample(ids, USERS // 3):
        value = json.dumps({"id": auth_id}).encode()
        for _ in range(random_.choice((1, 1, 1, 2))):
            events.append(Operation(random_.uniform(0, duration_s), "admin_delete_user", (value,)))
    for _ in range(24):
        topic = random_.choice(("registration", "admin_delete_user"))
        events.append(Operation(random_.uniform(0, duration_s), topic, (random_.choice(GARBAGE),)))
    for auth_id in random_.sample(ids, USERS // 2):
        calls.append(Operation(random_.uniform(duration_s * 0.2, duration_s), "delete", (auth_id,)))
    for auth_id in random_.sample(ids, USERS // 2):
        calls.append(Operation(random_.uniform(duration_s * 0.2, duration_s), "rename", (auth_id, new_name(auth_id))))
    for auth_id in random_.sample(ids, USERS // 4):
        calls.append(Operation(random_.uniform(0, duration_s), "get", (auth_id,)))
    for _ in range(COUNTER_KEYS * 15):
        # Seconds between the statement and its COMMIT, and whether it commits at all.
        late_s = random_.choice((0, 0, 0, 0, 0.01, 0.05, 0.2))
        counters.append(Operation(random_.uniform(0, duration_s), "count",
                                  (base + USERS + random_.randrange(COUNTER_KEYS), late_s, random_.random() < 0.9)))
    # A transaction that stays open for long, and the next one of the same key, which waits for its end: in this order they are
    # published, though the relay has read much younger rows before.
    if random_.random() < 0.25:
        counters.append(Operation(0, "count", (base + USERS + COUNTER_KEYS, 2.6, True)))
        # When it has begun: connections take their time.
        counters.append(Operation(0.7, "count", (base + USERS + COUNTER_KEYS, 0, True)))
    return {name: sorted(operations) for name, operations in
            (("events", events), ("calls", calls), ("counters", counters))}


class Load:
    """Runs the operations of a round, and remembers what it was told."""

    def __init__(self, stand):
        self.stand = stand
        self.producer = kafka.KafkaProducer(bootstrap_servers=stand.servers, acks="all", retries=1000, linger_ms=2,
                                            max_in_flight_requests_per_connection=1, reconnect_backoff_max_ms=300,
                                            request_timeout_ms=20000, max_block_ms=300000)
        self.lock = threading.Lock()
        self.codes = collections.Counter()
        self.failed = []          # (begin, end, code and words) of calls that were not answered
        self.operations = 0
        self.answered = set()     # ("delete", id) and ("rename", id, name) that the service has said yes to
        self.asked_to_delete = set()
        self.odd = []             # answers that no fault excuses
        self.failures = []        # what went wrong in a peer of ours

    def close(self):
        """Gives up what is not sent."""
        self.producer.close(timeout=1)

    def note(self, code, operation):
        """One call's end."""
        with self.lock:
            self.codes[code] += 1
            self.operations += 1
            if code == "OK" and operation.kind != "get":
                self.answered.add((operation.kind, *operation.arguments))
            if code not in SANE:
                self.odd.append(f"{operation.kind} {operation.arguments}: {code}")

    def call(self, channel, operation):
        """One gRPC call; never raises."""
        auth_id = operation.arguments[0]
        if operation.kind == "delete":
            method, request = "DeleteUser", user_pb2.UserDeleteRequest(id=auth_id)
            with self.lock:
                self.asked_to_delete.add(auth_id)
        elif operation.kind == "rename":
            method, request = "UserUpdate", user_pb2.UserUpdateRequest(id=auth_id, username=operation.arguments[1])
        else:
            method, request = "GetUser", user_pb2.UserGetRequest(id=auth_id)
        invoke = channel.unary_unary(f"/user.User/{method}", type(request).SerializeToString)
        begun = time.monotonic()
        try:
            invoke(request, timeout=CALL_TIMEOUT_S)
            self.note("OK", operation)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                with self.lock:
                    self.failed.append((begun, time.monotonic(), f"{error.code().name} {error.details()}"))
            self.note(error.code().name, operation)

    def run_calls(self, operations, begin):
        """A Gateway."""
        # The master's address changes when it is started anew, and so may the channel.
        address, channel = None, None
        for operation in operations:
            time.sleep(max(0, begin + operation.at - time.monotonic()))
            if self.stand.main.gateway != address:
                if channel is not None:
                    channel.close()
                address = self.stand.main.gateway
                # The "minimum" is the time that one attempt to connect has.
                channel = grpc.insecure_channel(address, options=(("grpc.initial_reconnect_backoff_ms", 50),
                                                                  ("grpc.min_reconnect_backoff_ms", 5000),
                                                                  ("grpc.max_reconnect_backoff_ms", 200)))
            self.call(channel, operation)
        if channel is not None:
            channel.close()

    def run_events(self, operations, begin):
        """Auth and the administrators' service: no keys, no headers."""
        for operation in operations:
            time.sleep(max(0, begin + operation.at - time.monotonic()))
            self.producer.send(operation.kind, operation.arguments[0])
            with self.lock:
                self.operations += 1
        self.producer.flush(timeout=300)

    def count(self, connection, operation):
        """One transaction of another writer of the outbox: the next number of a key, drawn under the key's row lock."""
        auth_id, late_s, is_committed = operation.arguments
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO oracle.counters VALUES (%s, 1) ON CONFLICT (id_auth) DO UPDATE"
                           " SET n = counters.n + 1 RETURNING n", (auth_id,))
            value = json.dumps({"id": auth_id, "n": cursor.fetchone()[0]})
            cursor.execute("INSERT INTO outbox (destination, id_auth, key, value) VALUES (1, %s, %s, %s)",
                           (auth_id, str(auth_id).encode(), value.encode()))
        time.sleep(late_s)
        if is_committed:
            connection.commit()
        else:
            connection.rollback()

    def run_counters(self, operations, begin):
        """Tries each operation again while the database is away; what is committed the audit knows."""
        connection = None
        for operation in operations:
            time.sleep(max(0, begin + operation.at - time.monotonic()))
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                try:
                    if connection is None:
                        connection = psycopg2.connect(self.stand.admin_url, connect_timeout=3)
                    self.count(connection, operation)
                    break
                except psycopg2.Error:
                    connection = None
                    time.sleep(0.1)
            with self.lock:
                self.operations += 1
        if connection is not None:
            connection.close()

    def guard(self, function, operations, begin):
        """A thread that dies is a failure of the run."""
        try:
            function(operations, begin)
        except Exception as error:  # pylint: disable=broad-except
            with self.lock:
                self.failures.append(f"{function.__name__}: {error!r}")

    def start(self, planned):
        """The threads of one round; join them."""
        begin = time.monotonic()
        shares = [(self.run_events, planned["events"])]
        shares += [(self.run_calls, planned["calls"][i::GRPC_THREADS]) for i in range(GRPC_THREADS)]
        shares += [(self.run_counters, planned["counters"][i::COUNTER_THREADS]) for i in range(COUNTER_THREADS)]
        threads = [threading.Thread(target=self.guard, args=(*share, begin), daemon=True) for share in shares]
        for thread in threads:
            thread.start()
        return threads
