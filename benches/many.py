#!/usr/bin/env python3
"""What many rollups cost: the configuration, `init`, a tick with nothing due, and `status`.

Starts a PostgreSQL of its own (the newest installed one that has pgbench) in a temporary directory, and the DynamoDB of the
demo. Each call to DynamoDB passes a relay that holds it back for 10 ms, as a region does. Half of the rollups are by the hour,
half by the day, and each table is counted by as many of them. `init` makes the tables of the first INITIATED rollups, and a
tick computes what is due of them, without the relay. All others get copies of their checkpoints: a tick with nothing due and
`status` read checkpoints alone.
Usage: many.py TALLYMARK [ROLLUPS [TABLES [INITIATED]]]
"""

import asyncio
import datetime
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter

from dynamo import dynamodb
from postgres import Server

TALLYMARK = pathlib.Path(sys.argv[1]).resolve()
ROLLUPS = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
TABLES = int(sys.argv[3]) if len(sys.argv) > 3 else 200
INITIATED = min(ROLLUPS, int(sys.argv[4]) if len(sys.argv) > 4 else 2 * TABLES)
PORT = "54988"
DELAY = 0.010
TARGET = re.compile(rb"x-amz-target: *dynamodb_\d+\.(\w+)", re.IGNORECASE)


class Relay:
    """Passes bytes to `port` of this machine, and holds each request back."""

    def __init__(self, port):
        self.port, self.calls, self.ready = port, Counter(), threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        self.ready.wait()

    async def _serve(self):
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0, backlog=1024)
        self.own = server.sockets[0].getsockname()[1]
        self.ready.set()
        await server.serve_forever()

    async def _relay(self, reader, writer):
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        await asyncio.gather(self._requests(reader, back), self._answers(there, writer))

    async def _requests(self, reader, writer):
        while data := await reader.read(1 << 20):
            targets = [name.decode() for name in TARGET.findall(data)]
            self.calls.update(targets)
            if targets:
                await asyncio.sleep(DELAY)
            writer.write(data)
        writer.close()

    @staticmethod
    async def _answers(reader, writer):
        while data := await reader.read(1 << 20):
            writer.write(data)
        writer.close()


def copy_checkpoints(endpoint):
    """Gives each rollup without tables the checkpoints of one that has them, and the same width."""

    def call(operation, body):
        headers = {"X-Amz-Target": f"DynamoDB_20120810.{operation}", "Content-Type": "application/x-amz-json-1.0",
                   "X-Amz-Date": "20260101T000000Z",
                   "Authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/dynamodb/aws4_request, "
                                    "SignedHeaders=host, Signature=0"}
        request = urllib.request.Request(endpoint, json.dumps(body).encode(), headers)
        return json.loads(urllib.request.urlopen(request).read())

    for number in range(INITIATED, ROLLUPS):
        like = f"r{number % (2 * TABLES)}"
        found = call("Query", {"TableName": "tallymark", "KeyConditionExpression": "pk = :it",
                               "ExpressionAttributeValues": {":it": {"S": like}}})
        puts = [{"PutRequest": {"Item": {**item, "pk": {"S": f"r{number}"}}}} for item in found["Items"]]
        call("BatchWriteItem", {"RequestItems": {"tallymark": puts}})


def configuration(server, rollups):
    """The file: rollups by the hour and by the day whose histories begin a slice or two ago."""
    now = datetime.datetime.now(datetime.timezone.utc)
    hour = (now - datetime.timedelta(hours=2)).strftime("%Y-%m-%dT%H:00:00Z")
    day = (now - datetime.timedelta(days=2)).strftime("%Y-%m-%d")
    parts = [f'[source]\nurl = "{server.url}"\nnice_ratio = 0\nnaps = false\n']
    for number in range(rollups):
        table, width = number % TABLES, "hour" if number // TABLES % 2 else "day"
        start = hour if width == "hour" else day
        parts.append(f"""[[rollup]]
name = "r{number}"
from = "public.events_{table}"
time = "created_at"
start = "{start}"
slice = "1 {width}"
group_by = ["kind"]
measures = {{ events = "count", total = {{ sum = "amount" }} }}
""")
    return "\n".join(parts)


def run(file, environment, *words):
    """Seconds, the peak of its memory in MiB, and what it printed."""
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([TALLYMARK, "--config", file, *words], stdout=out, stderr=subprocess.STDOUT,
                                   env={**os.environ, **environment})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - begun
        out.seek(0)
        said = out.read()
    return process.returncode, seconds, usage.ru_maxrss / 1024, said


def measured(what, file, environment, *words, code=0, relay=None):
    before = Counter(relay.calls) if relay else Counter()
    ended, seconds, memory, said = run(file, environment, *words)
    if ended != code:
        sys.exit(f"tallymark {' '.join(words)} ended with {ended}: {said[-2000:]}")
    calls = relay.calls - before if relay else Counter()
    print(f"{what}: {seconds:.2f} s, {memory:.0f} MiB, {dict(calls) or ''}", flush=True)
    return said


def measure(server, home, environment):
    for table in range(TABLES):
        server.psql(f"""CREATE TABLE events_{table} (created_at timestamptz NOT NULL, kind text NOT NULL, amount bigint NOT NULL);
            INSERT INTO events_{table} SELECT now() - n * interval '20 minutes', 'view', n FROM generate_series(0, 299) AS n;
            CREATE INDEX ON events_{table} (created_at)""")
    file, initiated = home / "tallymark.toml", home / "initiated.toml"
    file.write_text(configuration(server, ROLLUPS))
    initiated.write_text(configuration(server, INITIATED))
    measured("the configuration alone", file, environment, "status", "no_such_rollup", code=2)
    measured(f"init of {INITIATED}", initiated, environment, "init")
    measured(f"init of {INITIATED}, with nothing to do", initiated, environment, "init")
    for _ in range(20):
        said = measured(f"a tick of {INITIATED}", initiated, environment, "run", "--budget", "10m")
        if said.startswith("nothing is due"):
            break
    endpoint = environment["AWS_ENDPOINT_URL_DYNAMODB"]
    copy_checkpoints(endpoint)
    relay = Relay(int(endpoint.rsplit(":", 1)[1]))
    slow = {**environment, "AWS_ENDPOINT_URL_DYNAMODB": f"http://127.0.0.1:{relay.own}"}
    for _ in range(3):
        measured("a tick with nothing due", file, slow, "run", relay=relay)
    for _ in range(3):
        measured("status", file, slow, "status", relay=relay)


def main():
    home = pathlib.Path(tempfile.mkdtemp(prefix="tallymark-bench-"))
    try:
        settings = {"shared_buffers": "512MB", "autovacuum": "off", "jit": "off", "fsync": "off",
                    "max_locks_per_transaction": "4096"}
        with Server(home, PORT, settings) as server, dynamodb(TALLYMARK, home / "dynamo") as (_, environment):
            print(f"{ROLLUPS} rollups of {TABLES} tables, each call to DynamoDB held back for {DELAY * 1000:.0f} ms")
            measure(server, home, environment)
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
