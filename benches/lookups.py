#!/usr/bin/env python3
"""What a lookup costs: a day of 167,000 rows with and without one, and a change of one row of the table that is looked up.

Starts a PostgreSQL of its own (the newest installed one that has pgbench) in a temporary directory. First the same day is
grouped by a column of the rows and by the same column of a table beside them, in turn, read whole and at full speed into
empty tables. A figure is the median of the rounds of the work that the slice's own summary states. Then an account with
10,000 orders on 200 of 240 days gets another country, and one tick corrects the days; beside it stands the time that the
240 days took. Usage: lookups.py TALLYMARK [ROUNDS]
"""

import pathlib
import random
import shutil
import statistics
import sys
import tempfile
import time

from postgres import Server, tallymark

TALLYMARK = pathlib.Path(sys.argv[1]).resolve()
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 7
PORT = "54995"
SEED = """
CREATE TABLE accounts (id integer PRIMARY KEY, country text, note text);
INSERT INTO accounts SELECT n, 'c' || n % 50, 'note ' || n FROM generate_series(1, 20000) AS n;
CREATE TABLE events (created_at timestamptz NOT NULL, account_id integer NOT NULL, country text, amount numeric(10, 2));
SELECT setseed(0.5);
INSERT INTO events SELECT at, account, 'c' || account % 50, amount FROM (
    SELECT '2026-01-01Z'::timestamptz + n * interval '0.517 seconds' AS at, 1 + (random() ^ 3 * 19998)::integer AS account,
        (random() * 1000)::numeric(10, 2) AS amount FROM generate_series(1, 167000) AS n) AS made;
CREATE INDEX ON events (created_at);
CREATE TABLE orders (created_at timestamptz NOT NULL, account_id integer NOT NULL, amount numeric(10, 2));
INSERT INTO orders SELECT '2025-01-01Z'::timestamptz + day * interval '1 day' + n * interval '20 minutes', 7, n
    FROM generate_series(0, 239) AS day, generate_series(1, 50) AS n WHERE day % 6 < 5;
INSERT INTO orders SELECT '2025-01-01Z'::timestamptz + n * interval '43.2 seconds', 8 + n % 1000, n % 100
    FROM generate_series(0, 479999) AS n;
CREATE INDEX ON orders (created_at);
CREATE INDEX ON orders (account_id);
"""
LOOKUP = 'lookup = [{ account = "public.accounts", on = "account.id = account_id" }]\ngroup_by = [{ country = "account.country" }]'
FORMS = {"a column of the row": 'group_by = ["country"]', "a column of the lookup": LOOKUP}
# The orders of each day by country, and those that the rollup has.
TRUTH = """
SELECT count(*) FROM (SELECT date_trunc('day', created_at, 'UTC') AS bucket, country, count(*) AS n, sum(amount) AS total
    FROM orders LEFT JOIN accounts ON id = account_id GROUP BY 1, 2) t
FULL JOIN stats.orders_daily r USING (bucket, country) WHERE (t.n, t.total) IS DISTINCT FROM (r.n, r.total)
"""


def config(rollups):
    url = f"postgres://postgres@127.0.0.1:{PORT}/postgres"
    text = f'[source]\nurl = "{url}"\nnice_ratio = 0\nnaps = false\nchunk_time = "60s"\n[checkpoint]\nstore = "postgres"\n'
    for name, table, start, rest in rollups:
        text += (f'[[rollup]]\nname = "{name}"\nfrom = "public.{table}"\ntime = "created_at"\nstart = "{start}"\n'
                 f'slice = "1 day"\n{rest}\n[rollup.measures]\nn = "count"\ntotal = {{ sum = "amount" }}\n')
    return text


def run(file, *words):
    return tallymark(TALLYMARK, file, *words)


def day(file):
    names = [(f"r{place}_{turn}", "events", "2026-01-01", form)
             for turn in range(ROUNDS + 1) for place, form in enumerate(FORMS.values())]
    file.write_text(config(names))
    run(file, "init")
    seen = [[] for _ in FORMS]
    for turn in range(ROUNDS + 1):
        for place in random.sample(range(len(FORMS)), len(FORMS)):
            slice_ = run(file, "run", f"r{place}_{turn}", "--slice", "2026-01-01T00:00:00Z")["slices"][0]
            assert slice_["outcome"] == "succeeded" and slice_["chunks"] == 1, slice_
            # The first round fills the caches.
            if turn > 0:
                seen[place].append(slice_["source_ms"])
    print(f"{slice_['rows_read']:,} rows in {slice_['groups']} groups, {ROUNDS} rounds")
    for name, times in zip(FORMS, seen):
        ratios = [time / plain for time, plain in zip(times, seen[0])]
        print(f"{name:25} {statistics.median(times):6.0f} ms {statistics.median(ratios):6.2f} "
              f"({min(ratios):.2f} to {max(ratios):.2f})")


def change(server, file):
    rest = f'late = "capture"\n{LOOKUP}'
    file.write_text(config([("orders_daily", "orders", "2025-01-01", rest)]))
    run(file, "init")
    run(file, "capture", "install")
    begun = time.monotonic()
    run(file, "backfill", "orders_daily", "--to", "2025-08-29", "--concurrency", "1", "--yes")
    filled = time.monotonic() - begun
    run(file, "run", "orders_daily")
    print(f"240 days of {server.psql('SELECT count(*) FROM orders')} orders by a backfill: {filled:.2f} s")
    for turn in range(ROUNDS):
        server.psql(f"UPDATE accounts SET country = 'new {turn}' WHERE id = 7")
        begun = time.monotonic()
        slices = run(file, "run", "orders_daily")["slices"]
        elapsed = time.monotonic() - begun
        differ = server.psql(TRUTH)
        print(f"another country of one account: a tick of {elapsed:.2f} s, {len(slices)} slices, "
              f"{elapsed / filled:.2f} of the backfill; {differ} groups differ", flush=True)
        if differ != "0":
            sys.exit("the rollup differs from its source")
    note = "UPDATE accounts SET note = note || '.'"
    server.psql(note)
    print(f"another note of every account: {len(run(file, 'run', 'orders_daily')['slices'])} slices")


def main():
    home = pathlib.Path(tempfile.mkdtemp(prefix="tallymark-bench-"))
    try:
        with Server(home, PORT, {"shared_buffers": "512MB", "work_mem": "16MB", "autovacuum": "off", "jit": "off"}) as server:
            server.psql(SEED)
            server.psql("VACUUM ANALYZE")
            day(home / "day.toml")
            change(server, home / "change.toml")
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
