#!/usr/bin/python3
"""Calls whose deadline passes because the database stands still: no client is to blame for them."""
import contextlib
import tempfile
import unittest

import grpc
import psycopg2

import userd_service

GET_USER = "/user.User/GetUser"
USER_1 = b"\x08\x01"
AT_A_TIME = 90
ROUNDS = 3  # an address may take back a hundred at a time
# The gRPC core library tells the server more: 3.01 s. The client's own deadline is over before.
DEADLINE_S = 3.001
SLACK_S = 30


class ExpiredCallsTest(unittest.TestCase):
    """With hardly any tolerance for calls that an address takes back."""

    def setUp(self):
        self.log = tempfile.TemporaryFile("w+", prefix="userd-interop-log.")  # pylint: disable=consider-using-with
        self.addCleanup(self.log.close)
        self.service = userd_service.Service(workers=1, settings="limits = { cancel_rate_per_address = 50; };")
        self.service.log = self.log
        self.service.start()
        self.addCleanup(self.service.stop)
        self.service.sql("""INSERT INTO "user" (id_auth, username) VALUES (1, 'somebody')""")

    def test_who_gives_up_at_its_deadline_takes_nothing_back(self):
        """Its RST_STREAM is here a moment before the deadline that the server knows."""
        with grpc.insecure_channel(self.service.gateway, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            method = channel.unary_unary(GET_USER)
            method(USER_1, timeout=SLACK_S)
            with contextlib.closing(psycopg2.connect(self.service.database_url)) as rival, rival.cursor() as cursor:
                cursor.execute('LOCK TABLE "user" IN ACCESS EXCLUSIVE MODE')
                for _ in range(ROUNDS):
                    futures = [method.future(USER_1, timeout=DEADLINE_S) for _ in range(AT_A_TIME)]
                    codes = {future.code() for future in futures}
                    self.assertLessEqual(codes, {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE})
            method(USER_1, timeout=SLACK_S, wait_for_ready=True)
        totals = self.service.status()["totals"]
        self.log.seek(0)
        self.assertEqual(totals["connections_reset"], 0, self.log.read()[-5000:])
        self.assertLess(totals["calls"]["cancelled"], AT_A_TIME // 2)  # some may have waited for long to be read


if __name__ == "__main__":
    unittest.main()
