"""The project data in every package, and the archive formats of all of them: tar and gzip without a clock."""

import gzip
import hashlib
import io
import json
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

from binary import fail

ROOT = Path(__file__).resolve().parent.parent
# The time of every file in every package, which is npm's: equal inputs give equal bytes.
TIME = 499162500
LICENCES = ("LICENSE-APACHE", "LICENSE-MIT")


@dataclass(frozen=True)
class Project:
    """Cargo.toml's words, and the address of the repository, which only the release workflow knows."""

    version: str
    description: str
    licence: str
    keywords: "tuple[str, ...]"
    repository: "str | None"

    @property
    def downloads(self):
        """Where the archives of this version are, if that is known."""
        return self.repository and f"{self.repository}/releases/download/v{self.version}"


def load(repository=None):
    """The project as Cargo.toml has it. (Python reads TOML only from 3.11 on.)"""
    package = re.split(r"(?m)^\[", (ROOT / "Cargo.toml").read_text(encoding="utf-8"))[1]
    found = dict(re.findall(r"(?m)^([\w-]+) = (.+)$", package))
    texts = {key: json.loads(found[key]) for key in ("version", "description", "license", "keywords")}
    if not re.fullmatch(r"\d+\.\d+\.\d+", texts["version"]):
        # PyPI and SemVer write a pre-release differently.
        fail(f"version {texts['version']} of Cargo.toml is not of the form 1.2.3")
    return Project(
        texts["version"], texts["description"], texts["license"], tuple(texts["keywords"]),
        repository.rstrip("/") if repository else None,
    )


def licences():
    """The licences' texts by their names."""
    return {name: (ROOT / name).read_bytes() for name in LICENCES}


def readme():
    """The text that PyPI and npm show."""
    return (ROOT / "packaging" / "README.md").read_bytes()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def tar(entries):
    """A tar of (name, content, mode), where content is None for a directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content, mode in entries:
            entry = tarfile.TarInfo(name)
            entry.mode, entry.mtime = mode, TIME
            if content is None:
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def compress(content):
    """gzip without a time or a name. Level 6: level 9 takes four times as long for 1 % less."""
    return gzip.compress(content, compresslevel=6, mtime=0)
