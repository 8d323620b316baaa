"""The application, and the counters of the server and the machine."""

import math
import os
import pathlib
import resource
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")
# How often each script runs, of ten times.
MIX = {"read": 7, "event": 1, "insert": 1, "update": 1}
WRITES = {"insert", "update"}
CLIENTS = 8
# Connecting, preparing and the time in which a tool that was alone notices the application are not measured. The scene
# `middle` measures the last.
WARM_SECONDS = 3


def stat(pid):
    """A process's parent and CPU seconds: its own, with those of children that have ended."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None, 0
    return int(fields[1]), sum(map(int, fields[11:15])) / TICK


def tree(root):
    """CPU seconds of a process and all that descend from it."""
    parents = {int(pid): stat(pid) for pid in os.listdir("/proc") if pid.isdigit()}
    family, grew = {root}, True
    while grew:
        more = {pid for pid, (parent, _) in parents.items() if parent in family} - family
        family, grew = family | more, bool(more)
    return sum(parents.get(pid, (None, 0))[1] for pid in family)


def busy():
    """CPU seconds that the machine has worked."""
    fields = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / TICK


class Counters:
    """The server's counters so far."""

    def __init__(self, server, settle=False):
        if settle:
            # An idle backend reports its statistics within a second.
            time.sleep(1.5)
        sql = ("SELECT seq_tup_read + coalesce(idx_tup_fetch, 0), heap_blks_read + heap_blks_hit + idx_blks_read"
               " + idx_blks_hit, heap_blks_read + idx_blks_read, pg_current_wal_insert_lsn() - '0/0' FROM"
               " pg_stat_user_tables JOIN pg_statio_user_tables USING (relid) WHERE relid = 'events'::regclass")
        self.rows, self.blocks, self.missed, self.wal = map(int, server.psql(sql).split("|"))
        self.at, self.busy, self.cpu = time.monotonic(), busy(), tree(server.pid)


def percentile(ordered, share):
    """The least of `ordered` that `share` of them do not pass."""
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


class App:
    """The application: pgbench at a steady rate."""

    def __init__(self, place, share, seconds=6, mix=MIX):
        self.place, self.rate, self.mix = place, None, mix
        closed = max(self._times(seconds) for _ in range(2))
        self.capacity = closed
        self.rate = max(10, int(closed * share) // 10 * 10)

    def _times(self, seconds):
        """Transactions a second, as fast as the machine can."""
        return len(self._log(seconds, [])) / (seconds - WARM_SECONDS)

    def run(self, seconds, arrival=None):
        """Milliseconds from when a transaction was due until it had ended; with `arrival` of so many first seconds."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        lines = self._log(seconds, ["-R", self.rate], arrival)
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = {"transactions": len(lines), "started": self.started, "began": self.began,
                  "app_cpu": now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime}
        names = list(self.mix)
        for prefix, kept in [("", {*names}), ("reads_", {*names} - WRITES), ("writes_", WRITES)]:
            times = sorted(us / 1e3 for us, script in lines if names[script] in kept)
            for name, share in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)]:
                result[prefix + name] = percentile(times, share)
        return result

    def _log(self, seconds, more, arrival=None):
        """Microseconds and script of each transaction."""
        place = self.place
        prefix = place.home / "app"
        scripts = [word for name, weight in self.mix.items() for word in ("-f", f"{HERE / name}.sql@{weight}")]
        words = place.server.client("pgbench", "-n", "-c", CLIENTS, "-j", 1, "-T", seconds, "-M", "prepared", "-l",
                                    "--log-prefix", prefix, "-D", f"rows={place.rows}", *more, *scripts,
                                    place.server.database)
        # The run was ended, and its last line may be incomplete.
        for log in place.home.glob("app.*"):
            log.unlink()
        self.started = time.time()
        subprocess.run(words, check=True, capture_output=True)
        lines = []
        for log in place.home.glob("app.*"):
            for line in log.read_text().splitlines():
                fields = line.split()
                lines.append((float(fields[4]) + float(fields[5]) / 1e6, int(fields[2]), int(fields[3])))
            log.unlink()
        self.began = min(at - us / 1e6 for at, us, _ in lines)
        first, last = (0, arrival) if arrival else (WARM_SECONDS, math.inf)
        return [(us, script) for at, us, script in lines if first <= at - us / 1e6 - self.began <= last]
