"""Tests beyond packaging/test.sh on one machine: other systems and processors, signals, and damaged input."""

import contextlib
import io
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import tarfile
import tempfile
import unittest
from pathlib import Path

import archive
import build
import image
import npm
import project
import wheel
from binary import read

PROJECT = project.load("https://example.com/owner/tallymark")
# Longer than any machine stands still.
LIMIT = 60
# A stand-in for the binary: prints how often it was told to end, and ends with 7, or by SIGKILL if told so.
STAND_IN = """#!/usr/bin/env python3
import os, signal, sys, time
seen = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda it, _: seen.append(it))
print("ready", flush=True)
if sys.argv[1:] == ["die"]:
    os.kill(os.getpid(), signal.SIGKILL)
while not seen:
    signal.pause()
time.sleep(0.5)
print("told", len(seen), flush=True)
sys.exit(7)
"""


def static(processor):
    """The least of an ELF file: a header without segments."""
    rest = struct.pack("<HHIQQQIHHHHHH", 3, processor, 1, 0, 64, 0, 0, 64, 56, 0, 0, 0, 0)
    return b"\x7fELF\x02\x01\x01" + bytes(9) + rest


def mach(processor, major, minor):
    """The least of a Mach-O file: a header and the oldest system that it runs on."""
    header = struct.pack("<IIIIIIII", 0xFEEDFACF, processor, 0, 2, 1, 24, 0, 0)
    return header + struct.pack("<IIIIII", 0x32, 24, 1, major << 16 | minor << 8, 0, 0)


def too_late(*_):
    raise TimeoutError(f"the launcher did not end within {LIMIT} s")


class WithFiles(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.place = Path(directory.name)

    def binary(self, content):
        path = self.place / "tallymark"
        path.write_bytes(content)
        return read(path)

    def refusal(self, content):
        with contextlib.redirect_stderr(io.StringIO()) as said, self.assertRaises(SystemExit) as ended:
            self.binary(content)
        self.assertEqual(ended.exception.code, 2)
        return said.getvalue()


class OtherMachines(WithFiles):
    def test_a_static_binary_is_for_every_linux(self):
        for number, processor in ((62, "x86_64"), (183, "aarch64")):
            found = self.binary(static(number))
            self.assertEqual(found.target, f"{processor}-unknown-linux-musl")
            self.assertEqual(wheel.platforms(found), [f"manylinux_2_17_{processor}", f"musllinux_1_1_{processor}"])

    def test_a_binary_of_macos_names_the_oldest_that_runs_it(self):
        found = self.binary(mach(0x0100000C, 11, 0))
        self.assertEqual(found.target, "aarch64-apple-darwin")
        self.assertEqual(wheel.platforms(found), ["macosx_11_0_arm64"])
        self.assertEqual(npm.platform(found), ("darwin", "arm64"))
        self.assertEqual(wheel.platforms(self.binary(mach(0x01000007, 10, 12))), ["macosx_10_12_x86_64"])

    def test_what_is_no_binary_is_refused(self):
        self.assertIn("no 64-bit binary", self.refusal(b"#!/bin/sh\n"))
        self.assertIn("damaged", self.refusal(static(40)))
        self.assertIn("damaged", self.refusal(static(62)[:40]))
        self.assertIn("damaged", self.refusal(mach(0x0100000C, 11, 0)[:36]))

    def test_the_static_binary_goes_into_wheel_npm_package_and_image(self):
        musl = self.binary(static(62))
        gnu = type(musl)(musl.path, b"", "linux", "x86_64", (2, 35), (), "/lib64/ld-linux-x86-64.so.2")
        for both in ([musl, gnu], [gnu, musl]):
            self.assertEqual(build.best(both), [musl])
        self.assertEqual(build.best([gnu]), [gnu])

    def test_an_image_of_two_processors_is_one_reference(self):
        binaries = [self.binary(static(183)), self.binary(static(62))]
        files = image.image(PROJECT, binaries, b"certificates")
        (outer,) = json.loads(files["index.json"])["manifests"]
        self.assertEqual(outer["annotations"], {"org.opencontainers.image.ref.name": PROJECT.version})
        inner = json.loads(files["blobs/" + outer["digest"].replace(":", "/")])
        platforms = [(it["platform"]["os"], it["platform"]["architecture"]) for it in inner["manifests"]]
        self.assertEqual(platforms, [("linux", "arm64"), ("linux", "amd64")])
        for manifest in inner["manifests"]:
            config = json.loads(files["blobs/" + manifest["digest"].replace(":", "/")])["config"]
            config = json.loads(files["blobs/" + config["digest"].replace(":", "/")])["config"]
            self.assertEqual(config["User"], "65532:65532")

    def test_the_installer_knows_every_archive_and_where_it_is(self):
        _, script = archive.installer(PROJECT, {"x86_64-unknown-linux-musl": b"one", "aarch64-apple-darwin": b"two"})
        text = script.decode()
        self.assertIn(f"\naarch64-apple-darwin {project.sha256(b'two')}\n", text)
        self.assertIn(f"\nx86_64-unknown-linux-musl {project.sha256(b'one')}\n", text)
        self.assertIn(f":-{PROJECT.repository}/releases/download/v{PROJECT.version}}}", text)
        self.assertNotRegex(text, "@[A-Z]+@")

    def test_the_workflow_builds_every_platform_that_npm_names(self):
        workflow = (project.ROOT / ".github" / "workflows" / "release.yml").read_text()
        targets = set(re.findall(r"(?m)^ +(?:- )?target: (\S+)$", workflow))
        names = {"x86_64": "x64", "aarch64": "arm64"}
        systems = {"apple-darwin": "darwin", "unknown-linux-gnu": "linux", "unknown-linux-musl": "linux"}
        split = [target.split("-", 1) for target in targets]
        self.assertEqual({(systems[system], names[processor]) for processor, system in split}, set(npm.PLATFORMS))
        self.assertEqual(len(targets), 6)


@unittest.skipUnless(shutil.which("node"), "there is no node")
class Launcher(WithFiles):
    def setUp(self):
        super().setUp()
        signal.signal(signal.SIGALRM, too_late)
        signal.alarm(LIMIT)
        self.addCleanup(signal.alarm, 0)
        _, content = npm.umbrella(PROJECT)
        with tarfile.open(fileobj=io.BytesIO(content)) as packed:
            packed.extractall(self.place)
        self.launcher = self.place / "package" / "bin" / "tallymark.js"

    def command(self, *arguments):
        return [shutil.which("node"), self.launcher, *arguments]

    def shown(self, screen, end):
        """What a terminal shows up to this text."""
        text = b""
        while not text.endswith(end):
            more = screen.read(1)
            self.assertTrue(more, f"the terminal closed after {text}")
            text += more
        return text

    def stand_in(self):
        """Puts a stand-in to where npm puts the binary."""
        names = subprocess.run(
            [shutil.which("node"), "-p", "`${process.platform}-${process.arch}`"], stdout=subprocess.PIPE, check=True
        )
        package = self.place / "node_modules" / "@tallymark" / names.stdout.decode().strip()
        (package / "bin").mkdir(parents=True)
        (package / "bin" / "tallymark").write_text(STAND_IN)
        (package / "bin" / "tallymark").chmod(0o755)

    def test_a_missing_platform_package_is_named(self):
        run = subprocess.run(self.command(), stderr=subprocess.PIPE, timeout=LIMIT)
        self.assertEqual(run.returncode, 2)
        self.assertRegex(run.stderr.decode(), "^error: the package @tallymark/[a-z0-9-]+ is not installed; ")

    def test_a_signal_to_the_launcher_reaches_the_binary_once(self):
        self.stand_in()
        for number in (signal.SIGTERM, signal.SIGINT):
            with subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                start_new_session=True,
            ) as child:
                try:
                    self.assertEqual(child.stdout.readline(), b"ready\n")
                    child.send_signal(number)
                    self.assertEqual(child.stdout.readline(), b"told 1\n")
                    self.assertEqual(child.wait(LIMIT), 7)
                finally:
                    # After a failure both are still there, and leaving the block waits for them.
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(child.pid, signal.SIGKILL)

    def test_ctrl_c_in_a_terminal_reaches_the_binary_once(self):
        self.stand_in()
        child, terminal = pty.fork()
        if child == 0:
            os.execv(shutil.which("node"), self.command())
        with open(terminal, "r+b", buffering=0) as screen:
            text = self.shown(screen, b"ready\r\n")
            screen.write(b"\x03")
            text = self.shown(screen, b"told 1\r\n")
            # Before the terminal goes away, which is a signal of its own.
            _, status = os.waitpid(child, 0)
        self.assertIn(b"told 1", text)
        self.assertEqual(os.WEXITSTATUS(status), 7)

    def test_the_signal_that_ends_the_binary_ends_the_launcher(self):
        self.stand_in()
        run = subprocess.run(self.command("die"), stdout=subprocess.DEVNULL, timeout=LIMIT)
        self.assertEqual(run.returncode, -signal.SIGKILL)


if __name__ == "__main__":
    unittest.main()
