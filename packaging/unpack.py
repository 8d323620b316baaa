#!/usr/bin/env python3
"""Unpacks the image for this machine from an OCI layout, layer by layer, and prints how it is started: the user, then
the entry point. Compares every blob with its digest.

    packaging/unpack.py LAYOUT DIRECTORY
"""

import gzip
import hashlib
import io
import json
import platform
import sys
import tarfile
from pathlib import Path

PROCESSORS = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def blob(layout, descriptor):
    """The content that a descriptor names, if it is what the descriptor says."""
    algorithm, digest = descriptor["digest"].split(":")
    content = (layout / "blobs" / algorithm / digest).read_bytes()
    if len(content) != descriptor["size"] or hashlib.new(algorithm, content).hexdigest() != digest:
        sys.exit(f"error: blob {digest} is not what its descriptor says")
    return content


def main(layout, directory):
    layout, directory = Path(layout), Path(directory)
    if json.loads((layout / "oci-layout").read_text())["imageLayoutVersion"] != "1.0.0":
        sys.exit("error: the layout is of another version")
    (outer,) = json.loads((layout / "index.json").read_text())["manifests"]
    processor = PROCESSORS[platform.machine()]
    (found,) = (
        it for it in json.loads(blob(layout, outer))["manifests"] if it["platform"]["architecture"] == processor
    )
    manifest = json.loads(blob(layout, found))
    config = json.loads(blob(layout, manifest["config"]))
    for layer, expected in zip(manifest["layers"], config["rootfs"]["diff_ids"]):
        content = gzip.decompress(blob(layout, layer))
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != expected:
            sys.exit(f"error: layer {layer['digest']} does not unpack to {expected}")
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(directory)
    print(config["config"]["User"], *config["config"]["Entrypoint"])


main(*sys.argv[1:])
