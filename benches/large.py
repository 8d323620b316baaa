#!/usr/bin/env python3
"""A year of history of a large, partitioned table, counted while an application works beside it and workers are killed.

Starts a PostgreSQL of its own below target/large and fills a table of twelve partitions with --rows events, unless an earlier
run has. pgbench then plays an application at a steady rate. `tallymark backfill` counts the year by days with every setting at
its default, is killed --kills times at random instants, and is started again each time. At the end the rollup's events are
compared with the rows that were written, and `verify` compares --sample days, drawn at random, group by group. The time for a
billion rows is stated as arithmetic, from the rows a second of this run.

A billion rows need about 75 GB. 100 million need about 8 GB.
"""

import argparse
import datetime
import pathlib
import random
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE / "impact"))
from measure import App, Counters  # noqa: E402
from postgres import Server, tallymark  # noqa: E402

PORT = 54993
FIRST, DAYS, PARTITIONS = datetime.date(2025, 1, 1), 365, 12
END = FIRST + datetime.timedelta(days=DAYS)
ITEMS = 200_000
MIX = {"read": 8, "update": 2}
# A new relation of a transaction needs no WAL at this level, which halves the time to fill the table.
SETTINGS = {"wal_level": "minimal", "max_wal_senders": 0, "shared_buffers": "2GB", "max_wal_size": "8GB",
            "checkpoint_timeout": "15min", "maintenance_work_mem": "1GB", "max_prepared_transactions": 0}
# The application's latencies are taken in windows of this length.
WINDOW_SECONDS = 20
# A run that has not ended after this many windows has failed.
WINDOWS_MAX = 1_000
CONFIG = """[source]
url = "{url}"
[checkpoint]
store = "postgres"
[[rollup]]
name = "daily"
from = "public.events"
time = "created_at"
start = "2025-01-01"
slice = "1 day"
group_by = ["entity_id", "kind"]
measures = {{ events = "count", revenue = {{ sum = "cents" }}, users = {{ distinct = "user_id" }} }}
"""
TABLES = f"""
CREATE TABLE events (created_at timestamptz NOT NULL, user_id integer NOT NULL, entity_id integer NOT NULL,
    cents integer, kind smallint NOT NULL) PARTITION BY RANGE (created_at);
CREATE TABLE items (id integer PRIMARY KEY, name text NOT NULL, stock integer NOT NULL, updated_at timestamptz NOT NULL)
    WITH (fillfactor = 80);
INSERT INTO items SELECT n, 'item ' || n || repeat('.', 60), 1000, now() FROM generate_series(1, {ITEMS}) n;
"""
# Rows in the order of their time, as an application writes them.
PARTITION = """BEGIN;
CREATE TABLE events_{number} PARTITION OF events FOR VALUES FROM ('{begin}Z') TO ('{end}Z');
INSERT INTO events_{number} SELECT '{begin}Z'::timestamptz + ({days} * 86400.0 * n / {rows}) * interval '1 second',
    (100000 * random() ^ 2)::integer, (1000 * random() ^ 3)::integer + 1,
    CASE WHEN n % 30 = 0 THEN (500 + 9500 * random() ^ 2)::integer END, n % 3 FROM generate_series(0, {rows} - 1) n;
CREATE INDEX ON events_{number} (created_at);
COMMIT;"""


class Place:
    """The server and the directories, as measure.App wants them."""

    def __init__(self, rows, server):
        self.home, self.rows, self.server = ROOT / "target/large", rows, server
        self.file = self.home / "tallymark.toml"


class Backfill:
    """`tallymark backfill` as a process that is killed and started again."""

    def __init__(self, place, binary, kills):
        self.words = [binary, "--config", place.file, "--json", "backfill", "daily", "--yes", "--to", str(END)]
        self.log = open(place.home / "backfill.log", "w")
        self.kills, self.starts, self.process = kills, 0, None

    def start(self):
        """Starts it, unless it runs."""
        if self.process is None or self.process.poll() is not None:
            self.starts += 1
            self.process = subprocess.Popen(self.words, stdout=self.log, stderr=self.log)

    def kill(self):
        """Kills it where one of the kills is left, at whatever it does."""
        if self.kills and self.process.poll() is None:
            self.kills -= 1
            self.process.kill()
            self.process.wait()

    def end(self):
        """Ends it where it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()

    @property
    def is_done(self):
        """It has ended well. Otherwise it has left slices, such as that of a killed process until its lease ends."""
        return self.process is not None and self.process.poll() == 0


def fill(server, rows):
    """Makes the tables."""
    server.psql(TABLES)
    first = FIRST
    for number in range(1, PARTITIONS + 1):
        end = FIRST + datetime.timedelta(days=round(DAYS * number / PARTITIONS))
        days = (end - first).days
        server.psql(PARTITION.format(number=number, begin=first, end=end, days=days, rows=rows * days // DAYS))
        print(f"{end}: {server.psql('SELECT pg_size_pretty(pg_database_size(current_database()))')}", file=sys.stderr)
        first = end
    server.psql("VACUUM ANALYZE")


def told(latencies):
    return ", ".join(f"{name} {latencies[name]:.2f} ms" for name in ("p50", "p95", "p99"))


def counted(place, arguments):
    """Counts the year beside the application. Returns the seconds."""
    app = App(place, arguments.share, mix=MIX)
    idle = app.run(WINDOW_SECONDS)
    print(f"the application alone, {app.rate} transactions a second: {told(idle)}", flush=True)
    backfill = Backfill(place, arguments.tallymark, arguments.kills)
    try:
        return beside(place, app, idle, backfill)
    finally:
        backfill.end()


def beside(place, app, idle, backfill):
    """Plays the application in windows until the backfill is done."""
    begun, ratios = time.monotonic(), []
    for _ in range(WINDOWS_MAX):
        backfill.start()
        felt = app.run(random.randint(WINDOW_SECONDS // 2, WINDOW_SECONDS))
        ratios.append(felt["p99"] / idle["p99"])
        rows = int(place.server.psql("SELECT coalesce(sum(events), 0) FROM stats.daily"))
        print(f"{time.monotonic() - begun:6.0f} s  {rows:13,} rows  {backfill.starts} starts  {told(felt)}", flush=True)
        if backfill.is_done:
            break
        backfill.kill()
    else:
        sys.exit(f"the backfill never ends: {backfill.log.name}")
    seconds = time.monotonic() - begun
    print(f"p99 beside the backfill, of that alone: {min(ratios):.2f} to {max(ratios):.2f}, median"
          f" {sorted(ratios)[len(ratios) // 2]:.2f}")
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tallymark", type=lambda it: pathlib.Path(it).resolve(), help="the program")
    parser.add_argument("--rows", type=int, default=60_000_000)
    parser.add_argument("--share", type=float, default=0.1, help="of the machine that the application takes alone")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--sample", type=int, default=12, help="days that are verified group by group")
    arguments = parser.parse_args()
    home = ROOT / "target/large"
    home.mkdir(parents=True, exist_ok=True)
    with Server(home, PORT, SETTINGS, f"large_{arguments.rows}") as server:
        if server.psql(f"SELECT count(*) FROM pg_database WHERE datname = '{server.database}'", "postgres") == "0":
            server.psql(f"DROP DATABASE IF EXISTS {server.database}_new", "postgres")
            server.psql(f"CREATE DATABASE {server.database}_new", "postgres")
            filling = Server(home, PORT, SETTINGS, f"{server.database}_new")
            fill(filling, arguments.rows)
            server.psql(f"ALTER DATABASE {server.database}_new RENAME TO {server.database}", "postgres")
        place = Place(arguments.rows, server)
        server.psql("DROP SCHEMA IF EXISTS tallymark, stats CASCADE")
        place.file.write_text(CONFIG.format(url=server.url))
        tallymark(arguments.tallymark, place.file, "init")
        seconds = counted(place, arguments)
        rows, counted_rows = (int(server.psql(sql)) for sql in ("SELECT count(*) FROM events", "SELECT sum(events) FROM stats.daily"))
        found = tallymark(arguments.tallymark, place.file, "verify", "daily", "--to", str(END), "--sample", str(arguments.sample))
        print(f"{rows:,} rows in {seconds:.0f} s with the application beside it: {rows / seconds:,.0f} rows a second; the"
              f" rollup has {counted_rows:,}")
        print(f"verified {found['slices']} of {DAYS} days, seed {found['sample']['seed']}: {found['differences']} differences")
        print(f"a billion rows at this rate: {1e9 / (rows / seconds) / 3600:.1f} hours (arithmetic)")
        if rows != counted_rows or found["differences"] or found["slices"] < arguments.sample:
            sys.exit("the rollup differs from its source")


if __name__ == "__main__":
    main()
