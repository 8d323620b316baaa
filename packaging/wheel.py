"""The wheel: the binary as a script of a Python package that has no Python in it."""

import base64
import hashlib
import io
import zipfile

import project as p


def platforms(binary):
    """The platform tag, which pip compares with the machine."""
    processor = "arm64" if (binary.system, binary.processor) == ("darwin", "aarch64") else binary.processor
    if binary.system == "darwin":
        return ["macosx_{}_{}_{}".format(*binary.oldest, processor)]
    if binary.is_static:
        # It asks for no C library: those of every Linux that pip still knows, and Alpine's.
        return [f"manylinux_2_17_{processor}", f"musllinux_1_1_{processor}"]
    return ["manylinux_{}_{}_{}".format(*binary.oldest, processor)]


def metadata(project):
    """METADATA, in the form of core metadata 2.4."""
    lines = [
        "Metadata-Version: 2.4",
        "Name: tallymark",
        f"Version: {project.version}",
        f"Summary: {project.description}",
        f"Keywords: {','.join(project.keywords)}",
        f"License-Expression: {project.licence}",
        *(f"License-File: {name}" for name in p.LICENCES),
        "Requires-Python: >=3.7",
        "Description-Content-Type: text/markdown",
    ]
    if project.repository:
        lines.append(f"Project-URL: Repository, {project.repository}")
    return "\n".join(lines).encode() + b"\n\n" + p.readme()


def wheel(project, binary, bill):
    """(name, content) of the wheel; `bill` is the SBOM, which PEP 770 gives a place, or None."""
    tags = [f"py3-none-{platform}" for platform in platforms(binary)]
    stem = f"tallymark-{project.version}"
    about = [
        "Wheel-Version: 1.0", "Generator: packaging/build.py", "Root-Is-Purelib: false",
        *(f"Tag: {tag}" for tag in tags),
    ]
    info = f"{stem}.dist-info"
    files = {
        f"{stem}.data/scripts/tallymark": binary.content,
        **{f"{info}/licenses/{name}": text for name, text in p.licences().items()},
        **({f"{info}/sboms/tallymark.cdx.json": bill} if bill else {}),
        f"{info}/METADATA": metadata(project),
        f"{info}/WHEEL": "\n".join(about).encode() + b"\n",
    }
    record = "".join(f"{name},sha256={digest(content)},{len(content)}\n" for name, content in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    return f"{stem}-py3-none-{'.'.join(platforms(binary))}.whl", zipped(files)


def digest(content):
    """The hash as RECORD writes it."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def zipped(files):
    """A zip without a clock."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, content in files.items():
            # The earliest time that a zip can hold, and Unix on every system.
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100755 if "/scripts/" in name else 0o100644) << 16
            archive.writestr(entry, content)
    return out.getvalue()
