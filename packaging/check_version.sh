#!/usr/bin/env bash
# Compares the tag of a release with Cargo.toml and CHANGELOG.md. With --notes, prints the section of that release.
#
#   packaging/check_version.sh refs/tags/v1.2.3
#   packaging/check_version.sh --notes refs/tags/v1.2.3
#
# Anything that is not a tag passes: the workflow also runs by hand.
set -euo pipefail
cd "$(dirname "$0")/.."

notes=""
[ "${1:-}" != --notes ] || { notes=1 && shift; }
reference="${1:?name a reference, such as refs/tags/v1.2.3}"
version="$(sed -n '/^\[package\]/,/^\[[^p]/s/^version = "\(.*\)"$/\1/p' Cargo.toml)"
section="$(awk -v heading="## [$version]" '
    index($0, "## ") == 1 { inside = index($0, heading) == 1; next }
    inside' CHANGELOG.md)"

if [ "${reference#refs/tags/}" = "$reference" ]; then
    echo "$reference is not a tag: version $version is built and tested, and not published"
    exit
fi
[ "$reference" = "refs/tags/v$version" ] || {
    echo "error: the tag is ${reference#refs/tags/}, Cargo.toml says $version; tag v$version, or change Cargo.toml" >&2
    exit 1
}
[ -n "$section" ] || {
    echo "error: CHANGELOG.md has no section '## [$version]'; make it of what Unreleased holds" >&2
    exit 1
}
if [ -n "$notes" ]; then printf '%s\n' "$section"; else echo "the tag and Cargo.toml say $version"; fi
