#!/usr/bin/env python3
"""What late = "capture" costs the application's writers, as a ratio with and without its triggers.

Starts a PostgreSQL of its own (the newest installed one that has pgbench) in a temporary directory, makes two equal tables,
one of them captured, and lets pgbench write to both in alternating rounds. Usage: capture.py [ROUNDS] [SECONDS]
"""

import glob
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 11
SECONDS = int(sys.argv[2]) if len(sys.argv) > 2 else 3
PORT = "54997"

# name, and the script for table {t}; `now` is what the application stamps.
CASES = [
    ("single inserts", "INSERT INTO {t} (created_at, kind, amount) VALUES (now(), 'view', 1);"),
    ("10,000 fresh rows in one statement",
     "INSERT INTO {t} (created_at, kind, amount) SELECT now(), 'view', n FROM generate_series(1, 10000) n;"),
    ("10,000 late rows of one day",
     "INSERT INTO {t} (created_at, kind, amount) SELECT '2026-01-01Z'::timestamptz + n * interval '8 seconds', 'view', n"
     " FROM generate_series(1, 10000) n;"),
    ("10,000 late rows, at random in a year",
     "INSERT INTO {t} (created_at, kind, amount) SELECT '2025-01-01Z'::timestamptz + random() * interval '365 days', 'view',"
     " n FROM generate_series(1, 10000) n;"),
    ("10,000 fresh rows by COPY", "COPY {t} (created_at, kind, amount) FROM '{dir}/fresh.csv' (FORMAT csv);"),
    ("10,000 late rows by COPY", "COPY {t} (created_at, kind, amount) FROM '{dir}/late.csv' (FORMAT csv);"),
]
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


def binaries():
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/pgbench"), key=lambda p: int(p.split("/")[4]))
    found = found or ([shutil.which("pgbench")] if shutil.which("pgbench") else [])
    if not found:
        sys.exit("pgbench is not installed (Debian: postgresql-contrib)")
    return pathlib.Path(found[-1]).parent


def main():
    bin_dir = binaries()
    home = pathlib.Path(tempfile.mkdtemp(prefix="tallymark-bench-"))
    as_user = []
    if os.geteuid() == 0:
        shutil.chown(home, "postgres")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    run = lambda *words: subprocess.run([*as_user, *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    run(bin_dir / "initdb", "-D", home / "data", "-A", "trust", "-U", "postgres")
    options = f"-p {PORT} -c listen_addresses=127.0.0.1 -k {home} -c shared_buffers=512MB -c autovacuum=off" \
        " -c max_wal_size=8GB -c synchronous_commit=off"
    run(bin_dir / "pg_ctl", "-D", home / "data", "-w", "-l", home / "log", "-o", options, "start")
    try:
        measure(bin_dir, home)
    finally:
        run(bin_dir / "pg_ctl", "-D", home / "data", "-w", "-m", "immediate", "stop")
        shutil.rmtree(home, ignore_errors=True)


def psql(bin_dir, sql):
    words = [bin_dir / "psql", "-q", "-h", "127.0.0.1", "-p", PORT, "-U", "postgres", "-v", "ON_ERROR_STOP=1"]
    subprocess.run([*map(str, words), "-c", sql], check=True, stdout=subprocess.DEVNULL)


def tps(bin_dir, script):
    words = [bin_dir / "pgbench", "-n", "-h", "127.0.0.1", "-p", PORT, "-U", "postgres", "-c", "1", "-T", SECONDS,
             "-M", "prepared", "-f", script, "postgres"]
    out = subprocess.run([*map(str, words)], check=True, capture_output=True, text=True).stdout
    return float(re.search(r"tps = ([0-9.]+)", out).group(1))


def measure(bin_dir, home):
    os.chmod(home, 0o755)
    for name, first, step in [("fresh", "2100-01-01T00:00:00Z", 0), ("late", "2026-01-01T00:00:00Z", 8)]:
        rows = (f"2026-01-{1 + n * 8 // 86400:02}T{n * 8 % 86400 // 3600:02}:{n * 8 % 3600 // 60:02}:{n * 8 % 60:02}Z"
                if step else first for n in range(10000))
        (home / f"{name}.csv").write_text("".join(f"{at},view,{n}\n" for n, at in enumerate(rows)))
    for table in ("plain", "captured"):
        psql(bin_dir, TABLE.format(t=table))
    config = home / "tallymark.toml"
    config.write_text(CONFIG)
    binary = os.environ.get("TALLYMARK", str(ROOT / "target/debug/tallymark"))
    environment = {**os.environ, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    installed = subprocess.run([binary, "--config", str(config), "--json", "capture", "install"], check=True,
                               capture_output=True, text=True, env=environment)
    assert json.loads(installed.stdout)["statements"]
    print(f"{'writes':40} {'without':>10} {'with':>10} {'time with / without':>20}")
    for name, sql in CASES:
        seen = {"plain": [], "captured": []}
        for turn in range(ROUNDS):
            order = ["plain", "captured"] if turn % 2 == 0 else ["captured", "plain"]
            for table in order:
                psql(bin_dir, f"TRUNCATE {table}; CHECKPOINT")
                script = home / f"{table}.sql"
                script.write_text(sql.format(t=table, dir=home) + "\n")
                seen[table].append(tps(bin_dir, script))
            psql(bin_dir, "TRUNCATE tallymark.mark")
        ratios = [without / with_ for without, with_ in zip(seen["plain"], seen["captured"])]
        middle = statistics.median
        print(f"{name:40} {middle(seen['plain']):8.0f}/s {middle(seen['captured']):8.0f}/s"
              f" {middle(ratios):12.3f} ({min(ratios):.2f}-{max(ratios):.2f})", flush=True)


main()
