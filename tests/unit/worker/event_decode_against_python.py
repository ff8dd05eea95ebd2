#!/usr/bin/python3
"""event_decode against Python's json, which the legacy service reads its records with: what Python takes is taken, with the same id and
the same name, and what Python refuses is refused. Documents are made at random, valid ones and broken ones.

    event_decode_against_python.py EVENT_DECODER [--count N] [--seed N]
"""
import argparse
import json
import random
import struct
import subprocess
import sys
import unittest

INT32 = (-2 ** 31, 2 ** 31 - 1)
DEPTH_MAX = 2048
DEPTH_OF_PYTHON = 900       # deeper, Python gives up by itself
REPLACEMENT = "\ufffd"

SCALARS = ["null", "true", "false", "NaN", "Infinity", "-Infinity", "0", "-0", "17", "-1", "2147483647", "2147483648", "-2147483648",
           "-2147483649", "9223372036854775808", "1" * 400, "1.0", "-0.5e-3", "1e999", "1E+2", "0.0", '""', '"neo"', '"\\u0000"',
           '"a\\ud800b"', '"\\udc00"', '"\\ud83d\\ude00"', '"\\ud83d\\ud83d\\ude00"', '"\\ud83d\\u0041"', '"\\u00e9\u00e9\U0001f600"',
           '"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\u0069d"', '"\x7f"', '"\u2028"', '"\ufeff"', '"\ufffd"']
# Python refuses these, wherever a value is expected.
BROKEN = ["01", "-", "1.", ".5", "1e", "+1", "1e+", "--1", "0x10", "nan", "-NaN", "infinity", "tru", "nulll", "'a'", '"a', '"\\x41"',
          '"\\u12g4"', '"\\u12"', '"\\"', '"\n"', '"\t"', '"\x00"', "17\x00", "\x00", "1_000", "1 2", "[1,]", "[,]", "{,}", '{"a"}', '{"a":}',
          '{"a":1,}', '{a:1}', '{1:2}', "[1}", '{"a":1]', "/**/1", "", "\ufeff1", "\u00a01", "１"]
KEYS = ["id", "id", "username", "username", "more", "", "ID", "i", "idd", "user", "id\\u0000", "\\u0069d", "\\u0000", "\\ud800", "user\\u006eame"]
SPACES = ["", "", "", " ", "\n", "\t", "\r", " \r\n\t "]
STRANGE_BYTES = [0x00, 0x01, 0x1f, 0x20, 0x22, 0x2c, 0x30, 0x3a, 0x5b, 0x5c, 0x5d, 0x7b, 0x7d, 0x7f, 0x80, 0xbf, 0xc0, 0xc3, 0xe2, 0xed, 0xf0, 0xff]


class Maker:
    """Documents at random."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def space(self):
        return self.random.choice(SPACES)

    def value(self, depth=0):
        """One JSON value; now and then a broken one."""
        roll = self.random.random()
        if roll < 0.02:
            return self.random.choice(BROKEN)
        if roll < 0.75 or depth > 4:
            return self.random.choice(SCALARS)
        if roll < 0.85:
            return "[" + ",".join(self.space() + self.value(depth + 1) + self.space() for _ in range(self.random.randrange(4))) + "]"
        return self.object(self.random.randrange(4), depth + 1)

    def object(self, size, depth=0):
        """With keys that come twice, and such as matter."""
        members = (f'{self.space()}"{self.random.choice(KEYS)}"{self.space()}:{self.space()}{self.value(depth)}{self.space()}'
                   for _ in range(size))
        return "{" + (",".join(members) or self.space()) + "}"

    def event(self):
        """Mostly one that has what it needs; sometimes with bytes changed."""
        members = [f'"{self.random.choice(KEYS)}":{self.value(1)}' for _ in range(self.random.randrange(4))]
        members.append(f'"id":{self.random.choice(["17", "-5", "2147483647", self.value(1)])}')
        members.append(f'"username":{self.random.choice(SCALARS[-15:] + [self.value(1)])}')
        if self.random.random() < 0.3:
            self.random.shuffle(members)
        text = self.space() + "{" + ",".join(members) + "}" + self.space()
        if self.random.random() < 0.1:
            text = self.object(4)
        value = bytearray(text.encode("utf-8", "surrogatepass"))
        while self.random.random() < 0.2:
            self.damage(value)
        return bytes(value)

    def damage(self, value):
        """One byte changed, taken away or put in, or the end cut off."""
        place = self.random.randrange(len(value) + 1)
        how = self.random.randrange(4)
        if how == 0:
            value[place:place] = bytes([self.random.choice(STRANGE_BYTES)])
        elif how == 1:
            value[place:place + 1] = b""
        elif how == 2:
            value[place:place + 1] = bytes([self.random.choice(STRANGE_BYTES)])
        else:
            del value[place:]


def expected_of(kind, value):
    """(id, name) as the legacy service reads them, with what PostgreSQL cannot hold replaced; None: no event."""
    try:
        document = json.loads(value.decode("utf-8"))
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    auth_id, name = document.get("id"), document.get("username")
    if type(auth_id) is not int or not INT32[0] <= auth_id <= INT32[1]:
        return None
    if kind == "d":
        return auth_id, None
    if not isinstance(name, str):
        return None
    return auth_id, "".join(REPLACEMENT if letter == "\0" or "\ud800" <= letter <= "\udfff" else letter for letter in name)


def decode_all(decoder, records):
    """What the decoder says of each (kind, value): as expected_of(), and the reason of a refusal."""
    sent = b"".join(kind.encode() + struct.pack("<I", len(value)) + value for kind, value in records)
    done = subprocess.run([decoder], input=sent, stdout=subprocess.PIPE, check=True, timeout=300)
    for line in done.stdout.decode().splitlines():
        answer, _, rest = line.partition(" ")
        if answer == "no":
            yield None, rest
        else:
            number, _, name = rest.partition(" ")
            yield (int(number), None if name == "-" else bytes.fromhex(name).decode("utf-8")), ""


class AgainstPython(unittest.TestCase):
    """One comparison for each kind of document."""

    arguments = None

    def then_all_agree(self, records):
        answers = list(decode_all(self.arguments.decoder, records))
        self.assertEqual(len(answers), len(records))
        taken = 0
        for (kind, value), (answer, reason) in zip(records, answers):
            self.assertEqual(answer, expected_of(kind, value), f"kind {kind}, value {value!r}, reason {reason!r}")
            taken += answer is not None
        return taken

    def test_documents_made_at_random(self):
        maker = Maker(self.arguments.seed)
        records = [(maker.random.choice("rrrd"), maker.event()) for _ in range(self.arguments.count)]
        taken = self.then_all_agree(records)
        # Neither all nor nothing: the comparison is of both.
        self.assertGreater(taken, len(records) // 10)
        self.assertLess(taken, len(records) * 9 // 10)

    def test_every_scalar_in_every_place(self):
        places = ['%s', '{"id":%s}', '{"id":1,"username":%s}', '{"id":1,"username":"a","more":%s}', '{"more":[%s],"id":1,"username":"a"}',
                  '{"id":1,"id":%s,"username":"a"}', '{"id":%s,"id":1,"username":"a"}', '{"username":"a","id":1,"username":%s}',
                  '{"id":1,"username":"a"}%s', '%s{"id":1,"username":"a"}', '{"id":1 %s,"username":"a"}', '{%s:1,"id":1,"username":"a"}']
        records = [(kind, (place % scalar).encode("utf-8", "surrogatepass")) for kind in "rd" for place in places
                   for scalar in SCALARS + BROKEN]
        self.assertGreater(self.then_all_agree(records), 100)

    def test_every_byte_in_every_place(self):
        document = b'{"id": 17, "username": "n\xc3\xa9o\\n", "x": [1.5, NaN]}'
        self.then_all_agree([("r", document[:place] + bytes([byte]) + document[place + cut:])
                             for place in range(len(document) + 1) for byte in range(256) for cut in (0, 1)])

    def test_depth(self):
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            def nested(depth, opening=opening, closing=closing):
                return ("r", f'{{"id":1,"username":"a","more":{opening * depth}1{closing * depth}}}'.encode())
            self.then_all_agree([nested(depth) for depth in range(0, DEPTH_OF_PYTHON, 50)])
            (taken, _), (refused, reason) = decode_all(self.arguments.decoder, [nested(DEPTH_MAX - 1), nested(DEPTH_MAX)])
            self.assertEqual(taken, (1, "a"))
            self.assertIsNone(refused)
            self.assertEqual(reason, "value is nested too deeply")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("decoder")
    parser.add_argument("--count", type=int, default=40000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2 ** 32))
    AgainstPython.arguments = parser.parse_args()
    print(f"seed {AgainstPython.arguments.seed}")
    unittest.main(argv=sys.argv[:1], verbosity=2)
