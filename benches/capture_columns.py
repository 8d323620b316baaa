#!/usr/bin/env python3
"""The cost of late = "capture" for updates of old rows, by the columns that they change.

Starts a PostgreSQL of its own in a temporary directory, with three equal tables: without triggers (`plain`), with the
triggers that `capture install` makes (`captured`), and with the same triggers without the comparison of columns (`every`),
as earlier versions made them. Each round runs one statement on each table in turn, in a transaction of its own with
synchronous_commit = off. The figures are the median time without triggers, the medians of the rounds' ratios to it, least
and most, and the marks of one statement. Usage: capture_columns.py [ROUNDS]
"""

import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

from postgres import Server

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 9
PORT = "54995"
KINDS = ("plain", "captured", "every")

# Name, table, what the statement sets.
CASES = [
    ("100,000 rows, an unused column", "small", "note = note || '.'"),
    ("100,000 rows, a used column", "small", "amount = amount + 1"),
    ("2,000 rows with an unused value of 20 KB, an unused column", "beside", "note = note || '.'"),
    ("2,000 rows with a used value of 20 KB, an unused column", "wide", "note = note || '.'"),
    ("2,000 rows with a used value of 20 KB, that value", "wide", "props = jsonb_set(props, '{plan}', to_jsonb(clock_timestamp()::text))"),
    ("2,000 rows with a used value of 20 KB, a used column", "wide", "amount = amount + 1"),
]
ROWS = {"small": (100_000, "'{}'"), "beside": (2000, "'{}'"), "wide": (2000, "jsonb_build_object('plan', 'free', 'text', text)")}
TABLE = (
    "CREATE TABLE {t} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, created_at timestamptz NOT NULL, kind text,"
    " amount numeric, note text, props jsonb, other text) WITH (fillfactor = 45, autovacuum_enabled = off);"
    "CREATE INDEX ON {t} (created_at);"
    "ALTER TABLE {t} ALTER props SET STORAGE EXTERNAL, ALTER other SET STORAGE EXTERNAL;"
    "INSERT INTO {t} (created_at, kind, amount, note, props, other) SELECT '2026-01-01Z'::timestamptz + n % 86400 *"
    " interval '1 second', 'view', n, 'n', {props}, {other} FROM generate_series(1, {rows}) n, LATERAL (SELECT"
    " repeat(md5(n::text), 640) AS text) t; ANALYZE {t}"
)
SOURCE = '[source]\nurl = "postgres://postgres@127.0.0.1:%s/postgres"\n' % PORT
ROLLUP = """
[[rollup]]
name = "{t}"
from = "public.{t}"
time = "created_at"
start = "2026-01-01"
slice = "1 day"
late = "capture"
group_by = ["kind", {{ plan = "props->>'plan'" }}]
measures = {{ events = "count", amount = {{ sum = "amount" }} }}
"""


def prepare(server, home):
    os.chmod(home, 0o755)
    config = SOURCE
    for rows in ROWS:
        for kind in KINDS:
            count, props = ROWS[rows]
            other = "text" if rows == "beside" else "NULL"
            server.psql(TABLE.format(t=f"{rows}_{kind}", rows=count, props=props, other=other))
            if kind != "plain":
                config += ROLLUP.format(t=f"{rows}_{kind}")
    path = home / "tallymark.toml"
    path.write_text(config)
    binary = os.environ.get("TALLYMARK", str(ROOT / "target/debug/tallymark"))
    environment = {**os.environ, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    subprocess.run([binary, "--config", str(path), "capture", "install"], check=True, capture_output=True, env=environment)
    for rows in ROWS:
        table = f"{rows}_every"
        made = server.psql(f"SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'tallymark_update' AND tgrelid ="
                           f" '{table}'::regclass")
        head, rest = made.split(" AND (ROW(", 1)
        assert "*<>" in rest, made
        function = rest.split(" EXECUTE FUNCTION ")[1]
        server.psql(f"DROP TRIGGER tallymark_update ON {table}; {head.replace('((', '(', 1)}) EXECUTE FUNCTION {function}")


def milliseconds(server, table, change):
    """The time of one statement."""
    found = server.psql(
        f"SET synchronous_commit = off; CREATE TEMP TABLE t AS SELECT clock_timestamp() AS at; UPDATE {table} SET {change};"
        " SELECT extract(epoch FROM clock_timestamp() - at) * 1000 FROM t")
    return float(found.split("\n")[-1])


def measure(server):
    print(f"{'updates of old rows':62} {'without':>10} {'compared':>18} {'marks':>6} {'every update':>18} {'marks':>6}")
    for name, rows, change in CASES:
        rounds, marks = [], {}
        for _ in range(ROUNDS):
            seen = {}
            for kind in KINDS:
                table = f"{rows}_{kind}"
                server.psql(f"VACUUM {table}")
                server.psql("TRUNCATE tallymark.mark")
                server.psql("CHECKPOINT")
                seen[kind] = milliseconds(server, table, change)
                marks[kind] = server.psql("SELECT count(*) FROM tallymark.mark")
            rounds.append(seen)
        words = [f"{statistics.median(seen['plain'] for seen in rounds):7.0f} ms"]
        for kind in KINDS[1:]:
            ratios = [seen[kind] / seen["plain"] for seen in rounds]
            words += [f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})", marks[kind]]
        print(f"{name:62} {words[0]:>10} {words[1]:>18} {words[2]:>6} {words[3]:>18} {words[4]:>6}", flush=True)


def main():
    home = pathlib.Path(tempfile.mkdtemp(prefix="tallymark-bench-"))
    settings = {"shared_buffers": "512MB", "autovacuum": "off", "max_wal_size": "8GB"}
    try:
        with Server(home, PORT, settings) as server:
            prepare(server, home)
            measure(server)
    finally:
        shutil.rmtree(home, ignore_errors=True)


main()
