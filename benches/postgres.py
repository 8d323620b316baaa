"""A separate PostgreSQL for a benchmark: the newest installed one that has pgbench."""

import glob
import json
import os
import pathlib
import shutil
import subprocess
import sys


def binaries():
    """The directory of its programs."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/pgbench"), key=lambda p: int(p.split("/")[4]))
    found = found or ([shutil.which("pgbench")] if shutil.which("pgbench") else [])
    if not found:
        sys.exit("pgbench is not installed (Debian: postgresql-contrib)")
    return pathlib.Path(found[-1]).parent


class Server:
    """A server below `home`, at `port` of this machine, with the options of `settings`. Use it with `with`."""

    def __init__(self, home, port, settings, database="postgres"):
        self.home, self.port, self.settings, self.database = pathlib.Path(home), port, settings, database
        self.bin = binaries()
        # initdb refuses root.
        self.as_user = []
        if os.geteuid() == 0:
            shutil.chown(self.home, "postgres")
            self.as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]

    def __enter__(self):
        data = self.home / "data"
        if not (data / "PG_VERSION").exists():
            self._run("initdb", "-D", data, "-A", "trust", "-U", "postgres")
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": self.home, **self.settings}
        options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
        log = self.home / "log"
        self._run("pg_ctl", "-D", data, "-w", "-t", "300", "-l", log, "-o", f"-p {self.port} {options}", "start")
        return self

    def __exit__(self, *_):
        self._run("pg_ctl", "-D", self.home / "data", "-w", "-m", "fast", "stop")

    def _run(self, program, *words):
        words = [*self.as_user, self.bin / program, *words]
        subprocess.run(list(map(str, words)), check=True, stdout=subprocess.DEVNULL)

    @property
    def pid(self):
        """The postmaster's process; its backends are its children."""
        return int((self.home / "data/postmaster.pid").read_text().split()[0])

    @property
    def url(self):
        """Its address."""
        return f"postgres://postgres@127.0.0.1:{self.port}/{self.database}"

    def client(self, program, *words):
        """The command line of a client program."""
        address = ["-h", "127.0.0.1", "-p", self.port, "-U", "postgres"]
        return list(map(str, [self.bin / program, *address, *words]))

    def psql(self, sql, database=None):
        """Runs statements, and returns their rows, one per line."""
        words = self.client("psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", sql, database or self.database)
        # Notices of DROP … IF EXISTS about missing objects are irrelevant.
        quiet = {**os.environ, "PGOPTIONS": "-c client_min_messages=warning"}
        return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=quiet).stdout.strip()


def tallymark(program, file, *words, may_fail=False):
    """What `program`, a tallymark with the configuration `file`, prints as JSON."""
    done = subprocess.run([program, "--config", file, "--json", *words], capture_output=True, text=True)
    if done.returncode != 0 and not may_fail:
        sys.exit(f"tallymark {' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout) if done.stdout.strip() else {}
