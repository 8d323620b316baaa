#!/usr/bin/env python3
"""What each kind of measure costs: a day of 167,000 rows in 2,900 groups with each kind alone, as a ratio to `count`.

Starts a PostgreSQL of its own (the newest installed one that has pgbench) in a temporary directory. In each round every kind
fills an empty table once, in a random order, read whole and at full speed within one database. A figure is the median of the
rounds of the work that the slice's own summary states, and the ratio to `count` within each round. Then the same day is read
in chunks, with all kinds at once, by workers that are killed between and within them until one ends; every number is compared
with the source. Usage: kinds.py TALLYMARK [ROUNDS]
"""

import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from postgres import Server, tallymark

TALLYMARK = pathlib.Path(sys.argv[1]).resolve()
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 7
PORT = "54994"
DAY = "2026-01-01T00:00:00Z"
KILLS = 6
SEED = """
CREATE TABLE events (created_at timestamptz NOT NULL, entity_id integer NOT NULL, kind text NOT NULL,
    user_id bigint NOT NULL, amount numeric(10, 2), ms double precision, status text, is_paid boolean, updated_at timestamptz);
SELECT setseed(0.5);
INSERT INTO events SELECT '2026-01-01Z'::timestamptz + n * interval '0.517 seconds', (random() ^ 3 * 1000)::integer,
    (ARRAY['view', 'click', 'buy'])[1 + n % 3], (random() * 100000)::bigint, (random() * 1000)::numeric(10, 2),
    exp(random() * 9), 'status ' || n % 7, n % 11 < 4, '2026-01-01Z'::timestamptz + n * interval '1 second'
    FROM generate_series(1, 167000) AS n;
CREATE INDEX ON events (created_at);
"""
KINDS = {
    "count": '"count"',
    "sum": '{ sum = "amount" }',
    "max": '{ max = "amount" }',
    "avg": '{ avg = "amount" }',
    "any": '{ any = "is_paid" }',
    "stddev": '{ stddev = "amount" }',
    "histogram": '{ histogram = "ms", bounds = [1, 10, 100, 1000] }',
    "last": '{ last = "status", by = "updated_at" }',
    "distinct": '{ distinct = "user_id" }',
    "exact": '{ distinct = "user_id", merge = "exact" }',
    "approximate": '{ distinct = "user_id", merge = "approximate" }',
    "percentiles": '{ percentiles = "ms", at = [0.5, 0.95, 0.99] }',
}
# What the numbers of all kinds at once must be.
TRUTH = """
SELECT count(*) FROM (SELECT date_trunc('day', created_at, 'UTC') AS bucket, entity_id, kind, count(*) AS n,
        max(amount) AS greatest, stddev(amount) AS spread, count(DISTINCT user_id) AS users,
        percentile_disc(0.95) WITHIN GROUP (ORDER BY ms) AS p95,
        (array_agg(status ORDER BY updated_at DESC))[1] AS status FROM events GROUP BY 1, 2, 3) t
FULL JOIN stats.whole r USING (bucket, entity_id, kind)
WHERE (t.n, t.greatest, round(t.spread, 6), t.users, t.users, t.users, t.status)
    IS DISTINCT FROM (r.m_count, r.m_max, round(r.m_stddev, 6), r.m_distinct, r.m_exact,
        tallymark.unique_count(r.m_exact_set), r.m_last)
    OR abs(t.users - r.m_approximate) > 1 + 0.05 * t.users OR abs(t.p95 - r.m_percentiles_p95) > t.p95 / 128
"""


def config(source, rollups):
    url = f"postgres://postgres@127.0.0.1:{PORT}/postgres"
    text = f'[source]\nurl = "{url}"\nnice_ratio = 0\nnaps = false\n{source}\n[checkpoint]\nstore = "postgres"\n'
    for name, measures in rollups:
        text += (f'[[rollup]]\nname = "{name}"\nfrom = "public.events"\ntime = "created_at"\nstart = "2026-01-01"\n'
                 f'slice = "1 day"\ngroup_by = ["entity_id", "kind"]\n[rollup.measures]\n{measures}\n')
    return text


def main():
    home = pathlib.Path(tempfile.mkdtemp(prefix="tallymark-bench-"))
    try:
        with Server(home, PORT, {"shared_buffers": "512MB", "work_mem": "16MB", "autovacuum": "off", "jit": "off"}) as server:
            server.psql(SEED)
            server.psql("VACUUM ANALYZE events")
            cost(home / "tallymark.toml")
            killed(server, home / "chunks.toml")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def run(file, *words, may_fail=False):
    return tallymark(TALLYMARK, file, *words, may_fail=may_fail)


def cost(file):
    names = [(f"{kind}_{turn}", f"m_{kind} = {form}") for turn in range(ROUNDS + 1) for kind, form in KINDS.items()]
    file.write_text(config('chunk_time = "60s"', names))
    run(file, "init")
    seen = {kind: [] for kind in KINDS}
    for turn in range(ROUNDS + 1):
        for kind in random.sample(list(KINDS), len(KINDS)):
            slice_ = run(file, "run", f"{kind}_{turn}", "--slice", DAY)["slices"][0]
            assert slice_["outcome"] == "succeeded" and slice_["chunks"] == 1, slice_
            # The first round fills the caches.
            if turn > 0:
                seen[kind].append(slice_["source_ms"])
    print(f"{slice_['rows_read']:,} rows in {slice_['groups']:,} groups, {ROUNDS} rounds")
    for kind, times in seen.items():
        ratios = [time / count for time, count in zip(times, seen["count"])]
        print(f"{KINDS[kind]:55} {statistics.median(times):6.0f} ms {statistics.median(ratios):6.2f} "
              f"({min(ratios):.2f}-{max(ratios):.2f})", flush=True)


def killed(server, file):
    measures = "\n".join(f"m_{kind} = {form}" for kind, form in KINDS.items())
    file.write_text(config('chunk_time = "50ms"', [("whole", measures)]))
    run(file, "init")
    words = [TALLYMARK, "--config", file, "--json", "run", "whole", "--slice", DAY, "--budget"]
    for _ in range(KILLS):
        before = server.psql("SELECT coalesce(max(chunks), 0) FROM tallymark.progress")
        worker = subprocess.Popen([*words, "1s"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(random.uniform(0.2, 0.9))
        worker.kill()
        worker.wait()
        # The lease of a killed worker lasts for the rest of its budget and 5 s.
        time.sleep(6.5)
        print(f"killed after chunk {server.psql('SELECT coalesce(max(chunks), 0) FROM tallymark.progress')}, from {before}")
    while True:
        slice_ = run(file, "run", "whole", "--slice", DAY, "--budget", "60s")["slices"][0]
        if slice_["outcome"] in ("succeeded", "already_succeeded"):
            break
        time.sleep(1)
    differ = server.psql(TRUTH)
    verified = run(file, "verify", "whole")
    print(f"{slice_['chunks']} chunks, attempt {slice_['attempt']}: {differ} groups differ from the source; "
          f"verify: {verified['differences']} differences")
    if differ != "0" or verified["differences"] != 0:
        sys.exit("the rollup differs from its source")


if __name__ == "__main__":
    main()
