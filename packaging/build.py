#!/usr/bin/env python3
"""Makes every package of a release from built binaries: archives, installer, wheels, npm packages, container image, and
SHA256SUMS over all of them. The same inputs give the same bytes.

    packaging/build.py target/release/tallymark
    packaging/build.py --repository https://… --lambda bootstrap-x86_64 --lambda bootstrap-arm64 TALLYMARK…

With --sbom, the list of crates that cargo-auditable has left in each binary is written as CycloneDX too.

Needs python3 (3.9 or later). Where a static and a dynamic Linux binary are given for one processor,
both become archives; the wheel, the npm package and the image carry the static one, as that runs on every Linux.
"""

import argparse
import os
import shutil
import subprocess
from pathlib import Path

import archive
import image
import npm
import project as p
import wheel
from binary import fail, read


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", nargs="+", metavar="TALLYMARK", help="a built tallymark")
    parser.add_argument("--lambda", dest="functions", action="append", default=[], metavar="BOOTSTRAP",
                        help="a built bootstrap, for a zip that takes its configuration from a parameter")
    parser.add_argument("--out", type=Path, default=p.ROOT / "target" / "packages", metavar="DIR",
                        help="replaced whole; target/packages if not given")
    parser.add_argument("--repository", metavar="URL",
                        help="where the release will be; the installer downloads from it")
    parser.add_argument("--sbom", action="store_true",
                        help="with the crates in each binary, as CycloneDX; needs auditable2cdx")
    parser.add_argument("--certificates", type=Path, default=Path("/etc/ssl/certs/ca-certificates.crt"), metavar="FILE",
                        help="the certificates that the image trusts; those of this machine if not given")
    return parser.parse_args()


def bill(binary):
    """The SBOM of one binary: the list that cargo-auditable has left in it."""
    if not shutil.which("auditable2cdx"):
        fail("there is no auditable2cdx; install it with cargo, or leave out --sbom")
    run = subprocess.run(["auditable2cdx", binary.path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if run.returncode != 0:
        fail(f"{binary.path} holds no list of its crates; build it with cargo auditable, or leave out --sbom")
    return run.stdout


def best(binaries):
    """One binary for each system and processor, the static one where there are two."""
    found = {}
    for binary in sorted(binaries, key=lambda it: (it.system, it.processor, it.is_static)):
        found[binary.system, binary.processor] = binary
    return list(found.values())


def packages(project, binaries, certificates, bills):
    """(name, content) of every file but the zips for Lambda; `bills` has the SBOM of each target, or is empty."""
    archives = {it.target: archive.archive(project, it) for it in binaries}
    yield from archives.values()
    yield from ((f"tallymark-{project.version}-{target}.cdx.json", text) for target, text in bills.items())
    yield archive.installer(project, {target: content for target, (_, content) in archives.items()})
    chosen = best(binaries)
    for binary in chosen:
        yield wheel.wheel(project, binary, bills.get(binary.target))
        yield npm.of_platform(project, binary)
    yield npm.umbrella(project)
    linux = [binary for binary in chosen if binary.system == "linux"]
    if linux:
        layout = image.image(project, linux, certificates)
        yield from ((f"image/{name}", content) for name, content in layout.items())


def functions(project, binaries, out, with_bill):
    """The zips for Lambda, as infra/package.sh makes them."""
    names = {"x86_64": "x86_64", "aarch64": "arm64"}
    made = p.ROOT / "target" / "lambda"
    for binary in binaries:
        run = subprocess.run([p.ROOT / "infra" / "package.sh", "--no-config", "--binary", binary.path])
        if run.returncode != 0:
            fail(f"no zip could be made of {binary.path}")
        stem = f"tallymark-lambda-{project.version}-{names[binary.processor]}"
        shutil.move(made / "tallymark.zip", out / f"{stem}.zip")
        if with_bill:
            (out / f"{stem}.cdx.json").write_bytes(bill(binary))


def write(out, files):
    for name, content in files:
        place = out / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            fail(f"two packages would be called {name}")
        place.write_bytes(content)


def main():
    given = arguments()
    project = p.load(given.repository)
    binaries = sorted(map(read, given.binaries), key=lambda it: it.target)
    zipped = list(map(read, given.functions))
    if len({it.target for it in binaries}) < len(binaries):
        fail("two binaries are for the same target")
    if any(it.system == "linux" for it in binaries) and not given.certificates.is_file():
        fail(f"{given.certificates}: no such file; name the image's certificates with --certificates")
    certificates = given.certificates.read_bytes() if given.certificates.is_file() else b""
    out = given.out.resolve()
    unfinished = out.with_name(f"{out.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    bills = {it.target: bill(it) for it in binaries} if given.sbom else {}
    write(unfinished, packages(project, binaries, certificates, bills))
    functions(project, zipped, unfinished, given.sbom)
    files = sorted(it for it in unfinished.rglob("*") if it.is_file())
    sums = "".join(f"{p.sha256(it.read_bytes())}  {it.relative_to(unfinished).as_posix()}\n" for it in files)
    (unfinished / "SHA256SUMS").write_text(sums, encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    os.replace(unfinished, out)
    for name in sorted({it.relative_to(unfinished).parts[0] for it in files}):
        print(f"{os.path.relpath(out / name)}")


if __name__ == "__main__":
    main()
