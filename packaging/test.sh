#!/usr/bin/env bash
# Makes every package from one built binary, installs each into an empty environment, and runs it there.
#
#   packaging/test.sh                       builds a release and plays the demo from the wheel
#   packaging/test.sh TALLYMARK             with a binary that is built already
#   packaging/test.sh --smoke TALLYMARK     without the demo, and without making all of it twice: seconds
#   packaging/test.sh --lambda BOOTSTRAP    and a zip for Lambda
#
# Needs cargo and python3 with venv. Parts that need npm, curl or root are skipped with a message where these are missing,
# and the list of crates where there is no auditable2cdx or cargo-auditable has not built the binary.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

export PYTHONDONTWRITEBYTECODE=1
smoke="" binary="" bootstrap=""
while [ $# -gt 0 ]; do
    case "$1" in
        --smoke) smoke=1 ;;
        --lambda) bootstrap="$2" && shift ;;
        -*) echo "error: $1 is no option; see the first lines of $0" >&2 && exit 2 ;;
        *) binary="$1" ;;
    esac
    shift
done

# The system's own directory, not one below the repository: an installation must not find anything of it.
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
# Entered by the user without rights, and by the demo's PostgreSQL, which never runs as root.
chmod 755 "$work"
passed=0 skipped=0

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

ok() {
    passed=$((passed + 1))
    printf 'ok: %s\n' "$*"
}

skip() {
    skipped=$((skipped + 1))
    printf 'left out: %s\n' "$*"
}

# The one build. With cargo-auditable the binary carries the list of its crates, as in a release.
build() {
    local auditable=()
    if cargo auditable --version >/dev/null 2>&1; then auditable=(auditable); fi
    cargo ${auditable[@]+"${auditable[@]}"} build --release --bin tallymark --locked
    binary="${CARGO_TARGET_DIR:-target}/release/tallymark"
}

# Runs a program that was installed, and compares its version with Cargo.toml.
check_version() {
    local said
    said="$("${@:2}" --version)" || fail "$1: --version ended with $?"
    [ "$said" = "tallymark $version" ] || fail "$1: --version says '$said', Cargo.toml says $version"
    ok "$1: $said"
}

test_archive() {
    mkdir "$work/archive"
    tar -xzf "$packages/tallymark-$version-$target.tar.gz" -C "$work/archive" --strip-components 1
    [ -f "$work/archive/LICENSE-MIT" ] || fail "the archive has no licence"
    check_version "archive" "$work/archive/tallymark"
}

test_installer() {
    if ! command -v curl >/dev/null; then
        skip "installer: there is no curl"
        return
    fi
    local variables=(HOME="$work" TALLYMARK_DOWNLOADS="file://$packages" TALLYMARK_INSTALL_DIR="$work/installed/bin")
    env "${variables[@]}" sh "$packages/install.sh" >"$work/installer.txt"
    check_version "installer" "$work/installed/bin/tallymark"
    # An archive that was changed on its way must not be installed.
    mkdir "$work/forged"
    cp "$packages/tallymark-$version-$target.tar.gz" "$work/forged/"
    printf 'x' >>"$work/forged/tallymark-$version-$target.tar.gz"
    if env "${variables[@]}" TALLYMARK_DOWNLOADS="file://$work/forged" TALLYMARK_INSTALL_DIR="$work/none" \
        sh "$packages/install.sh" >"$work/forged.txt" 2>&1; then
        fail "the installer took an archive with another checksum"
    fi
    grep -q 'nothing was installed' "$work/forged.txt" || fail "the installer says: $(cat "$work/forged.txt")"
    [ ! -e "$work/none" ] || fail "the installer left something of an archive with another checksum"
    ok "installer: refuses an archive with another checksum"
}

test_wheel() {
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" --quiet --disable-pip-version-check install --no-index "$packages"/tallymark-*.whl
    check_version "wheel" "$work/venv/bin/tallymark"
    local files
    files="$("$work/venv/bin/pip" --disable-pip-version-check show --files tallymark)"
    for file in licenses/LICENSE-MIT bin/tallymark ${sbom:+sboms/tallymark.cdx.json}; do
        grep -q "$file" <<<"$files" || fail "the wheel's record does not name $file"
    done
    ok "wheel: its record names its files"
}

test_npm() {
    if ! command -v npm >/dev/null; then
        skip "npm: there is no npm"
        return
    fi
    mkdir "$work/npm"
    # An empty cache, so that everything comes from the two tarballs.
    (cd "$work/npm" && npm init --yes >/dev/null &&
        npm install --offline --cache "$work/npm-cache" --no-audit --no-fund --loglevel error \
            "$packages/tallymark-$version.tgz" "$packages"/tallymark-*-"$version".tgz >"$work/npm.txt" 2>&1) ||
        fail "npm install: $(cat "$work/npm.txt")"
    check_version "npm" "$work/npm/node_modules/.bin/tallymark"
    (cd "$work/npm" && check_version "npx" npx --offline --no -- tallymark) || exit
    local code=0
    "$work/npm/node_modules/.bin/tallymark" no-such-command >"$work/npm.txt" 2>&1 || code=$?
    [ "$code" = 2 ] || fail "npm: a wrong command ended with $code, the binary ends with 2: $(cat "$work/npm.txt")"
    ok "npm: the binary's exit code is the launcher's"
}

test_image() {
    mkdir "$work/image"
    local start
    start="$(packaging/unpack.py "$packages/image" "$work/image")"
    [ "${start%%:*}" != 0 ] || fail "the image's user is root"
    grep -q 'BEGIN CERTIFICATE' "$work/image/etc/ssl/certs/ca-certificates.crt" ||
        fail "the image has no certificates: AWS could not be reached from it"
    ok "image: every blob has its digest; it starts as $start"
    local root=()
    # The runners of GitHub let everyone become root; on a developer's machine the test does not try to.
    if [ "$(id -u)" != 0 ] && [ -n "${CI:-}" ] && sudo -n true 2>/dev/null; then root=(sudo -n); fi
    if { [ "$(id -u)" != 0 ] && [ ${#root[@]} = 0 ]; } || ! command -v chroot >/dev/null; then
        skip "image: only root may chroot"
        return
    fi
    local run=(${root[@]+"${root[@]}"} env -i "$(command -v chroot)" --userspec="${start%% *}")
    run+=("$work/image" "${start#* }")
    check_version "image" "${run[@]}"
    "${run[@]}" check >"$work/check.txt" 2>&1 &&
        fail "image: check passed without a configuration"
    grep -q 'tallymark.toml' "$work/check.txt" || fail "image: check says: $(cat "$work/check.txt")"
    ok "image: as its user it looks for the configuration, and says that there is none"
}

# infra/package.sh refuses a binary that Lambda could not start; the tests' binary is built for the glibc of this machine.
runs_on_lambda() {
    PYTHONPATH=packaging python3 -c '
import sys
from binary import read
oldest = read(sys.argv[1]).oldest
sys.exit(oldest is not None and oldest > (2, 34))
' "$bootstrap"
}

test_function() {
    mkdir "$work/function"
    python3 -m zipfile -e "$packages"/tallymark-lambda-*.zip "$work/function"
    [ "$(ls "$work/function")" = bootstrap ] || fail "the zip holds $(ls "$work/function")"
    cmp "$bootstrap" "$work/function/bootstrap"
    ok "Lambda zip: bootstrap and no configuration"
}

# Whether the binary carries the list of its crates, and this machine has its reader.
has_list() {
    command -v auditable2cdx >/dev/null && auditable2cdx "$binary" >/dev/null 2>&1
}

# The list of crates as CycloneDX, which the wheel and the archive's neighbour have from the binary itself.
test_list() {
    python3 - "$packages/tallymark-$version-$target.cdx.json" "$version" <<'PYTHON' || fail "the list of crates is incomplete"
import json, sys
bill = json.load(open(sys.argv[1]))
about = bill["metadata"]["component"]
names = {it["name"] for it in bill["components"]}
sys.exit(not (bill["bomFormat"] == "CycloneDX" and (about["name"], about["version"]) == ("tallymark", sys.argv[2])
              and {"sqlx", "tokio", "rustls"} <= names))
PYTHON
    ok "list of crates: CycloneDX, from the binary"
}

test_demo() {
    mkdir "$work/demo"
    (cd "$work/demo" && "$work/venv/bin/tallymark" demo >"$work/demo.txt" 2>&1) || fail "demo: $(cat "$work/demo.txt")"
    grep -q 'every slice verified' "$work/demo.txt" || fail "demo: $(cat "$work/demo.txt")"
    ok "demo, from the wheel: $(tail -1 "$work/demo.txt")"
}

version="$(sed -n '/^\[package\]/,/^\[[^p]/s/^version = "\(.*\)"$/\1/p' Cargo.toml)"
python3 -m unittest discover --quiet --start-directory packaging || fail "the unit tests of packaging/"
ok "unit tests of packaging/"
[ -n "$binary" ] || build
make=(packaging/build.py)
if [ -n "$bootstrap" ] && ! runs_on_lambda; then
    skip "Lambda zip: $bootstrap needs a newer glibc than Lambda's 2.34"
    bootstrap=""
fi
[ -z "$bootstrap" ] || make+=(--lambda "$bootstrap")
sbom=""
if has_list; then sbom=1 make+=(--sbom); fi
"${make[@]}" --out "$work/packages" "$binary" >"$work/made.txt"
packages="$work/packages"
target="$(basename "$packages"/tallymark-"$version"-*.tar.gz .tar.gz)" && target="${target#tallymark-"$version"-}"
check=(sha256sum --quiet)
command -v sha256sum >/dev/null || check=(shasum -qa 256)
(cd "$packages" && "${check[@]}" -c SHA256SUMS)
ok "SHA256SUMS: $(wc -l <"$packages/SHA256SUMS") files of $target"
if [ -z "$smoke" ]; then
    "${make[@]}" --out "$work/again" "$binary" >/dev/null
    diff -r "$packages" "$work/again" || fail "the same binary gave other bytes"
    ok "made again: the same bytes"
fi
test_archive
test_installer
test_wheel
test_npm
case "$target" in
    *linux*) test_image ;;
    *) skip "image: $target is not Linux" ;;
esac
[ -z "$bootstrap" ] || test_function
if [ -n "$sbom" ]; then test_list; else skip "list of crates: the binary has none, or there is no auditable2cdx"; fi
[ -n "$smoke" ] || test_demo
printf '%d passed, 0 failed, %d skipped\n' "$passed" "$skipped"
