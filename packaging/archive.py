"""The archives of a release and the shell script that installs one of them."""

import re

import project as p


def archive(project, binary):
    """(name, content) of the archive for one target."""
    name = f"tallymark-{project.version}-{binary.target}"
    texts = p.licences() | {"CHANGELOG.md": (p.ROOT / "CHANGELOG.md").read_bytes(), "README.md": p.readme()}
    entries = [(f"{name}/{text}", content, 0o644) for text, content in texts.items()]
    entries.append((f"{name}/tallymark", binary.content, 0o755))
    return f"{name}.tar.gz", p.compress(p.tar(sorted(entries)))


def installer(project, archives):
    """(name, content) of the installer, which contains the checksum of each archive: {target: content}."""
    script = (p.ROOT / "packaging" / "install.sh").read_text(encoding="utf-8")
    table = "\n".join(f"{target} {p.sha256(content)}" for target, content in sorted(archives.items()))
    values = {"VERSION": project.version, "DOWNLOADS": project.downloads or "", "CHECKSUMS": table}
    return "install.sh", re.sub(r"@([A-Z]+)@", lambda it: values[it[1]], script).encode()
