#!/usr/bin/env bash
# Makes the function's zip, target/lambda/tallymark.zip, from a clone: `bootstrap` for this machine's processor and
# tallymark.toml. Needs cargo and python3; with cargo-auditable, the binary carries the list of its crates.
# The same inputs give the same bytes.
#
#   infra/package.sh                              with ./tallymark.toml
#   infra/package.sh --config prod.toml           with another file, which is called tallymark.toml in the zip
#   infra/package.sh --config prod.toml ca.pem    and with files that it names, such as `?sslrootcert=ca.pem`
#   infra/package.sh --no-config                  for a configuration in an SSM parameter
#   infra/package.sh --output FILE.zip            into another file than target/lambda/tallymark.zip
#   infra/package.sh --binary FILE                with a `bootstrap` that was built otherwise, see docs/DEPLOY.md
set -euo pipefail

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

root="$(cd "$(dirname "$0")/.." && pwd)"
config=tallymark.toml binary="" output="$root/target/lambda/tallymark.zip" extras=()
while [ $# -gt 0 ]; do
    case "$1" in
        --config | --binary | --output)
            [ $# -ge 2 ] || fail "$1 needs a file"
            case "$1" in
                --config) config="$2" ;;
                --binary) binary="$2" ;;
                --output) output="$2" ;;
            esac
            shift
            ;;
        --no-config) config="" ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" && exit ;;
        -*) fail "$1 is no option; see --help" ;;
        *) extras+=("$1") ;;
    esac
    shift
done
[ "${output%.zip}" != "$output" ] || fail "$output: the output is a zip, and its name ends in .zip"
[ -z "$config" ] || [ -f "$config" ] ||
    fail "$config: no such file; name one with --config, or --no-config for an SSM parameter"
command -v python3 >/dev/null || fail "python3 makes the zip, and there is none"

if [ -z "$binary" ]; then
    command -v cargo >/dev/null || fail "there is no cargo; install Rust with rustup"
    auditable=()
    if cargo auditable --version >/dev/null 2>&1; then auditable=(auditable); fi
    cargo ${auditable[@]+"${auditable[@]}"} build --manifest-path "$root/Cargo.toml" --profile lambda --bin bootstrap \
        --no-default-features --features lambda --locked
    binary="${CARGO_TARGET_DIR:-$root/target}/lambda/bootstrap"
fi

mkdir -p "$(dirname "$output")"
python3 - "$output" "$binary" "$config" "${extras[@]}" <<'PYTHON'
import os
import re
import sys
import zipfile

# The glibc of provided.al2023.
GLIBC_MAX = (2, 34)
# ELF's numbers for processors, and what template.yaml calls them.
PROCESSORS = {62: "x86_64", 183: "arm64"}


def processor(path):
    """The processor of the binary. Ends the program if Lambda could not start it."""
    with open(path, "rb") as file:
        binary = file.read()
    number = int.from_bytes(binary[18:20], "little")
    if binary[:4] != b"\x7fELF" or number not in PROCESSORS:
        sys.exit(f"error: {path} is no Linux binary for x86-64 or arm64")
    versions = re.findall(rb"GLIBC_(\d+)\.(\d+)", binary)
    newest = max(((int(major), int(minor)) for major, minor in versions), default=GLIBC_MAX)
    if newest > GLIBC_MAX:
        sys.exit(
            f"error: {path} needs glibc {newest[0]}.{newest[1]}, provided.al2023 has 2.34; "
            "build with cargo-lambda (docs/DEPLOY.md) or on an older system"
        )
    return PROCESSORS[number]


def main(output, binary, config, *extras):
    built_for = processor(binary)
    contents = {"bootstrap": binary}
    if config:
        contents["tallymark.toml"] = config
    for extra in extras:
        name = os.path.basename(extra)
        if name in contents:
            sys.exit(f"error: two files would be called {name} in the zip")
        contents[name] = extra
    unfinished = output + ".part"
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(contents):
            # The earliest time that a zip can hold, and Unix on every system: equal inputs, equal bytes.
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100755 if name == "bootstrap" else 0o100644) << 16
            with open(contents[name], "rb") as file:
                archive.writestr(entry, file.read())
    os.replace(unfinished, output)
    size = os.path.getsize(output) / 1e6
    shown = os.path.relpath(output) if output.startswith(os.getcwd()) else output
    print(f"{shown}: {size:.2f} MB, {', '.join(sorted(contents))}")
    print(f"deploy it with Architecture={built_for}")


try:
    main(*sys.argv[1:])
except OSError as error:
    sys.exit(f"error: {error.filename}: {error.strerror}")
PYTHON
