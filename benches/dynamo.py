"""A DynamoDB of a benchmark's own: the demo's, which `--keep` leaves running. Its PostgreSQL is not used, and does nothing."""

import contextlib
import signal
import subprocess
import sys


@contextlib.contextmanager
def dynamodb(binary, home):
    """Starts it below `home`; gives its process ID, and the variables by which commands find it."""
    home.mkdir(exist_ok=True)
    process = subprocess.Popen([binary, "demo", "--keep"], cwd=home, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said, environment = [], {}
    for line in process.stderr:
        said.append(line)
        if line.strip().startswith("export "):
            name, value = line.strip()[7:].split("=", 1)
            environment[name] = value
        if line.strip().startswith("psql "):
            break
    else:
        sys.exit("the demo's DynamoDB did not start:\n" + "".join(said[-20:]))
    try:
        yield process.pid, environment
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
