#!/usr/bin/env python3
"""From a database with a table of a million rows to a verified rollup that ticks, with nothing but the program.

Starts a PostgreSQL of its own in a temporary directory and fills a table. Then it runs `new --yes`, `init`, `backfill`,
`verify` and `serve --every 1m` in an empty directory, with no environment but DATABASE_URL, and times each; `serve` until its
first tick has ended well. Usage: anywhere.py TALLYMARK [ROWS]
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

from postgres import Server

TALLYMARK = pathlib.Path(sys.argv[1]).resolve()
ROWS = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
PORT = "54996"
LISTEN = "127.0.0.1:54995"
# The limit for all commands together.
LIMIT = 300
SEED = f"""
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, created_at timestamptz NOT NULL,
    customer_id bigint NOT NULL, status text NOT NULL, amount numeric(10, 2) NOT NULL);
INSERT INTO orders (created_at, customer_id, status, amount)
    SELECT now() - n * interval '365 days' / {ROWS}, n % 500, (ARRAY['open', 'paid', 'sent'])[1 + n % 3], n % 10000 / 100.0
    FROM generate_series(1, {ROWS}) AS n;
CREATE INDEX ON orders (created_at);
"""


def main():
    home = pathlib.Path(tempfile.mkdtemp(prefix="tallymark-bench-"))
    try:
        with Server(home, PORT, {}) as server:
            server.psql(SEED)
            server.psql("VACUUM ANALYZE orders")
            measure(home / "empty")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def measure(directory):
    directory.mkdir()
    environment = {"DATABASE_URL": f"postgres://postgres@127.0.0.1:{PORT}/postgres"}
    begun = time.monotonic()

    def run(*words):
        start = time.monotonic()
        done = subprocess.run([TALLYMARK, *words], cwd=directory, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"tallymark {' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        print(f"tallymark {' '.join(words):30} {time.monotonic() - start:7.2f} s", flush=True)
        return done.stdout

    name = json.loads(run("new", "--yes", "--json"))["rollup"]
    run("init")
    run("backfill", name, "--yes")
    if "0 differences" not in run("verify", name):
        sys.exit("the rollup differs from its source")
    serve = subprocess.Popen([TALLYMARK, "serve", "--every", "1m", "--listen", LISTEN], cwd=directory, env=environment,
                             stdout=subprocess.DEVNULL)
    try:
        start = time.monotonic()
        while not ticked():
            if serve.poll() is not None or time.monotonic() - begun > LIMIT:
                sys.exit("serve has not ticked")
            time.sleep(0.1)
        print(f"tallymark {'serve, until its first tick':30} {time.monotonic() - start:7.2f} s")
    finally:
        serve.terminate()
        serve.wait()
    whole = time.monotonic() - begun
    print(f"{ROWS:,} rows, all commands: {whole:.1f} s; files: {', '.join(sorted(it.name for it in directory.iterdir()))}")
    if whole > LIMIT:
        sys.exit(f"more than {LIMIT} s")


def ticked():
    """Whether a tick of the server has ended well."""
    try:
        with urllib.request.urlopen(f"http://{LISTEN}/healthz", timeout=10) as answer:
            last = json.load(answer)["last_tick"]
            return bool(last and last["good"])
    except OSError:
        return False


if __name__ == "__main__":
    main()
