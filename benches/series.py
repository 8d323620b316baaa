#!/usr/bin/env python3
"""What a series costs beside the plainest query of the same numbers.

Starts a PostgreSQL of its own (the newest installed one that has pgbench) in a temporary directory. An hourly rollup of 30
entities and three kinds gets the rows and markers of a year, as ticks would leave them. Then each pair of queries runs in
turns. A figure is the median time of a statement in the server, and the median of the ratios within each round.
Usage: series.py TALLYMARK [ROUNDS]
"""

import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

from postgres import Server

TALLYMARK = pathlib.Path(sys.argv[1]).resolve()
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 15
PORT = "54995"
CONFIG = f"""
[source]
url = "postgres://postgres@127.0.0.1:{PORT}/postgres"
[checkpoint]
store = "postgres"
[[rollup]]
name = "hourly"
from = "public.events"
time = "created_at"
start = "2025-01-01"
slice = "1 hour"
group_by = ["entity_id", "kind"]
measures = {{ events = "count", revenue = {{ sum = "amount" }} }}
"""
FILL = """
INSERT INTO stats.hourly (bucket, entity_id, kind, events, revenue)
    SELECT h, e, k, (random() * 100)::int, (random() * 1000)::numeric(10, 2)
    FROM generate_series('2025-01-01Z'::timestamptz, '2025-12-31T23:00Z', '1 hour') h, generate_series(1, 30) e,
        unnest(ARRAY['view', 'click', 'buy']) k WHERE random() < 0.9;
INSERT INTO tallymark.slice (rollup, slice_start, slice_end, attempt, definition, rows_read, groups, replaced_at)
    SELECT 'hourly', h, h + interval '1 hour', 1, '{definition}', 1, 1, now()
    FROM generate_series('2025-01-01Z'::timestamptz, '2025-12-31T23:00Z', '1 hour') h;
INSERT INTO tallymark.checked (rollup, checked_at, definition, settled_by, history_from, slice_seconds, grace_seconds, ends,
    failing) VALUES ('hourly', now(), '{definition}', 'grace', '2025-01-01Z', 3600, 120, '{{}}', '{{}}');
"""
YEAR = "bucket >= '2025-01-01Z' AND bucket < '2026-01-01Z'"
ONE = "entity_id = 1 AND left(kind, 64) = 'view'"
ONLY = """'{"entity_id": 1, "kind": "view"}'"""
TEN = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10"
PAIRS = {
    "30 days of hours, one group": (
        f"SELECT * FROM stats.hourly WHERE {ONE} AND bucket >= '2025-02-01Z' AND bucket < '2025-03-03Z'",
        f"SELECT * FROM stats.hourly_series('2025-02-01Z', '2025-03-03Z', '1 hour', 'UTC', NULL, {ONLY})",
    ),
    "28 days, ten groups": (
        f"SELECT date_trunc('day', bucket, 'UTC'), entity_id, sum(events), sum(revenue) FROM stats.hourly WHERE "
        f"entity_id IN ({TEN}) AND left(kind, 64) = 'view' AND bucket >= '2025-02-01Z' AND bucket < '2025-03-01Z' GROUP BY 1, 2",
        "SELECT * FROM stats.hourly_series('2025-02-01Z', '2025-03-01Z', '1 day', 'UTC', '{entity_id}', "
        f"""'{{"entity_id": [{TEN}], "kind": "view"}}')""",
    ),
    "a year of days from hours, one group": (
        f"SELECT date_trunc('day', bucket, 'UTC'), sum(events), sum(revenue) FROM stats.hourly WHERE {ONE} AND {YEAR} GROUP BY 1",
        f"SELECT * FROM stats.hourly_series('2025-01-01Z', '2026-01-01Z', '1 day', 'UTC', '{{}}', {ONLY})",
    ),
    "a year of hours, one group": (
        f"SELECT * FROM stats.hourly WHERE {ONE} AND {YEAR}",
        f"SELECT * FROM stats.hourly_series('2025-01-01Z', '2026-01-01Z', '1 hour', 'UTC', NULL, {ONLY})",
    ),
}


def main():
    home = pathlib.Path(tempfile.mkdtemp(prefix="tallymark-bench-"))
    try:
        with Server(home, PORT, {"shared_buffers": "512MB", "autovacuum": "off"}) as server:
            server.psql("CREATE TABLE events (created_at timestamptz, entity_id bigint, kind text, amount numeric)")
            server.psql("CREATE INDEX ON events (created_at)")
            file = home / "tallymark.toml"
            file.write_text(CONFIG)
            subprocess.run([TALLYMARK, "--config", file, "init"], check=True, stdout=subprocess.DEVNULL)
            made = server.psql("SELECT prosrc FROM pg_proc WHERE proname = 'hourly_series'")
            definition = made.split("standing_of('hourly', '")[1].split("'")[0]
            server.psql(FILL.format(definition=definition))
            server.psql("VACUUM ANALYZE")
            compare(server)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def compare(server):
    # One session, in which the functions' statements are parsed once, as in an application's pool.
    queries = [query for pair in PAIRS.values() for query in pair]
    timed = "\n".join(
        f"t := clock_timestamp(); PERFORM count(*) FROM ({query} OFFSET 0) q; "
        f"times := times || extract(epoch FROM clock_timestamp() - t)::float8;" for query in queries)
    found = server.psql(
        "CREATE TEMPORARY TABLE seen (times float8[]); DO $do$ DECLARE t timestamptz; times float8[] := '{}'; BEGIN "
        f"FOR turn IN 0..{ROUNDS} LOOP {timed} END LOOP; INSERT INTO seen VALUES (times); END $do$; SELECT array_to_string(times, ' ') FROM seen")
    times = [float(time) * 1000 for time in found.split()[-len(queries) * ROUNDS:]]
    for place, name in enumerate(PAIRS):
        plain, series = times[2 * place::len(queries)], times[2 * place + 1::len(queries)]
        ratios = [one / other for one, other in zip(series, plain)]
        print(f"{name:40} {statistics.median(plain):6.1f} ms {statistics.median(series):6.1f} ms "
              f"{statistics.median(ratios):5.2f} ({min(ratios):.2f}-{max(ratios):.2f})", flush=True)


if __name__ == "__main__":
    main()
