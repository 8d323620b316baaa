#!/usr/bin/env python3
"""What open transactions cost a tick: 25 due slices beside clients whose transactions last 20 ms each, and without them.

Starts a PostgreSQL of its own (the newest installed one that has pgbench) and the demo's DynamoDB in a temporary directory.
Each round has tables, checkpoints and triggers of its own; rounds with and without clients alternate. Prints the
median time of the command `tallymark run`, least to most, and how many of the 25 slices it computed.
Usage: writers.py [ROUNDS] [CLIENTS]; TALLYMARK may name another build.
"""

import contextlib
import datetime
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from dynamo import dynamodb
from postgres import Server

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
CLIENTS = int(sys.argv[2]) if len(sys.argv) > 2 else 6
PORT = "54995"
SLICES = 25
BINARY = pathlib.Path(os.environ.get("TALLYMARK", ROOT / "target/debug/tallymark")).resolve()

WRITER = """BEGIN;
INSERT INTO events (created_at, kind) VALUES (now(), 'view');
\\sleep 20 ms
COMMIT;
"""
CONFIG = """
[source]
url = "postgres://postgres@127.0.0.1:{port}/postgres"
nice_ratio = 0
[checkpoint]
table = "writers_{turn}"
[[rollup]]
name = "daily"
from = "public.events"
time = "created_at"
start = "{start}"
slice = "1 day"
late = "capture"
group_by = ["kind"]
measures = {{ events = "count" }}
"""


def main():
    home = pathlib.Path(tempfile.mkdtemp(prefix="tallymark-bench-"))
    os.chmod(home, 0o755)
    cluster = home / "postgres"
    cluster.mkdir()
    try:
        with Server(cluster, PORT, {"shared_buffers": "256MB"}) as server, \
                dynamodb(BINARY, home / "demo") as (_, environment):
            measure(server, home, {**os.environ, **environment})
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def writers(server, home, clients):
    """Clients that write until the block is over."""
    if clients == 0:
        yield
        return
    script = home / "writer.sql"
    script.write_text(WRITER)
    words = server.client("pgbench", "-n", "-c", clients, "-T", 3600, "-f", script, server.database)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        # All of them are connected, and have begun.
        time.sleep(1)
        yield
    finally:
        process.terminate()
        process.wait(60)


def tick(server, home, environment, turn, clients):
    """Seconds of one tick over 25 due slices, and how many it computed."""
    start = datetime.datetime.now(datetime.timezone.utc).date() - datetime.timedelta(days=SLICES)
    server.psql(
        "DROP SCHEMA IF EXISTS stats, tallymark CASCADE; DROP TABLE IF EXISTS events;"
        "CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY, created_at timestamptz, kind text);"
        "CREATE INDEX ON events (created_at);"
        f"INSERT INTO events (created_at, kind) SELECT '{start}Z'::timestamptz + n * interval '1 minute', 'k' || n % 3"
        f" FROM generate_series(0, {SLICES} * 1440 - 1) n; ANALYZE events")
    config = home / "tallymark.toml"
    config.write_text(CONFIG.format(port=PORT, turn=turn, start=start))
    run = lambda *words: subprocess.run([BINARY, "--config", config, *words], env=environment, capture_output=True,
                                        text=True)
    for words in [("init",), ("capture", "install")]:
        run(*words).check_returncode()
    with writers(server, home, clients):
        began = time.monotonic()
        ended = run("run", "--budget", "10 minutes")
        seconds = time.monotonic() - began
    if ended.returncode == 2:
        sys.exit(ended.stderr)
    return seconds, int(server.psql("SELECT count(*) FROM tallymark.slice WHERE replaced_at IS NOT NULL"))


def measure(server, home, environment):
    seen = {0: [], CLIENTS: []}
    for turn in range(ROUNDS):
        for clients in seen:
            seen[clients].append(tick(server, home, environment, f"{turn}_{clients}", clients))
    for clients, rounds in seen.items():
        times = [seconds for seconds, _ in rounds]
        done = sorted({slices for _, slices in rounds})
        print(f"{clients} clients: {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f}), "
              f"slices computed: {', '.join(map(str, done))} of {SLICES}")


main()
