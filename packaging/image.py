"""The container image as an OCI layout, made from nothing: certificates, a user without rights, and the binary."""

import json
import platform
from pathlib import Path

import project as p
from binary import fail

PROCESSORS = {"x86_64": "amd64", "aarch64": "arm64"}
# The number that distroless images give their user without rights.
USER = 65532
PROGRAM = "usr/local/bin/tallymark"
# The directory of tallymark.toml. Mount it or copy it there.
DIRECTORY = "etc/tallymark"
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
# Where the linkers of Debian and Red Hat look.
LIBRARIES = ("/lib/{}-linux-gnu", "/usr/lib/{}-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib")
PASSWD = f"root:x:0:0:root:/:/sbin/nologin\nnonroot:x:{USER}:{USER}:nonroot:/tmp:/sbin/nologin\n"
GROUP = f"root:x:0:\nnonroot:x:{USER}:\n"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class Layout:
    """The files of an OCI layout: {name: content}."""

    def __init__(self):
        self.files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def add(self, kind, content, **further):
        """Adds a blob and returns its descriptor."""
        if not isinstance(content, bytes):
            content = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        digest = p.sha256(content)
        self.files[f"blobs/sha256/{digest}"] = content
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content), **further}


def system_libraries(binary):
    """(path, content) of what a binary that is not static loads, from this machine."""
    if platform.machine() != binary.processor:
        fail(f"the image for {binary.processor} needs libraries of another machine; give the musl binary")
    places = [Path(it.format(binary.processor)) for it in LIBRARIES]
    yield binary.loader.lstrip("/"), Path(binary.loader).read_bytes()
    for name in binary.needed:
        found = next((place / name for place in places if (place / name).exists()), None)
        if found is None:
            fail(f"{name} is in none of {', '.join(map(str, places))}; give the musl binary")
        if Path(binary.loader).name != name:
            yield str(found).lstrip("/"), found.read_bytes()


def base_layer(binary, certificates):
    """The layer that seldom changes. It has no shell and no other program."""
    files = {"etc/passwd": (PASSWD.encode(), 0o644), "etc/group": (GROUP.encode(), 0o644)}
    files[CERTIFICATES] = (certificates, 0o644)
    if not binary.is_static:
        files |= {path: (content, 0o755) for path, content in system_libraries(binary)}
    entries = {"tmp": (None, 0o1777), DIRECTORY: (None, 0o755)} | files
    for path in list(entries):
        entries |= {str(it): (None, 0o755) for it in Path(path).parents if str(it) != "."}
    return p.tar((path, *entry) for path, entry in sorted(entries.items()))


def program_layer(binary):
    """The layer that changes with every version."""
    texts = {f"usr/share/doc/tallymark/{name}": (text, 0o644) for name, text in p.licences().items()}
    entries = {PROGRAM: (binary.content, 0o755)} | texts
    for path in list(entries):
        entries |= {str(it): (None, 0o755) for it in Path(path).parents if str(it) != "."}
    return p.tar((path, *entry) for path, entry in sorted(entries.items()))


def labels(project):
    found = {"title": "tallymark", "version": project.version, "licenses": project.licence}
    found["description"] = project.description
    if project.repository:
        found["source"] = project.repository
    return {f"org.opencontainers.image.{key}": value for key, value in found.items()}


def add_image(layout, project, binary, certificates):
    """Adds the image for one processor and returns its descriptor."""
    layers = [base_layer(binary, certificates), program_layer(binary)]
    described = [layout.add(LAYER, p.compress(layer)) for layer in layers]
    where = {"architecture": PROCESSORS[binary.processor], "os": "linux"}
    config = layout.add(CONFIG, where | {
        "config": {
            "User": f"{USER}:{USER}",
            "Env": ["PATH=/usr/local/bin"],
            "Entrypoint": [f"/{PROGRAM}"],
            "WorkingDir": f"/{DIRECTORY}",
            "Labels": labels(project),
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{p.sha256(layer)}" for layer in layers]},
    })
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": described}
    return layout.add(MANIFEST, manifest, platform=where)


def image(project, binaries, certificates):
    """{name: content} of a layout whose one reference, the version, is an index of the processors."""
    layout = Layout()
    manifests = [add_image(layout, project, binary, certificates) for binary in binaries]
    annotations = {"org.opencontainers.image.ref.name": project.version}
    inner = layout.add(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
    outer = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner | {"annotations": annotations}]}
    layout.files["index.json"] = json.dumps(outer, sort_keys=True).encode()
    return layout.files
