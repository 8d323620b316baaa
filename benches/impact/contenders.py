"""The contenders beside the application. Each makes the same daily rollup again and again."""

import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

DAYS = 90
FIRST, END = "2026-01-01", "2026-04-01"
HERE = pathlib.Path(__file__).resolve().parent
# Pinned where the comparison depends on it. The others were the current versions.
PACKAGES = {"dbt": ["dbt-core==1.11.*", "dbt-postgres"], "sqlmesh": ["sqlmesh[postgres]==0.236.*"]}

# A rollup without tools, as Tallymark's own, its index included.
NAIVE = (
    "DROP SCHEMA IF EXISTS naive CASCADE; CREATE SCHEMA naive; CREATE TABLE naive.daily (bucket timestamptz NOT NULL,"
    " entity_id integer, kind text, events bigint, revenue numeric, users bigint);"
    " CREATE UNIQUE INDEX ON naive.daily (bucket, entity_id, kind);"
)
FULL = "SELECT entity_id, kind, count(*), sum(amount) FROM events GROUP BY 1, 2;"
DAY = """BEGIN;
DELETE FROM naive.daily WHERE bucket >= {start} AND bucket < {end};
INSERT INTO naive.daily (bucket, entity_id, kind, events, revenue, users)
SELECT {start}, entity_id, kind, count(*), sum(amount), count(DISTINCT user_id)
FROM events WHERE created_at >= {start} AND created_at < {end} GROUP BY entity_id, kind;
COMMIT;
"""

TALLYMARK = """[source]
url = "{url}"
{source}
[checkpoint]
table = "{table}"
[[rollup]]
name = "daily"
from = "public.events"
time = "created_at"
start = "2026-01-01"
slice = "1 day"
group_by = ["entity_id", "kind"]
measures = {{ events = "count", revenue = {{ sum = "amount" }}, users = {{ distinct = "user_id" }} }}
"""

DBT = {
    "dbt_project.yml": "name: impact\nversion: '1.0'\nprofile: impact\nmodels: {impact: {+schema: dbt}}\n"
        "flags: {send_anonymous_usage_stats: false}\n",
    "profiles.yml": "impact:\n  target: bench\n  outputs:\n    bench: {{type: postgres, host: 127.0.0.1, port: {port},"
        " user: postgres, password: none, dbname: {database}, schema: impact, threads: 2}}\n",
    "models/sources.yml": "sources:\n  - name: public\n    tables:\n      - name: events\n"
        "        config: {event_time: created_at}\n",
    "models/daily.sql": """{{ config(materialized='incremental', incremental_strategy='microbatch', batch_size='day',
    begin='2026-01-01', event_time='bucket', unique_key=['bucket', 'entity_id', 'kind'], lookback=0) }}
SELECT date_trunc('day', created_at, 'UTC') AS bucket, entity_id, kind, count(*) AS events,
       sum(amount) AS revenue, count(DISTINCT user_id) AS users
FROM {{ source('public', 'events') }} GROUP BY 1, 2, 3
""",
}

SQLMESH = {
    "config.yaml": "gateways:\n  bench:\n    connection: {{type: postgres, host: 127.0.0.1, port: {port}, user: postgres,"
        " password: none, database: {database}, concurrent_tasks: 2}}\ndefault_gateway: bench\n"
        "disable_anonymized_analytics: true\nmodel_defaults: {{dialect: postgres, start: '2026-01-01'}}\n",
    "models/daily.sql": """MODEL (
  name impact_sqlmesh.daily, cron '@daily', start '2026-01-01', end '2026-03-31',
  kind INCREMENTAL_BY_TIME_RANGE (time_column bucket, batch_size 1)
);
SELECT date_trunc('day', created_at AT TIME ZONE 'UTC')::date AS bucket, entity_id::int, kind::text,
       count(*)::bigint AS events, sum(amount)::numeric AS revenue, count(DISTINCT user_id)::bigint AS users
FROM public.events WHERE created_at BETWEEN @start_ts AND @end_ts GROUP BY 1, 2, 3
""",
}


def install(home):
    """The tools from PyPI, each in an environment of its own below `home`; those that are unavailable are reported."""
    found = {}
    for tool, packages in PACKAGES.items():
        program = home / f"venv-{tool}/bin/{tool}"
        if not program.exists():
            print(f"installing {', '.join(packages)}", file=sys.stderr)
            subprocess.run([sys.executable, "-m", "venv", home / f"venv-{tool}"], check=True)
            subprocess.run([home / f"venv-{tool}/bin/pip", "install", "-q", *packages], check=False)
        if program.exists():
            found[tool] = program
        else:
            print(f"{tool} could not be installed and is left out", file=sys.stderr)
    return found


class Contender:
    """A way to make the rollup: a command that is run again and again, and its preparation."""

    def __init__(self, name, place):
        self.name, self.place, self.process = name, place, None
        self.home = place.home / name.split()[0].strip(",").lower()
        self.environment = {**os.environ, **place.environment, "DO_NOT_TRACK": "1"}

    def prepare(self):
        """Everything is created again, so that remains of one round do not slow down the next."""

    def command(self):
        """A line of shell that makes the rollup, and one that makes it again."""
        raise NotImplementedError

    def start(self):
        """Starts. Its commands follow one another until it is stopped."""
        first, again = self.command()
        self.log = open(self.place.home / "contender.log", "w")
        self.process = subprocess.Popen(
            ["sh", "-c", f"{first} || exit 1; while true; do {again} || exit 1; done"], start_new_session=True,
            cwd=self.home, env=self.environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def stop(self):
        """Kills it, and its remaining sessions in the server."""
        alive = self.process.poll() is None
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.log.close()
        self.said = (self.place.home / "contender.log").read_text()
        others = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        for _ in range(100):
            if self.place.server.psql(f"SELECT count(pg_terminate_backend(pid)) {others}") == "0":
                break
            time.sleep(0.05)
        if not alive:
            sys.exit(f"{self.name} has ended:\n" + (self.place.home / "contender.log").read_text()[-3000:])

    def write(self, files, **values):
        """Writes its project."""
        for name, text in files.items():
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.format(**values) if "models" not in name and values else text)


class Naive(Contender):
    def __init__(self, name, place, sql):
        super().__init__(name, place)
        self.write({"work.sql": sql})

    def prepare(self):
        self.place.server.psql(NAIVE)

    def command(self):
        line = shlex.join(self.place.server.client("psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f",
                                                   self.home / "work.sql", self.place.server.database))
        return line, line


class Tallymark(Contender):
    def __init__(self, name, place, source="", concurrency=2):
        super().__init__(name, place)
        self.source, self.concurrency, self.rounds = source, concurrency, 0
        self.environment["TALLYMARK_LOG"] = "warn,tallymark::throttle::pace=debug"

    def prepare(self):
        self.rounds += 1
        self.place.server.psql("DROP SCHEMA IF EXISTS stats, tallymark CASCADE")
        table = "impact." + "".join(c if c.isalnum() else "-" for c in self.name) + f".{self.rounds}.{os.getpid()}"
        values = {"url": self.place.server.url, "table": table, "source": self.source}
        self.write({"tallymark.toml": TALLYMARK}, **values)
        words = [self.place.binary, "init"]
        subprocess.run(words, check=True, cwd=self.home, env=self.environment, capture_output=True)

    def command(self):
        line = shlex.join([str(self.place.binary), "backfill", "daily", "--from", FIRST, "--to", END, "--force",
                           "--concurrency", str(self.concurrency), "--yes"])
        return line, line


class Dbt(Contender):
    def __init__(self, name, place, program):
        super().__init__(name, place)
        self.program = str(program)
        server = place.server
        self.write({"profiles.yml": DBT["profiles.yml"]}, port=server.port, database=server.database)
        self.write({name: text for name, text in DBT.items() if name != "profiles.yml"})

    def prepare(self):
        self.place.server.psql("DROP SCHEMA IF EXISTS impact_dbt CASCADE")

    def command(self):
        line = shlex.join([self.program, "run", "--full-refresh", "--event-time-start", FIRST, "--event-time-end", END,
                           "--profiles-dir", "."])
        return line, line


class Sqlmesh(Contender):
    def __init__(self, name, place, program):
        super().__init__(name, place)
        self.program = str(program)
        self.write(SQLMESH, port=place.server.port, database=place.server.database)

    def prepare(self):
        self.place.server.psql(
            "DROP SCHEMA IF EXISTS sqlmesh, sqlmesh__impact_sqlmesh, impact_sqlmesh CASCADE")

    def command(self):
        plan = [self.program, "plan", "--auto-apply", "--no-prompts"]
        return shlex.join(plan), shlex.join([*plan, "--restate-model", "impact_sqlmesh.daily"])


def all_of(place, tools, extra):
    """The contenders, in the order of the table."""
    days = [f"('{FIRST}Z'::timestamptz + interval '{day} days')" for day in range(DAYS + 1)]
    loop = "".join(DAY.format(start=start, end=end) for start, end in zip(days, days[1:]))
    found = [Naive("full-scan", place, FULL), Naive("per-day loop", place, loop)]
    if "dbt" in tools:
        found.append(Dbt("dbt microbatch, 2 threads", place, tools["dbt"]))
    if "sqlmesh" in tools:
        found.append(Sqlmesh("SQLMesh, 2 tasks", place, tools["sqlmesh"]))
    found.append(Tallymark("Tallymark, nice_ratio 0, 2 slots", place, "nice_ratio = 0\nslots = 2"))
    found.append(Tallymark("Tallymark, nice_ratio 0", place, "nice_ratio = 0"))
    found.append(Tallymark("Tallymark, nice_ratio 30", place, "nice_ratio = 30"))
    found.append(Tallymark("Tallymark, auto", place, 'nice_ratio = "auto"'))
    for text in extra:
        settings, _, concurrency = text.partition("@")
        name = f"Tallymark, {settings}" + (f", {concurrency} at once" if concurrency else "")
        found.append(Tallymark(name, place, settings.replace(";", "\n"), int(concurrency or 2)))
    return found
