#!/usr/bin/python3
"""The manual pages and the completion of bash hold what the program itself says: every command, every option, every setting."""
import os
import pathlib
import re
import subprocess
import unittest

SOURCE = pathlib.Path(os.environ["USERD_TEST_SOURCE_DIR"])
USERD = pathlib.Path(os.environ["USERD_TEST_BINARY_DIR"]) / "master/userd"
OPTION = re.compile(r"(?<![\w-])(--?[a-z][a-z-]*)")


def run(*command):
    """What a command prints."""
    return subprocess.run([str(word) for word in command], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          timeout=60, text=True).stdout


def commands():
    """The names that `userd help` lists."""
    return re.findall(r"^  ([a-z-]+) ", run(USERD, "help"), re.MULTILINE)


def options(command):
    """Those that `userd help COMMAND` explains."""
    explained = run(USERD, "help", command).split("\n\n", 2)[2:]
    return {option for line in "".join(explained).splitlines() for option in OPTION.findall(line.split("  ")[1])}


def complete(*words):
    """What bash offers behind these words; the last one is what has been typed of the next."""
    script = (f". {SOURCE}/etc/userd.bash-completion; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _userd; "
              "printf '%s\\n' \"${COMPREPLY[@]}\"")
    return set(run("bash", "-c", script, "bash", *words).split())


class Manual(unittest.TestCase):
    """Each against the program."""

    def setUp(self):
        page = (SOURCE / "docs/man/userd.8").read_text(encoding="utf-8")
        self.page = re.sub(r"\\f.", "", page.replace("\\-", "-"))

    def test_userd_8_has_every_command_and_every_option(self):
        names = commands()
        self.assertGreater(len(names), 10)
        for name in names:
            self.assertRegex(self.page, rf"(?m)^(\.B[IR]?|\.BR) \"?{name}\b|^{name} ", name)
            for option in options(name):
                self.assertRegex(self.page, rf"(?<![\w-]){option}(?![\w-])", f"{name} {option}")

    def test_completion_offers_every_command_and_every_option(self):
        names = commands()
        self.assertEqual(complete("userd", "") - {"--version", "--help"}, set(names))
        for name in names:
            offered = {word for word in complete("userd", name, "-") if word.startswith("-")}
            self.assertEqual(offered - {"--help"}, options(name), name)

    def test_userd_conf_5_has_every_setting_of_the_commented_file(self):
        page = run(SOURCE / "docs/man/userd_conf_page", SOURCE / "etc/userd.conf").replace("\\-", "-")
        described = set(re.findall(r"^\.TP\n\\fB([\w.]+)\\fR", page, re.MULTILINE))
        group, expected = "", set()
        for line in (SOURCE / "etc/userd.conf").read_text(encoding="utf-8").splitlines():
            if re.match(r"^\w+ = \{$", line):
                group = line.split()[0] + "."
            elif line == "};":
                group = ""
            elif re.match(r"^( {4})?[a-z_]+ = ", line) and "{ name" not in line and bool(group) == line.startswith(" "):
                expected.add(group + line.split()[0])
        self.assertGreater(len(expected), 40)
        self.assertEqual(described, expected)


if __name__ == "__main__":
    unittest.main()
