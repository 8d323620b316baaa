#!/usr/bin/env python3
"""The cost of late = "capture" for the application's writers, as a ratio with and without its triggers.

Starts a PostgreSQL of its own (the newest installed one that has pgbench) in a temporary directory, makes equal tables, one
of them captured, and lets pgbench write to them at random, transaction by transaction over one connection, so that whatever
else the machine does meets all of them alike. Each figure is the ratio of a round's median latencies: the
median of all rounds, and least to most. Usage: capture.py [ROUNDS] [SECONDS] [WORD]; with WORD only the cases whose
name holds it, such as "late"
"""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

from postgres import Server

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
SECONDS = int(sys.argv[2]) if len(sys.argv) > 2 else 6
WORD = sys.argv[3] if len(sys.argv) > 3 else ""
PORT = "54997"

INSERT = "INSERT INTO {t} (created_at, kind, amount) VALUES (now(), 'view', 1);"
UPDATE = "\\set n random(1, 1000)\nUPDATE {t} SET amount = amount + 1 WHERE id = :n;"
ROWS = "INSERT INTO {t} (created_at, kind, amount) SELECT %s, 'view', n FROM generate_series(1, 10000) n;"

# Name, settings of the sessions, clients, protocol, and the script for table {t}; `now` is what the application stamps.
SINGLE = [
    ("single inserts", "on", 1, "prepared", INSERT),
    ("single inserts, simple protocol", "on", 1, "simple", INSERT),
    ("single inserts, 4 clients", "on", 4, "prepared", INSERT),
    ("single updates", "on", 1, "prepared", UPDATE),
    ("single inserts, commit not waited for", "off", 1, "prepared", INSERT),
    ("the same, simple protocol", "off", 1, "simple", INSERT),
    ("single updates, commit not waited for", "off", 1, "prepared", UPDATE),
]
BULK = [
    ("10,000 fresh rows in one statement", ROWS % "now()"),
    ("10,000 fresh rows by COPY", "COPY {t} (created_at, kind, amount) FROM '{dir}/fresh.csv' (FORMAT csv);"),
    ("10,000 late rows of one day", ROWS % "'2026-01-01Z'::timestamptz + n * interval '8 seconds'"),
    ("10,000 late rows by COPY", "COPY {t} (created_at, kind, amount) FROM '{dir}/late.csv' (FORMAT csv);"),
    ("10,000 late rows, at random in a week", ROWS % "'2025-01-01Z'::timestamptz + random() * interval '7 days'"),
    ("10,000 late rows, at random in a year", ROWS % "'2025-01-01Z'::timestamptz + random() * interval '365 days'"),
]
CASES = SINGLE + [(name, "off", 1, "prepared", sql) for name, sql in BULK]
# `idle` has a trigger that never fires, which shows the cost of any trigger.
TABLES = ("plain", "idle", "captured")
IDLE = (
    "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
    "CREATE TRIGGER idle AFTER INSERT OR UPDATE ON idle FOR EACH ROW WHEN (false) EXECUTE FUNCTION nothing();"
)
TABLE = (
    "CREATE TABLE {t} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, created_at timestamptz NOT NULL,"
    " kind text, amount numeric); CREATE INDEX ON {t} (created_at);"
)
CONFIG = """
[source]
url = "postgres://postgres@127.0.0.1:%s/postgres"
[[rollup]]
name = "daily"
from = "public.captured"
time = "created_at"
start = "2025-01-01"
slice = "1 day"
late = "capture"
group_by = ["kind"]
measures = { events = "count" }
""" % PORT


def main():
    home = pathlib.Path(tempfile.mkdtemp(prefix="tallymark-bench-"))
    settings = {"shared_buffers": "512MB", "autovacuum": "off", "max_wal_size": "8GB"}
    try:
        with Server(home, PORT, settings) as server:
            measure(server, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def latencies(server, home, case):
    """Microseconds of each transaction of one round, by table."""
    _, commit, clients, protocol, sql = case
    scripts = []
    for table in TABLES:
        rows = "SELECT now() + interval '1 hour' FROM generate_series(1, 1000)"
        server.psql(f"TRUNCATE {table} RESTART IDENTITY; INSERT INTO {table} (created_at) {rows}")
        script = home / f"{table}.sql"
        script.write_text(sql.format(t=table, dir=home) + "\n")
        scripts += ["-f", script]
    server.psql("TRUNCATE tallymark.mark")
    server.psql("CHECKPOINT")
    words = server.client("pgbench", "-n", "-c", clients, "-T", SECONDS, "-M", protocol, "-l", "--log-prefix",
                          home / "times", *scripts, server.database)
    environment = {**os.environ, "PGOPTIONS": f"-c synchronous_commit={commit}"}
    subprocess.run(words, check=True, capture_output=True, env=environment)
    seen = {table: [] for table in TABLES}
    for log in home.glob("times.*"):
        for line in log.read_text().splitlines():
            fields = line.split()
            seen[TABLES[int(fields[3])]].append(int(fields[2]))
        log.unlink()
    return seen


def ratios(rounds, table):
    single = [statistics.median(seen[table]) / statistics.median(seen["plain"]) for seen in rounds]
    return f"{statistics.median(single):6.3f} ({min(single):.2f}-{max(single):.2f})"


def measure(server, home):
    os.chmod(home, 0o755)
    for name, first, step in [("fresh", "2100-01-01T00:00:00Z", 0), ("late", "2026-01-01T00:00:00Z", 8)]:
        rows = (f"2026-01-{1 + n * 8 // 86400:02}T{n * 8 % 86400 // 3600:02}:{n * 8 % 3600 // 60:02}:{n * 8 % 60:02}Z"
                if step else first for n in range(10000))
        (home / f"{name}.csv").write_text("".join(f"{at},view,{n}\n" for n, at in enumerate(rows)))
    for table in TABLES:
        server.psql(TABLE.format(t=table))
    server.psql(IDLE)
    config = home / "tallymark.toml"
    config.write_text(CONFIG)
    binary = os.environ.get("TALLYMARK", str(ROOT / "target/debug/tallymark"))
    environment = {**os.environ, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    installed = subprocess.run([binary, "--config", str(config), "--json", "capture", "install"], check=True,
                               capture_output=True, text=True, env=environment)
    assert json.loads(installed.stdout)["statements"]
    print(f"{'writes':40} {'without':>11} {'with / without':>22} {'idle trigger / without':>24}")
    for case in CASES:
        if WORD not in case[0]:
            continue
        rounds = [latencies(server, home, case) for _ in range(ROUNDS)]
        without = statistics.median(time for seen in rounds for time in seen["plain"])
        print(f"{case[0]:40} {without:8.0f} µs {ratios(rounds, 'captured'):>22} {ratios(rounds, 'idle'):>24}", flush=True)


main()
