#!/usr/bin/env python3
"""The impact on an application while its history is counted: by Tallymark, dbt, SQLMesh and naive jobs.

pgbench plays an application at a steady rate on a PostgreSQL of its own, in rounds of equal length and shuffled order,
alone and beside each contender. Prints a table of ratios to the idle rounds of the same repetition, and draws
a chart. docs/IMPACT.md explains the figures. Everything it needs is kept below target/impact.
"""

import argparse
import contextlib
import fcntl
import json
import math
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import contenders
import figures
import scenes
from measure import App, Counters, busy, stat, tree

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent))
from dynamo import dynamodb  # noqa: E402
from postgres import Server  # noqa: E402

PORT = 54996
ITEMS = 200_000
SETUPS = ["memory", "small"]
SETTINGS = {"work_mem": "16MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h", "autovacuum": "off",
            "track_io_timing": "off", "effective_cache_size": "16GB"}
# Time limit for a contender's start, which is not measured. The impact on the application afterwards is.
START_SECONDS_MAX = 90
# ... and has begun when this many rows were read.
START_ROWS = 50_000
# The machine counts as quiet if other processes take less than this.
BUSY_CORES_MAX = 0.25


def shared_buffers(setup, rows):
    """With `memory` the table and its indexes fit; with `small` nearly all of them come from the system's cache."""
    return f"{max(4, math.ceil(rows / 6e6))}GB" if setup == "memory" else "64MB"


class Place:
    """The servers, the directories and the binary."""

    def __init__(self, arguments, setup):
        self.home = ROOT / "target/impact"
        self.binary = arguments.binary.resolve()
        self.rows = arguments.rows
        settings = {**SETTINGS, "shared_buffers": shared_buffers(setup, self.rows)}
        self.cluster = self.home / "postgres"
        self.cluster.mkdir(parents=True, exist_ok=True)
        self.server = Server(self.cluster, PORT, settings, f"impact_{self.rows}")
        self.environment = {}

    @contextlib.contextmanager
    def running(self):
        """Starts both servers."""
        with self.server, self.dynamodb():
            self.seed()
            yield self

    def seed(self):
        """Makes the application's tables, unless an earlier run has."""
        server, name = self.server, self.server.database
        if server.psql(f"SELECT count(*) FROM pg_database WHERE datname = '{name}'", "postgres") == "0":
            print(f"seeding {self.rows} rows", file=sys.stderr)
            server.psql(f"CREATE DATABASE {name}_new", "postgres")
            seed = (HERE / "seed.sql").read_text().replace("{rows}", str(self.rows)).replace("{items}", str(ITEMS))
            server.psql(seed, f"{name}_new")
            server.psql(f"ALTER DATABASE {name}_new RENAME TO {name}", "postgres")
        server.psql("DELETE FROM events WHERE created_at > '2026-04-01Z'")
        server.psql("VACUUM ANALYZE")
        server.psql("CREATE EXTENSION IF NOT EXISTS pg_prewarm")
        for relation in ("events", "events_pkey", "events_created_at_idx", "items", "items_pkey"):
            server.psql(f"SELECT pg_prewarm('{relation}')")

    @contextlib.contextmanager
    def dynamodb(self):
        """Starts DynamoDB."""
        with dynamodb(self.binary, self.home / "demo") as (self.dynamo_pid, found):
            self.environment |= found
            yield


def begun(place, contender, counters):
    """Waits until the contender reads."""
    end = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < end:
        if contender.process.poll() is not None or Counters(place.server).rows - counters.rows > START_ROWS:
            return
        # Each look is a new session, which a tool that adapts takes for other work.
        time.sleep(1)
    print(f"{contender.name} has not read {START_ROWS} rows in {START_SECONDS_MAX} s", file=sys.stderr)


def one_round(place, app, contender, scene, seconds):
    """The impact on the application and the work done, in one round of a scene."""
    server = place.server
    server.psql("VACUUM items")
    if contender:
        contender.prepare()
    server.psql("CHECKPOINT")
    scene.prepare(place)
    if contender:
        before = Counters(server)
        contender.start()
        begun(place, contender, before)
    before, load = Counters(server), os.getloadavg()[0]
    tool, dynamo = tree(contender.process.pid) if contender else 0, stat(place.dynamo_pid)[1]
    try:
        latencies = scene.play(place, app, seconds)
        after_cpu = Counters(server)
        tool = (tree(contender.process.pid) if contender else 0) - tool
        dynamo = stat(place.dynamo_pid)[1] - dynamo
    finally:
        if contender:
            contender.stop()
    after = Counters(server)
    cpu = after_cpu.cpu - before.cpu
    ours = cpu + tool + dynamo + latencies["app_cpu"]
    if contender and "started" in latencies:
        latencies["fallen"] = scenes.fallen(contender.said, latencies["started"])
    return {
        "contender": contender.name if contender else "idle", **latencies, "rows": after.rows - before.rows,
        "blocks": after.blocks - before.blocks, "missed": after.missed - before.missed, "wal": after.wal - before.wal, "cpu": cpu,
        "tool_cpu": tool,
        "dynamo_cpu": dynamo, "others": after_cpu.busy - before.busy - ours, "seconds": after_cpu.at - before.at,
        "load": load,
    }


@contextlib.contextmanager
def quiet(lock, patience):
    """Excludes other benchmarks that take the same lock, and waits a while for them."""
    with contextlib.ExitStack() as stack:
        if lock:
            fcntl.flock(stack.enter_context(open(lock, "a")), fcntl.LOCK_EX)
        end = time.monotonic() + patience
        while time.monotonic() < end:
            before = busy()
            time.sleep(1)
            if busy() - before < BUSY_CORES_MAX:
                break
        yield


def rounds(place, arguments, setup, out):
    """All repetitions of one set-up, each in a different order."""
    app = App(place, arguments.share)
    print(f"{setup}: the application asks {app.rate} times a second, {arguments.share:.0%} of {app.capacity:.0f}",
          file=sys.stderr)
    tools = contenders.install(place.home)
    found = [None, *contenders.all_of(place, tools, arguments.tallymark)]
    if arguments.only:
        found = [one for one in found if one is None or any(word in one.name for word in arguments.only.split("|"))]
    chosen = [arguments.scene] if arguments.scene != "all" else scenes.SCENES
    pairs = [(name, one) for name in chosen for one in found if one is None or scenes.plays(scenes.SCENES[name], one.name)]
    seen = []
    for repetition in range(arguments.repetitions):
        for scene, contender in random.sample(pairs, len(pairs)):
            with quiet(arguments.lock, arguments.patience):
                line = one_round(place, app, contender, scenes.SCENES[scene], arguments.seconds)
            line |= {"scene": scene, "setup": setup, "repetition": repetition, "rate": app.rate, "capacity": app.capacity,
                     "total": place.rows}
            seen.append(line)
            out.write(json.dumps(line) + "\n")
            out.flush()
            ms = f"p99 {line['p99']:7.2f} ms" if "p99" in line else ""
            print(f"{repetition} {scene:8} {line['contender']:40} {ms:15} {line['rows'] / line['seconds'] / 1e3:6.0f} k rows/s"
                  f"  others {line['others'] / line['seconds']:.2f} cores", file=sys.stderr)
    return seen


def read_once(place):
    """Rows and blocks of `events` that one backfill reads, beside what the slices' index ranges hold."""
    server = place.server
    tallymark = contenders.Tallymark("Tallymark, blocks", place, "nice_ratio = 0", 1)
    tallymark.prepare()
    before = Counters(server)
    subprocess.run(["sh", "-c", tallymark.command()[0]], cwd=tallymark.home, env=tallymark.environment, check=True,
                   capture_output=True)
    middle = Counters(server, settle=True)
    for day in range(contenders.DAYS):
        bounds = [f"'{contenders.FIRST}Z'::timestamptz + interval '{n} days'" for n in (day, day + 1)]
        server.psql("SET max_parallel_workers_per_gather = 0; SELECT count(amount), sum(user_id) FROM events"
                    f" WHERE created_at >= {bounds[0]} AND created_at < {bounds[1]}")
    after = Counters(server, settle=True)
    rows, floor = middle.rows - before.rows, after.rows - middle.rows
    blocks, blocks_floor = middle.blocks - before.blocks, after.blocks - middle.blocks
    return (f"one backfill of {contenders.DAYS} slices: {rows} rows of {floor} ({rows / floor:.4f}), {blocks} blocks of"
            f" {blocks_floor} ({blocks / blocks_floor:.4f}) that the slices' index ranges hold")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=12, help="of each round")
    parser.add_argument("--rows", type=int, default=12_000_000)
    parser.add_argument("--share", type=float, default=0.27, help="of the machine that the application takes alone")
    parser.add_argument("--setup", choices=[*SETUPS, "both"], default="both")
    parser.add_argument("--scene", choices=[*scenes.SCENES, "all"], default="all", help="what the application does")
    parser.add_argument("--only", help="contenders whose names contain one of these words: a|b")
    parser.add_argument("--tallymark", action="append", default=[], metavar="SETTINGS[@CONCURRENCY]",
                        help="one more contender: Tallymark with these lines of [source], divided by ;")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/tallymark")
    parser.add_argument("--lock", help="a file that is locked during each round, where others lock it for theirs")
    parser.add_argument("--patience", type=float, default=0, help="seconds to wait for a quiet machine before a round")
    parser.add_argument("--chart", type=pathlib.Path, help="where to write the SVG")
    arguments = parser.parse_args()
    chosen = SETUPS if arguments.setup == "both" else [arguments.setup]
    # Ending it also ends its servers.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit("ended"))
    seen = []
    (ROOT / "target/impact").mkdir(parents=True, exist_ok=True)
    with open(ROOT / f"target/impact/rounds-{int(time.time())}.jsonl", "w") as out:
        for setup in chosen:
            with Place(arguments, setup).running() as place:
                print(f"{setup}: {read_once(place)}", flush=True)
                seen += rounds(place, arguments, setup, out)
    for setup in chosen:
        print(f"\n{setup} ({shared_buffers(setup, arguments.rows)} of shared_buffers)")
        for name, scene in scenes.SCENES.items():
            lines = [line for line in seen if (line["setup"], line["scene"]) == (setup, name)]
            if lines:
                print(f"\n**{scene.title}**\n\n{figures.table(lines)}", flush=True)
    steady = [line for line in seen if line["scene"] == "steady"]
    if steady:
        chart = arguments.chart or ROOT / "target/impact/impact.svg"
        chart.write_text(figures.chart(steady))
        print(f"\n{chart}")


if __name__ == "__main__":
    main()
