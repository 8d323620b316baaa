#!/usr/bin/env python3
"""Writes the content of a package as a software bill of materials: CycloneDX 1.5, JSON.

    infra/sbom.py [--features lambda | default] OUTPUT TARGET [NAME=FILE ...]

The crates are those that a binary is built of for this target, as Cargo.lock has them: `bootstrap` with the features
`lambda`, which is assumed, or `tallymark` with `default`. The files are those of the package, each with its hash. TARGET is
Rust's name of it, or a processor of Lambda (x86_64 or arm64). The same inputs give the same bytes: it holds no time and no
random number. Needs cargo. infra/sbom_check.py compares it with `cargo tree` and the schema.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAMBDA_TARGETS = {"x86_64": "x86_64-unknown-linux-gnu", "arm64": "aarch64-unknown-linux-gnu"}
# What infra/package.sh and a release build.
FEATURES = {"lambda": ["--no-default-features", "--features", "lambda"], "default": []}
# The dependencies that end up in the binary or help to make it.
KINDS = {None, "build"}
# Python has a reader of TOML only from 3.11 on.
LOCKED = re.compile(r'^name = "(.*)"\nversion = "(.*)"\nsource = ".*"\nchecksum = "(.*)"$', re.MULTILINE)


def cargo(*arguments):
    """The output of a cargo command."""
    manifest = ["--manifest-path", str(ROOT / "Cargo.toml")]
    run = subprocess.run(["cargo", *arguments, "--locked", *manifest], check=True, stdout=subprocess.PIPE)
    return run.stdout.decode()


def graph(target, features):
    """Packages by ID, and for each built package the IDs of its dependencies."""
    metadata = json.loads(
        cargo("metadata", "--format-version=1", "--filter-platform", target, *FEATURES[features])
    )
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    needs, open_ids = {}, [metadata["resolve"]["root"]]
    while open_ids:
        package = open_ids.pop()
        if package in needs:
            continue
        needs[package] = {
            dependency["pkg"]
            for dependency in nodes[package]["deps"]
            if any(kind["kind"] in KINDS for kind in dependency["dep_kinds"])
            # The tests ask for this crate with another feature.
            and dependency["pkg"] != package
        }
        open_ids += needs[package]
    return packages, needs, metadata["resolve"]["root"]


def built(target, features):
    """The names and versions that `cargo tree` shows."""
    lines = cargo(
        "tree", "--edges=normal,build", "--prefix=none", "--format={p}", "--target", target, *FEATURES[features]
    )
    return {tuple(line.split()[:2]) for line in lines.splitlines() if line}


def reference(package):
    """The package URL, which also names it in this document."""
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksums):
    """A crate."""
    found = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
        # Before license expressions, a slash meant OR.
        "licenses": [{"expression": package["license"].replace("/", " OR ")}],
    }
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        found["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        found["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return found


def file(name, path):
    """A file of the package."""
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return {
        "type": "file",
        "bom-ref": f"file:{name}",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }


def bill(target, features, files):
    """The whole document."""
    packages, needs, root = graph(target, features)
    # Features that only the tests enable are in the resolved graph, but not in the build.
    in_build = built(target, features)
    is_built = lambda package: (package["name"], f"v{package['version']}") in in_build
    lock = (ROOT / "Cargo.lock").read_text()
    checksums = {(name, version): checksum for name, version, checksum in LOCKED.findall(lock)}
    chosen = {key: packages[key] for key in needs if is_built(packages[key])}
    crates = [component(package, checksums) for key, package in chosen.items() if key != root]
    about = component(packages[root], checksums)
    about["type"] = "application"
    depends = [
        {
            "ref": reference(package),
            "dependsOn": sorted(reference(chosen[need]) for need in needs[key] if need in chosen),
        }
        for key, package in chosen.items()
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": about,
            "properties": [
                {"name": "tallymark:target", "value": target},
                {"name": "tallymark:features", "value": features},
            ],
        },
        "components": sorted(crates, key=lambda it: it["bom-ref"])
        + [file(name, path) for name, path in sorted(files)],
        "dependencies": sorted(depends, key=lambda it: it["ref"]),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", choices=FEATURES, default="lambda")
    parser.add_argument("output", metavar="OUTPUT")
    parser.add_argument("target", metavar="TARGET")
    parser.add_argument("files", nargs="*", metavar="NAME=FILE")
    given = parser.parse_args()
    target = LAMBDA_TARGETS.get(given.target, given.target)
    document = bill(target, given.features, [name.split("=", 1) for name in given.files])
    unfinished = f"{given.output}.part"
    with open(unfinished, "w", encoding="utf-8") as out:
        json.dump(document, out, indent=1, ensure_ascii=False)
        out.write("\n")
    os.replace(unfinished, given.output)
    print(f"{os.path.relpath(given.output)}: {len(document['components'])} components")


if __name__ == "__main__":
    main()
