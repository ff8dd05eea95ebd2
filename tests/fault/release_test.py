#!/usr/bin/python3
"""The programs that are installed have no failpoint in them: neither a name, nor the variable that would arm one."""
import os
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import failpoints  # noqa: E402  pylint: disable=wrong-import-position

BINARY = pathlib.Path(os.environ["USERD_TEST_BINARY_DIR"])
PROGRAMS = ("master/userd", "worker/userd-worker", "eventd/userd-eventd")


class ReleaseTest(unittest.TestCase):
    """What `strings` would show."""

    def test_no_program_has_a_failpoint(self):
        """As bytes of the file, whatever section they would be in."""
        for program in PROGRAMS:
            content = (BINARY / program).read_bytes()
            for name in (*failpoints.POINTS, "USERD_FAILPOINTS_FILE", "failpoint_pass"):
                self.assertNotIn(name.encode(), content, f"{program} has {name}")


if __name__ == "__main__":
    unittest.main()
