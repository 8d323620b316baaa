"""Medians and spreads of the rounds: a table, and a chart as SVG."""

import math
import statistics
from html import escape

TITLES = {"memory": "the table in the server's cache", "small": "the server's cache much smaller than the table"}


def names(seen):
    """The contenders, from the largest to the smallest impact, or from the fastest."""
    found = {line["contender"] for line in seen} - {"idle"}
    if "p99" not in seen[0]:
        return sorted(found, key=lambda name: -beyond_idle(seen, name, "rows"))
    return sorted(found, key=lambda name: -statistics.median(ratios(seen, name, "p99")))


def of(seen, name):
    return {line["repetition"]: line for line in seen if line["contender"] == name}


def ratios(seen, name, key):
    """One ratio a repetition, to the idle round of the same."""
    idle = of(seen, "idle")
    return [line[key] / idle[repetition][key] for repetition, line in of(seen, name).items() if repetition in idle]


def spread(values, digits=2):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def beyond_idle(seen, name, key):
    """Work per second, less the application's own."""
    alone = statistics.median(line[key] / line["seconds"] for line in of(seen, "idle").values())
    return statistics.median(line[key] / line["seconds"] for line in of(seen, name).values()) - alone


def table(seen):
    """The ratios, and the work done meanwhile."""
    return "\n".join([*(latencies(seen) if "p99" in seen[0] else []), *work(seen)])


def latencies(seen):
    """The application's latencies, as ratios to its idle rounds."""
    idle = of(seen, "idle").values()
    ms = {key: spread([line[key] for line in idle]) for key in ("p50", "p95", "p99", "reads_p99", "writes_p99")}
    lines = [
        "| beside it | p50 | p95 | p99 | p99 of reads | p99 of writes |", "|---|---|---|---|---|---|",
        f"| idle, ms | {ms['p50']} | {ms['p95']} | {ms['p99']} | {ms['reads_p99']} | {ms['writes_p99']} |",
    ]
    for name in names(seen):
        each = [spread(ratios(seen, name, key)) for key in ("p50", "p95", "p99", "reads_p99", "writes_p99")]
        lines.append(f"| {name} | {' | '.join(each)} |")
    fallen = [(name, [line["fallen"] for line in of(seen, name).values() if line.get("fallen") is not None])
              for name in names(seen)]
    lines += [f"\n{name}: the pace fell {spread(seconds)} s after the application was started"
              for name, seconds in fallen if seconds and seen[0]["scene"] == "middle"]
    return [*lines, ""]


def work(seen):
    """Rows, blocks, WAL and CPU of each contender, beyond those of the application."""
    fastest = max((beyond_idle(seen, name, "rows") for name in names(seen)), default=1)
    lines = ["| beside it | rows/s | of the fastest | all of it in | blocks per 1,000 rows | WAL, bytes a row | server's CPU,"
             " cores | its s per 1 M rows | the tool's own CPU, cores |", "|---|---|---|---|---|---|---|---|---|"]
    total = seen[0].get("total", 0)
    for name in names(seen):
        rows, blocks, cpu, wal = (beyond_idle(seen, name, key) for key in ("rows", "blocks", "cpu", "wal"))
        tool = statistics.median(line["tool_cpu"] / line["seconds"] for line in of(seen, name).values())
        rows = max(rows, 1)
        lines.append(f"| {name} | {rows:,.0f} | {rows / fastest:.2f} | {total / rows:.0f} s | {blocks / rows * 1e3:.1f} |"
                     f" {wal / rows:.2f} | {cpu:.2f} | {cpu / rows * 1e6:.2f} | {tool:.2f} |")
    others = [line["others"] / line["seconds"] for line in seen]
    idle = of(seen, "idle").values()
    return [*lines, "", f"{len(idle)} repetitions; {idle_rate(seen)}; other work on the machine took"
            f" {spread(others)} cores; load before rounds {spread([line['load'] for line in seen], 1)}"]


def idle_rate(seen):
    return f"{seen[0]['rate']} transactions a second of {seen[0]['capacity']:.0f} possible"


def chart(seen):
    """p99 beside each contender, as a ratio, on a logarithmic scale: median, and from least to most."""
    setups = [setup for setup in TITLES if any(line["setup"] == setup for line in seen)]
    left, width, bar, top = 250, 380, 26, 70
    panels = [[line for line in seen if line["setup"] == setup] for setup in setups]
    rows = max(len(names(panel)) for panel in panels)
    high = max(max(ratios(panel, name, "p99")) for panel in panels for name in names(panel))
    low = min(min(ratios(panel, name, "p99")) for panel in panels for name in names(panel))
    decades = math.log10(high * 1.4) - math.log10(min(low, 0.9) / 1.1)

    def x(value):
        return left + width * (math.log10(value) - math.log10(min(low, 0.9) / 1.1)) / decades

    panel_height = rows * bar + 62
    height = top + panel_height * len(panels)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 70} {height}"'
           ' font-family="system-ui, sans-serif" font-size="13">',
           f'<rect width="{left + width + 70}" height="{height}" fill="#fff"/>',
           '<text x="16" y="28" font-size="16" font-weight="600">The application\'s p99 while history is counted</text>',
           '<text x="16" y="48" fill="#555">as a ratio to the application alone; bar: median, line: least to most'
           '</text>']
    for number, (setup, panel) in enumerate(zip(setups, panels)):
        y = top + number * panel_height
        out.append(f'<text x="16" y="{y + 12}" font-weight="600">{TITLES[setup]}</text>')
        bottom = y + 22 + len(names(panel)) * bar
        for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500):
            if x(tick) < left + width:
                out.append(f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{y + 22}" y2="{bottom}" stroke="#ddd"/>'
                           f'<text x="{x(tick):.1f}" y="{bottom + 15}" text-anchor="middle" fill="#555">{tick}</text>')
        for place, name in enumerate(names(panel)):
            values, line_y = ratios(panel, name, "p99"), y + 22 + place * bar + bar / 2
            middle = statistics.median(values)
            color = "#2a7f62" if name.startswith("Tallymark") else "#8a8f98"
            start, length = min(x(1), x(middle)), max(abs(x(middle) - x(1)), 1)
            out.append(
                f'<text x="{left - 10}" y="{line_y + 4}" text-anchor="end">{escape(name)}</text>'
                f'<rect x="{start:.1f}" y="{line_y - 8}" width="{length:.1f}" height="16" fill="{color}"/>'
                f'<line x1="{x(min(values)):.1f}" x2="{x(max(values)):.1f}" y1="{line_y}" y2="{line_y}" stroke="#222"/>'
                f'<text x="{max(x(max(values)), x(middle)) + 6:.1f}" y="{line_y + 4}">{middle:.2f}</text>')
        out.append(f'<line x1="{x(1):.1f}" x2="{x(1):.1f}" y1="{y + 22}" y2="{bottom}" stroke="#222"/>')
    return "\n".join([*out, "</svg>", ""])
