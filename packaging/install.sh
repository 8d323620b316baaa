#!/bin/sh
# Installs tallymark @VERSION@: downloads the archive for this machine, compares it with the checksum below, and puts
# the program into ~/.local/bin.
#
#   TALLYMARK_INSTALL_DIR=DIR   put it there instead
#   TALLYMARK_DOWNLOADS=URL     take the archive from below this address
set -eu

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

checksums() {
    cat <<'TABLE'
@CHECKSUMS@
TABLE
}

# The archives that this machine can run, the best first. A static binary runs on every Linux.
targets() {
    case "$(uname -m)" in
        x86_64 | amd64) processor=x86_64 ;;
        aarch64 | arm64) processor=aarch64 ;;
        *) fail "there is no archive for the processor $(uname -m); build tallymark from source" ;;
    esac
    case "$(uname -s)" in
        Linux) echo "$processor-unknown-linux-musl" && echo "$processor-unknown-linux-gnu" ;;
        Darwin) echo "$processor-apple-darwin" ;;
        *) fail "there is no archive for $(uname -s); build tallymark from source" ;;
    esac
}

download() {
    if command -v curl >/dev/null; then
        curl --fail --silent --show-error --location --retry 3 --output "$2" "$1"
    elif command -v wget >/dev/null; then
        wget --quiet --output-document "$2" "$1"
    else
        fail "neither curl nor wget is installed; install one of them"
    fi || fail "$1 cannot be downloaded"
}

sha256() {
    if command -v sha256sum >/dev/null; then
        sha256sum "$1"
    else
        shasum -a 256 "$1"
    fi | cut -d ' ' -f 1
}

# In a function, so that a partly downloaded script does nothing.
main() {
    downloads="${TALLYMARK_DOWNLOADS:-@DOWNLOADS@}"
    [ -n "$downloads" ] || fail "this script does not know where the archives are; set TALLYMARK_DOWNLOADS"
    directory="${TALLYMARK_INSTALL_DIR:-${HOME:?set HOME or TALLYMARK_INSTALL_DIR}/.local/bin}"
    candidates="$(targets)" target="" expected=""
    for candidate in $candidates; do
        expected="$(checksums | sed -n "s/^$candidate //p")"
        [ -z "$expected" ] || { target="$candidate" && break; }
    done
    [ -n "$target" ] || fail "this release has no archive for $(uname -s) on $(uname -m); build tallymark from source"

    name="tallymark-@VERSION@-$target"
    temporary="$(mktemp -d)"
    trap 'rm -rf "$temporary"' EXIT
    download "$downloads/$name.tar.gz" "$temporary/archive.tar.gz"
    actual="$(sha256 "$temporary/archive.tar.gz")"
    [ "$actual" = "$expected" ] ||
        fail "the checksum of $name.tar.gz is $actual instead of $expected; nothing was installed"
    tar -xzf "$temporary/archive.tar.gz" -C "$temporary"
    mkdir -p "$directory"
    # Renamed into place, so that a running tallymark keeps its file.
    cp "$temporary/$name/tallymark" "$directory/.tallymark.new"
    chmod 755 "$directory/.tallymark.new"
    mv "$directory/.tallymark.new" "$directory/tallymark"
    echo "installed $("$directory/tallymark" --version) as $directory/tallymark"
    case ":$PATH:" in
        *":$directory:"*) ;;
        *) echo "add $directory to PATH to call it by its name" ;;
    esac
}

main "$@"
