"""Reads the properties of a built binary that its packages must state: system, processor, C library, and libraries."""

import re
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

# ELF's and Mach-O's numbers for processors, by Rust's names.
ELF_PROCESSORS = {62: "x86_64", 183: "aarch64"}
MACH_PROCESSORS = {0x01000007: "x86_64", 0x0100000C: "aarch64"}
# Every Linux with glibc has these libraries (manylinux's policy allows them).
SYSTEM_LIBRARIES = re.compile(r"(lib(c|m|dl|pthread|rt|gcc_s)|ld-linux[-_a-z0-9]*)\.so\.\d+")
# Numbers of the ELF and Mach-O formats.
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NEEDED, DT_STRTAB, DT_STRSZ = 1, 5, 10
LC_VERSION_MIN_MACOSX, LC_BUILD_VERSION = 0x24, 0x32


def fail(message):
    """Ends the program: 2 is wrong usage, as in `tallymark` itself."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


@dataclass(frozen=True)
class Binary:
    """A built program and where it can run."""

    path: Path
    content: bytes
    # "linux" or "darwin".
    system: str
    # "x86_64" or "aarch64".
    processor: str
    # The newest glibc that it requires, or the oldest macOS; None for a static binary.
    oldest: "tuple[int, int] | None"
    # Names of the libraries that it loads, and the path of what loads them.
    needed: "tuple[str, ...]" = ()
    loader: "str | None" = None

    @property
    def is_static(self):
        return self.system == "linux" and self.loader is None

    @property
    def target(self):
        """Rust's name of the target. A static binary is one of musl: glibc cannot resolve names in one."""
        if self.system == "darwin":
            return f"{self.processor}-apple-darwin"
        return f"{self.processor}-unknown-linux-{'musl' if self.is_static else 'gnu'}"


def read(path):
    """The binary in this file; ends the program if it cannot be packaged."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    try:
        if content[:5] == b"\x7fELF\x02":
            return elf(path, content)
        if content[:4] == b"\xcf\xfa\xed\xfe":
            return mach(path, content)
    except (struct.error, KeyError, ValueError) as error:
        fail(f"{path} is damaged, or for a processor other than x86-64 and arm64 ({error!r})")
    fail(f"{path} is no 64-bit binary of Linux or macOS; name a built `tallymark`")


def elf(path, content):
    processor = ELF_PROCESSORS[struct.unpack_from("<H", content, 18)[0]]
    (first,), (size, count) = struct.unpack_from("<Q", content, 32), struct.unpack_from("<HH", content, 54)
    segments = [struct.unpack_from("<IIQQQQQQ", content, first + size * it) for it in range(count)]
    loader, entries, strings = None, [], b""
    for kind, _, offset, _, _, length, _, _ in segments:
        if kind == PT_INTERP:
            loader = content[offset : offset + length].rstrip(b"\0").decode()
        if kind == PT_DYNAMIC:
            entries = list(struct.iter_unpack("<QQ", content[offset : offset + length]))
    table = dict(entries)
    if DT_STRTAB in table:
        start = place_of(table[DT_STRTAB], segments)
        strings = content[start : start + table[DT_STRSZ]]
    names = [strings[it : strings.index(b"\0", it)].decode() for tag, it in entries if tag == DT_NEEDED]
    strange = [name for name in names if not SYSTEM_LIBRARIES.fullmatch(name)]
    if strange:
        fail(f"{path} needs {', '.join(strange)}, which not every Linux has; link it statically")
    versions = [(int(major), int(minor)) for major, minor in re.findall(rb"GLIBC_(\d+)\.(\d+)", strings)]
    if loader and not versions:
        fail(f"{path} loads a C library other than glibc; link it statically")
    return Binary(path, content, "linux", processor, max(versions, default=None), tuple(names), loader)


def place_of(address, segments):
    """The offset in the file of what is loaded to this address."""
    for kind, _, offset, start, _, length, _, _ in segments:
        if kind == PT_LOAD and start <= address < start + length:
            return address - start + offset
    raise ValueError(f"no segment holds address {address:#x}")


def mach(path, content):
    _, processor, _, _, commands = struct.unpack_from("<IIIII", content, 0)
    position, oldest = 32, None
    for _ in range(commands):
        command, size = struct.unpack_from("<II", content, position)
        if command in (LC_BUILD_VERSION, LC_VERSION_MIN_MACOSX):
            place = position + (12 if command == LC_BUILD_VERSION else 8)
            (version,) = struct.unpack_from("<I", content, place)
            oldest = (version >> 16, version >> 8 & 0xFF)
        position += size
    if oldest is None:
        fail(f"{path} does not say which macOS it needs")
    return Binary(path, content, "darwin", MACH_PROCESSORS[processor], oldest)
