#!/usr/bin/env python3
"""What a late row costs where every hour looks back over 28 days: it is part of 672 windows.

Starts a PostgreSQL of its own (the newest installed one that has pgbench) in a temporary directory. Uniques by hour of 60
days, and actives of the last 28 days at the end of each hour. In each round a late row makes its hour run again, first with
all of its windows up to date, which it reopens, and at once with another row, when they wait to run again anyway. Then a tick
computes the windows. Beside it stands one statement that counts the same 672 windows from the source's rows.
Usage: windows.py TALLYMARK [ROUNDS]
"""

import pathlib
import shutil
import statistics
import sys
import tempfile
import time

from postgres import Server, tallymark

TALLYMARK = pathlib.Path(sys.argv[1]).resolve()
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 3
PORT = "54996"
HOUR = "2025-02-01T00:00:00Z"
END = "2025-03-02"
SEED = """
CREATE TABLE events (created_at timestamptz NOT NULL, user_id bigint NOT NULL);
SELECT setseed(0.5);
INSERT INTO events SELECT '2025-01-01Z'::timestamptz + n * interval '36 seconds', (random() ^ 2 * 5000)::bigint
    FROM generate_series(0, 143999) AS n;
CREATE INDEX ON events (created_at);
"""
# The windows that hold the hour, from the source.
FLOOR = f"""
SELECT count(DISTINCT ends), sum(users) FROM generate_series('{HOUR}'::timestamptz + interval '1 hour',
        '{HOUR}'::timestamptz + interval '672 hours', '1 hour') AS ends,
    LATERAL (SELECT count(DISTINCT user_id) AS users FROM events
        WHERE created_at >= ends - interval '28 days' AND created_at < ends) AS counted
"""
FOUND = f"""
SELECT count(*), sum(users) FROM stats.active_28_days
    WHERE bucket >= '{HOUR}' AND bucket < '{HOUR}'::timestamptz + interval '672 hours'
"""


def run(file, *words):
    return tallymark(TALLYMARK, file, *words)


def timed(work):
    begun = time.monotonic()
    done = work()
    return time.monotonic() - begun, done


def again(server, file, user):
    """The hour runs again after a late row; the milliseconds of its run."""
    server.psql(f"INSERT INTO events VALUES ('{HOUR}'::timestamptz + interval '1 minute', {user})")
    replayed = run(file, "replay", "users_hourly", "--slice", HOUR, "--yes")
    assert replayed["succeeded"] == 1, replayed
    return replayed["elapsed_ms"]


def measure(server, file):
    run(file, "init")
    seconds, done = timed(lambda: run(file, "backfill", "users_hourly", "--to", END, "--yes"))
    print(f"{done['succeeded']} hours of {done['rows_read']:,} rows: {seconds:.2f} s")
    seconds, done = timed(lambda: run(file, "backfill", "active_28_days", "--to", END, "--yes"))
    print(f"{done['succeeded']} windows: {seconds:.2f} s")
    seen = []
    for turn in range(ROUNDS):
        reopening = again(server, file, 10_000 + 2 * turn)
        waiting = again(server, file, 10_001 + 2 * turn)
        tick, done = timed(lambda: run(file, "backfill", "active_28_days", "--to", END, "--yes"))
        floor, counted = timed(lambda: server.psql(FLOOR))
        if counted != server.psql(FOUND):
            sys.exit(f"the windows differ from the source: {server.psql(FOUND)} for {counted}")
        seen.append((reopening, waiting, tick, floor))
        print(f"round {turn + 1}: the hour {reopening} ms, with its windows reopened already {waiting} ms; "
              f"{done['succeeded']} windows {tick:.2f} s; one statement over the source {floor:.2f} s", flush=True)
    of = lambda ratio: statistics.median(ratio(*it) for it in seen)
    print(f"medians: reopening {of(lambda a, b, *_: a / b):.2f} of the hour's time without it; "
          f"windows {of(lambda _a, _b, tick, floor: tick / floor):.2f} of the statement's time")


def main():
    home = pathlib.Path(tempfile.mkdtemp(prefix="tallymark-bench-"))
    try:
        with Server(home, PORT, {"shared_buffers": "512MB", "work_mem": "16MB", "autovacuum": "off", "jit": "off"}) as server:
            server.psql(SEED)
            server.psql("VACUUM ANALYZE")
            file = home / "tallymark.toml"
            file.write_text(f"""[source]
url = "{server.url}"
nice_ratio = 0
naps = false
[checkpoint]
store = "postgres"
[[rollup]]
name = "users_hourly"
from = "public.events"
time = "created_at"
start = "2025-01-01"
slice = "1 hour"
measures = {{ users = {{ distinct = "user_id", merge = "exact" }} }}
[[rollup]]
name = "active_28_days"
from = {{ rollup = "users_hourly" }}
slice = "1 hour"
trailing = "28 days"
start = "2025-01-29"
measures = ["users"]
""")
            measure(server, file)
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
