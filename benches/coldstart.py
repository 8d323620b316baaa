#!/usr/bin/env python3
"""How large the Lambda function's zip is, and how long `bootstrap` takes to its first poll.

    cargo build --locked --profile lambda --bin bootstrap --no-default-features --features lambda
    python3 benches/coldstart.py [STARTS]

Each start is a new process behind a Lambda Runtime API of our own; the time runs from before the
process is made until its request for the first invocation has arrived.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BOOTSTRAP = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "lambda", "bootstrap")
POLL = b"GET /2018-06-01/runtime/invocation/next"
# Time limit in seconds for the first poll of a process.
PATIENCE = 10


def zip_bytes():
    """The size of the zip as `zip` and the AWS console make it."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "function.zip")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as function:
            function.write(BOOTSTRAP, "bootstrap")
        return os.path.getsize(path)


def start():
    """Milliseconds from the start of the process to its first poll, and the process's peak memory in MiB."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        port = server.getsockname()[1]
        environment = {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}",
            "AWS_LAMBDA_FUNCTION_NAME": "tallymark",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        }
        begun = time.perf_counter()
        process = subprocess.Popen([BOOTSTRAP], env=environment, stdout=subprocess.DEVNULL)
        try:
            connection, _ = server.accept()
            connection.settimeout(PATIENCE)
            request = connection.recv(4096)
            elapsed = time.perf_counter() - begun
            if not request.startswith(POLL):
                sys.exit(f"not a first poll: {request[:80]!r}")
            memory = peak_mib(process.pid)
        finally:
            # Before the connection ends, which it would report as an error.
            process.kill()
            process.wait()
        connection.close()
    return elapsed * 1e3, memory


def peak_mib(pid):
    """VmHWM; 0 where there is no /proc."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024
    except (OSError, StopIteration):
        return 0.0


def main():
    starts = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    if not os.path.exists(BOOTSTRAP):
        sys.exit(f"there is no {BOOTSTRAP}; build it first, as this file says")
    print(f"bootstrap: {os.path.getsize(BOOTSTRAP) / 1e6:.2f} MB, zip: {zip_bytes() / 1e6:.2f} MB")
    measured = [start() for _ in range(starts)]
    times = sorted(elapsed for elapsed, _ in measured)
    print(
        f"first poll, {starts} starts: median {statistics.median(times):.1f} ms, "
        f"{times[0]:.1f} to {times[-1]:.1f} ms; peak memory {max(memory for _, memory in measured):.1f} MiB"
    )


if __name__ == "__main__":
    main()
