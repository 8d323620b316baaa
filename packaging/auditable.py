#!/usr/bin/env python3
"""Prints the crates that a binary was built of, from the list that cargo-auditable has left in it.

Prints nothing if there is none.

    packaging/auditable.py BINARY
"""

import json
import struct
import sys
import zlib
from pathlib import Path

# The section's name, which is cargo-auditable's contract with its readers.
SECTION = b".dep-v0"


def listed(content):
    """The list in a Linux binary, or None."""
    if content[:5] != b"\x7fELF\x02":
        return None
    (first,) = struct.unpack_from("<Q", content, 40)
    size, count, names = struct.unpack_from("<HHH", content, 58)
    sections = [struct.unpack_from("<IIQQQQ", content, first + size * it) for it in range(count)]
    start = sections[names][4]
    for name, _, _, _, offset, length in sections:
        if content.startswith(SECTION + b"\0", start + name):
            return json.loads(zlib.decompress(content[offset : offset + length]))
    return None


def main(path):
    found = listed(Path(path).read_bytes())
    for package in found["packages"] if found else []:
        print(package["name"], package["version"])


if __name__ == "__main__":
    main(*sys.argv[1:])
