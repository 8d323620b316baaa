#!/usr/bin/env bash
# Deploys template.yaml to an emulator of AWS as docs/DEPLOY.md says, with a real zip, and drives the stack: init and
# check, a tick, a backfill, a replay, dead letters, a new version and the way back, removal.
#
#   infra/stack_test.sh BOOTSTRAP TALLYMARK         with binaries that are built already
#   infra/stack_test.sh --all BOOTSTRAP TALLYMARK   also a new version, the way back, a key and further options, and the schedule
#
# Needs python3; brings its tools into target/stack and target/lint. Contacts PyPI, and no AWS. Is left out
# with a message where PyPI is out of reach, or the function needs a newer glibc than Lambda's.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1

all=()
if [ "${1:-}" = --all ]; then all=(--all) && shift; fi
if [ $# != 2 ]; then
    echo "error: name the binaries; see the first lines of $0" >&2
    exit 2
fi
bootstrap="$(realpath "$1")" tallymark="$(realpath "$2")"

venv=target/stack
requirements=infra/stack-requirements.txt

# Once, and again when the versions change.
prepare() {
    cmp -s "$requirements" "$venv/installed.txt" && return
    rm -rf "$venv"
    python3 -m venv "$venv"
    if ! "$venv/bin/pip" download --quiet --no-deps --dest "$venv/reached" aws-sam-translator >/dev/null 2>&1; then
        echo "left out: the stack on an emulator of AWS, as PyPI is out of reach"
        exit 0
    fi
    "$venv/bin/pip" install --quiet --no-compile --requirement "$requirements"
    cp "$requirements" "$venv/installed.txt"
}

# Whether the function needs no newer glibc than Lambda's.
runs_on_lambda() {
    python3 - "$bootstrap" <<'PYTHON'
import re
import sys

versions = re.findall(rb"GLIBC_(\d+)\.(\d+)", open(sys.argv[1], "rb").read())
sys.exit(any((int(major), int(minor)) > (2, 34) for major, minor in versions))
PYTHON
}

if ! runs_on_lambda; then
    echo "left out: the stack on an emulator of AWS, as $1 needs a newer glibc than Lambda's 2.34"
    exit 0
fi
prepare
infra/lint.sh prepare

# Entered by PostgreSQL, which never runs as root.
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

# Without symbols it is half as large. The zip of a developer stays as it is.
strip -o "$work/bootstrap" "$bootstrap" 2>/dev/null || cp "$bootstrap" "$work/bootstrap"
"$venv/bin/python" infra/stack_test.py "${all[@]}" --work "$work" --sam target/lint/bin/sam --tallymark "$tallymark" \
    --bootstrap "$work/bootstrap"
