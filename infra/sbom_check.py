"""Compares infra/sbom.py with its subject: the crates of `cargo tree`, the schema of CycloneDX 1.5, and itself.

Ends with 1 and a line for each thing that is wrong.
"""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from jsonschema import Draft7Validator
from referencing import Registry, Resource

ROOT = Path(__file__).resolve().parent.parent


# The features of each binary, as cargo takes them.
FEATURES = {"lambda": "--no-default-features --features lambda", "default": ""}
# The functions' two, a static one and macOS of a release.
TARGETS = [
    ("lambda", "x86_64-unknown-linux-gnu"),
    ("lambda", "aarch64-unknown-linux-gnu"),
    ("default", "x86_64-unknown-linux-musl"),
    ("default", "aarch64-apple-darwin"),
]


def tree(features, target):
    """The crates that are built for a target, as people would list them."""
    command = f"cargo tree --locked {FEATURES[features]} --edges normal,build"
    run = subprocess.run(
        [*command.split(), "--prefix", "none", "--target", target],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    return set(re.findall(r"^(\S+) v(\S+)", run.stdout.decode(), re.MULTILINE))


def written(features, target):
    """The bytes that infra/sbom.py writes, for a package that holds its own source."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "sbom.json"
        script = ROOT / "infra" / "sbom.py"
        subprocess.run(
            [sys.executable, script, "--features", features, output, target, f"sbom.py={script}"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return output.read_bytes()


def schema():
    """The schema of CycloneDX 1.5, with the schemas that it refers to."""
    place = Path(importlib.util.find_spec("cyclonedx").submodule_search_locations[0])
    schemas = [json.loads(path.read_text()) for path in (place / "schema" / "_res").glob("*.json")]
    registry = Registry().with_resources(
        (it["$id"], Resource.from_contents(it)) for it in schemas if "$schema" in it
    )
    own = json.loads((place / "schema" / "_res" / "bom-1.5.SNAPSHOT.schema.json").read_text())
    return Draft7Validator(own, registry=registry)


def faults(features, target):
    """The problems of one binary's document."""
    bill = json.loads(written(features, target))
    crates = [it for it in bill["components"] if it["type"] == "library"]
    listed = {(it["name"], it["version"]) for it in [*crates, bill["metadata"]["component"]]}
    for name, version in sorted(listed ^ tree(features, target)):
        yield f"{features} for {target}: {name} {version} is in only one of the SBOM and cargo tree"
    for crate in crates:
        if not crate.get("hashes") or not crate["licenses"][0]["expression"]:
            yield f"{features} for {target}: {crate['bom-ref']} lacks its hash or its licence"
    references = {bill["metadata"]["component"]["bom-ref"], *(it["bom-ref"] for it in crates)}
    named = {need for it in bill["dependencies"] for need in [it["ref"], *it["dependsOn"]]}
    for reference in sorted(named ^ references):
        yield f"{features} for {target}: {reference} is a component or a dependency, not both"


def main():
    if not shutil.which("cargo"):
        print("there is no cargo: the SBOM was not checked")
        return
    text = written("lambda", "x86_64")
    found = ["two runs differ"] if text != written("lambda", "x86_64") else []
    problems = schema().iter_errors(json.loads(text))
    found += [f"{problem.json_path}: {problem.message}" for problem in problems]
    for features, target in TARGETS:
        found += faults(features, target)
    for fault in found:
        print(fault)
    sys.exit(1 if found else 0)


main()
