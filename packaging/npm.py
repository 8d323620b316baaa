"""The npm packages: one for each platform with its binary, and `tallymark`, which depends on all of them and starts
the one that npm has installed. No package runs a script at its installation, and none downloads anything."""

import json

import project as p

SYSTEMS = {"linux": "linux", "darwin": "darwin"}
PROCESSORS = {"x86_64": "x64", "aarch64": "arm64"}
# Every platform that a release has, also those that are not built now, as the packages of one version must agree.
PLATFORMS = [(system, processor) for system in ("darwin", "linux") for processor in ("arm64", "x64")]


def platform(binary):
    """Node's names of the system and processor."""
    return SYSTEMS[binary.system], PROCESSORS[binary.processor]


def common(project, name):
    """The keys that every package.json has."""
    keys = {"name": name, "version": project.version, "description": project.description, "license": project.licence}
    if project.repository:
        # npm compares it with the repository whose workflow publishes the package.
        keys["repository"] = {"type": "git", "url": f"git+{project.repository}.git"}
    return keys


def package(manifest, files):
    """The tarball as npm packs it; files are (name, content, mode)."""
    texts = [*p.licences().items(), ("README.md", p.readme())]
    texts.append(("package.json", json.dumps(manifest, indent=2).encode() + b"\n"))
    entries = [*files, *((name, content, 0o644) for name, content in texts)]
    return p.compress(p.tar(sorted((f"package/{name}", content, mode) for name, content, mode in entries)))


def of_platform(project, binary):
    """(name, content) of the package that holds the binary."""
    system, processor = platform(binary)
    manifest = common(project, f"@tallymark/{system}-{processor}")
    manifest |= {"os": [system], "cpu": [processor], "preferUnplugged": True}
    if system == "linux" and not binary.is_static:
        manifest["libc"] = ["glibc"]
    content = package(manifest, [("bin/tallymark", binary.content, 0o755)])
    return f"tallymark-{system}-{processor}-{project.version}.tgz", content


def umbrella(project):
    """(name, content) of the package `tallymark`."""
    manifest = common(project, "tallymark")
    manifest |= {
        "keywords": list(project.keywords),
        "bin": {"tallymark": "bin/tallymark.js"},
        "engines": {"node": ">=18"},
        "optionalDependencies": {f"@tallymark/{s}-{c}": project.version for s, c in PLATFORMS},
    }
    launcher = (p.ROOT / "packaging" / "launcher.js").read_bytes()
    return f"tallymark-{project.version}.tgz", package(manifest, [("bin/tallymark.js", launcher, 0o755)])
