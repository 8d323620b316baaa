#!/usr/bin/env python3
"""The monthly cost of Tallymark on AWS: the tables of docs/COST.md.

    python3 infra/cost.py            prints them
    python3 infra/cost.py --write    puts them into docs/COST.md
    python3 infra/cost.py --check    fails if docs/COST.md holds others

Prices of work come from src/work/price.rs, so that the page and `tallymark plan` say the same. What is not a slice's is
below. All of it can be computed again by hand: docs/COST.md has the formula.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "COST.md"
BEGIN, END = "<!-- computed by infra/cost.py -->", "<!-- end -->"

# CloudWatch a month, of the pages that src/work/price.rs names: a metric, an alarm.
METRIC, ALARM = 0.30, 0.10
# https://aws.amazon.com/kms/pricing/: a customer managed key a month, and 10,000 requests.
KEY, KEY_REQUESTS = 1.00, 0.03
# The most that the stack may cost a month with its defaults, its alarms included.
STACK_MAX = 3.00

# A month.
HOURS, DAYS = 730, 730 / 24
TICKS = HOURS * 12

# A tick with nothing due: 50 ms, and a millisecond and a read for each rollup; a request reads a hundred of them (test
# `a_tick_with_nothing_due_asks_one_question_and_connects_to_no_database`). `benches/many.py` measures the time.
TICK_MS, TICK_MS_PER_ROLLUP = 50, 1
TICK_READS_PER_ROLLUP = 1
# The first tick with nothing due after a slice reads it, and writes the watermark.
READS_AFTER_SLICE, WRITES_AFTER_SLICE = 1, 1
# Lambda's three lines, the tick's, and its metrics.
TICK_LOG_BYTES = 2_000

# Lambda keeps up to five long polls of 20 s on each queue, whether or not there is something in it.
IDLE_POLLS = 2 * 5 * 3 * 60 * HOURS

# Time of a slice whose rows are in the cache.
SLICE_MS = 100


def prices():
    """The constants of src/work/price.rs."""
    text = (ROOT / "src" / "work" / "price.rs").read_text()
    numbers = re.findall(r"^(?:pub(?:\(crate\))? )?const (\w+): f64 = ([0-9_.e-]+);", text, re.M)
    (date,) = re.findall(r'^(?:pub(?:\(crate\))? )?const PRICES_OF: &str = "([0-9-]+)";', text, re.M)
    return {name: float(number.replace("_", "")) for name, number in numbers}, date


P, DATE = prices()


def of(slices, elapsed_ms):
    """`Dollars::of`: Lambda, DynamoDB, SQS, logs."""
    return (
        slices * P["LAMBDA_REQUEST"] + elapsed_ms / 1e3 * P["LAMBDA_GB"] * P["LAMBDA_GB_SECOND"],
        slices * (P["WRITES_PER_SLICE"] * P["DYNAMODB_WRITE"] + P["READS_PER_SLICE"] * P["DYNAMODB_READ"]),
        slices * P["SQS_REQUESTS_PER_SLICE"] * P["SQS_REQUEST"],
        slices * P["LOG_BYTES_PER_SLICE"] / 1e9 * P["LOGS_GB"],
    )


def ticks(rollups, slices):
    """A month of ticks with nothing due, between as many slices: Lambda, DynamoDB, SQS, logs."""
    elapsed = TICK_MS + TICK_MS_PER_ROLLUP * rollups
    return (
        TICKS * (P["LAMBDA_REQUEST"] + elapsed / 1e3 * P["LAMBDA_GB"] * P["LAMBDA_GB_SECOND"]),
        TICKS * TICK_READS_PER_ROLLUP * rollups * P["DYNAMODB_READ"]
        + slices * (READS_AFTER_SLICE * P["DYNAMODB_READ"] + WRITES_AFTER_SLICE * P["DYNAMODB_WRITE"]),
        0.0,
        TICKS * TICK_LOG_BYTES / 1e9 * P["LOGS_GB"],
    )


def counted(names, text):
    return len(set(re.findall(names, text, re.M)))


def fixed():
    """The cost of an idle stack: metrics, alarms, polling."""
    template = (ROOT / "template.yaml").read_text()
    metrics = counted(r'\.logged\("(\w+)"\)', (ROOT / "src" / "telemetry" / "registry.rs").read_text())
    watched = counted(r"Namespace: Tallymark\n *MetricName: (\w+)", template)
    alarms = template.count("Type: AWS::CloudWatch::Alarm")
    return metrics, watched, alarms, watched * METRIC, alarms * ALARM, IDLE_POLLS * P["SQS_REQUEST"]


def is_lean():
    """Whether the template leaves out by default what costs more: metrics that no alarm watches, and a key."""
    template = (ROOT / "template.yaml").read_text()
    defaults = dict(re.findall(r'^  (\w+):\n    Type: String\n    Default: "(.*)"', template, re.M))
    return defaults["CreateDashboard"] == "false" and defaults["DataKey"] == "" and defaults["VpcSubnets"] == ""


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---"] + ["---:"] * (len(head) - 1)) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def money(dollars):
    return f"${dollars:,.2f}" if dollars >= 0.1 else f"${dollars:.3f}"


def page():
    metrics, watched, alarms, *parts = fixed()
    stack = sum(parts)
    unseen = (metrics - watched) * METRIC
    whole = [
        (f"{watched} custom metrics that alarms watch, at {money(METRIC)}", money(parts[0])),
        (f"{alarms} alarms at {money(ALARM)}", money(parts[1])),
        (f"{IDLE_POLLS:,} polls of two queues", money(parts[2])),
        ("**the stack**", f"**{money(stack)}**"),
        (f"with `CreateDashboard=true`, which adds {metrics - watched} metrics", money(stack + unseen)),
        (f"with `DataKey`, before its requests at {money(KEY_REQUESTS)} for 10,000", money(stack + KEY)),
    ]
    months = []
    for rollups in (1, 10, 100, 1_000, 10_000):
        for width, slices in (("hour", HOURS * rollups), ("day", DAYS * rollups)):
            work = [sum(pair) for pair in zip(of(slices, slices * SLICE_MS), ticks(rollups, slices))]
            row = [f"{rollups:,} by the {width}", f"{slices:,.0f}", *map(money, work), money(sum(work))]
            months.append((*row, money(sum(work) + stack)))
    years = []
    for slices, each_ms, name in (
        (8_760, 100, "by the hour, 0.1 s a slice"),
        (8_760, 1_000, "by the hour, 1 s a slice"),
        (365, 2_000, "by the day, 2 s a slice"),
        (365, 20_000, "by the day, 20 s a slice"),
        (87_660, 100, "ten years by the hour, 0.1 s a slice"),
    ):
        work = of(slices, slices * each_ms)
        years.append((name, f"{slices:,}", *map(money, work), money(sum(work))))
    services = ["Lambda", "DynamoDB", "SQS", "logs"]
    return "\n\n".join(
        (
            "### A month of the stack, with or without work",
            table(["", "a month"], whole),
            "### A month of work",
            table(["rollups", "slices", *services, "work", "work and stack"], months),
            "### A year's backfill, once",
            table(["", "slices", *services, "all"], years),
        )
    )


def main():
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    held, after = rest.split(END)
    computed = f"\n\n{page()}\n\n"
    if "--write" in sys.argv:
        PAGE.write_text(before + BEGIN + computed + END + after)
    elif "--check" in sys.argv:
        if sum(fixed()[3:]) > STACK_MAX or not is_lean():
            sys.exit(f"template.yaml: with its defaults the stack costs more than {money(STACK_MAX)} a month")
        if held != computed or DATE not in before:
            sys.exit("docs/COST.md is not what infra/cost.py computes; run python3 infra/cost.py --write")
    else:
        print(page())


main()
