"""What the application, and others on its server, do during a round."""

import contextlib
import datetime
import os
import re
import signal
import subprocess
import time

# The application's first seconds, in which a tool has to notice it.
ARRIVAL_SECONDS = 10
# A line of Tallymark's log about its pace.
PACE = re.compile(r"^(\S+Z).* pace ratio=([0-9.]+)")
# The fastest pace beside others.
RESTING = 12
# As autovacuum does it, again and again.
VACUUM = "SET vacuum_cost_delay = 2; SET vacuum_cost_limit = 200; VACUUM (DISABLE_PAGE_SKIPPING) events"


class Steady:
    """The application asks at a steady rate."""

    title = "the application asks at a steady rate"
    only = None

    def prepare(self, place):
        """What is there before the contender starts."""

    def play(self, place, app, seconds):
        return app.run(seconds)


class Vacuum(Steady):
    """The same, while a vacuum of the table runs."""

    title = "the same, while the table is vacuumed as autovacuum does it"
    only = ("auto", "nice_ratio 30")

    def play(self, place, app, seconds):
        with beside(place, VACUUM):
            return app.run(seconds)


class Middle(Steady):
    """The application begins after a third of the round, and ends after two thirds."""

    title = f"the application begins in the middle: its first {ARRIVAL_SECONDS} s"
    only = ("auto", "nice_ratio 0", "nice_ratio 30")

    def play(self, place, app, seconds):
        third = seconds / 3
        time.sleep(third)
        result = app.run(max(1, round(third)), arrival=ARRIVAL_SECONDS)
        time.sleep(third)
        return result


class Still(Steady):
    """The application is connected and asks once a second."""

    title = "an idle application: connected, and eight transactions a second"
    only = ("auto", "nice_ratio 0", "per-day")

    def prepare(self, place):
        words = place.server.client("psql", "-qAtX", "-o", "/dev/null", place.server.database)
        self.sessions = [subprocess.Popen(words, stdin=subprocess.PIPE, text=True) for _ in range(8)]
        # Connecting is work.
        time.sleep(3)

    def play(self, place, app, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for session in self.sessions:
                session.stdin.write("SELECT 1;\n")
                session.stdin.flush()
            time.sleep(1)
        for session in self.sessions:
            session.stdin.close()
            session.wait()
        return {"transactions": 8 * seconds, "app_cpu": 0}


SCENES = {"steady": Steady(), "middle": Middle(), "still": Still(), "vacuum": Vacuum()}


def plays(scene, name):
    """Whether the contender `name` takes part in a scene."""
    return scene.only is None or any(name.endswith(word) or word in name.split(",")[0] for word in scene.only)


@contextlib.contextmanager
def beside(place, sql):
    """Runs `sql` again and again."""
    line = place.server.client("psql", "-qX", "-c", sql, place.server.database)
    script = 'while true; do "$@" >/dev/null 2>&1; sleep 0.5; done'
    process = subprocess.Popen(["sh", "-c", script, "sh", *line], start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        place.server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%VACUUM%'"
                          " AND pid <> pg_backend_pid()")


def fallen(log, started):
    """Seconds from the application's start until the log tells a pace with rests. `None`: the log tells of none, or it
    rested already."""
    rests = True
    for line in log.splitlines():
        found = PACE.match(line)
        if not found:
            continue
        at = datetime.datetime.fromisoformat(found.group(1).replace("Z", "+00:00")).timestamp()
        if at >= started and rests:
            return None
        rests = float(found.group(2)) >= RESTING
        if at >= started and rests:
            return at - started
    return None
