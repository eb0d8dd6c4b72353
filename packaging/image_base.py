#!/usr/bin/env python3
"""Make a base image without a registry: a small Debian 13 with what the images of agentctl need, as a tar file.

    packaging/image_base.py FILE && docker import FILE agentctl-base:13
    docker build --build-arg BASE_IMAGE=agentctl-base:13 -f packaging/docker/Dockerfile .

Needs root and a Debian archive that apt knows. The tests make their images from it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import box as machine

RELEASE = "trixie"
FOR_THE_AGENT = ["python3", "tmux", "git", "tini", "ca-certificates"]
FOR_THE_WATCHDOG = [
    *("docker-cli", "docker-compose", "python3-aiohttp", "python3-click", "python3-git", "python3-prometheus-client"),
    *("python3-psutil", "python3-sdnotify", "python3-sqlalchemy", "python3-tomli-w"),
]  # fmt: skip
PACKAGES = [*FOR_THE_AGENT, *FOR_THE_WATCHDOG]
COMPOSE = "usr/libexec/docker/cli-plugins/docker-compose"


def cached() -> Path:
    """Return the tar file of the cache folder, made if need be."""
    key = hashlib.sha256(" ".join([RELEASE, *PACKAGES]).encode()).hexdigest()[:12]
    file = machine.cache_folder() / f"image-base-{key}.tar"
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file.parent / ".image-base.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            build(file)
            for old in file.parent.glob("image-base-*"):
                if old.stem != file.stem:
                    old.unlink()
    return file


def build(file: Path, mirror: str | None = None) -> None:
    """Make the tar file; a file that is there is complete."""
    place = tempfile.mkdtemp(prefix=f".{file.name}.tmp-", dir=file.parent)
    try:
        tar = Path(place, "base.tar")
        machine.command(bootstrap_command(tar, mirror or machine.debian_mirror()))
        tar.rename(file)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def bootstrap_command(tar: Path, mirror: str) -> list[str]:
    """Return the command that makes it."""
    if not shutil.which("mmdebstrap"):
        raise machine.BoxError("mmdebstrap is not installed; apt-get install mmdebstrap")
    slim = [f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("man", "locale", "doc")]
    return ["mmdebstrap", "--variant=minbase", "--mode=root", f"--include={','.join(PACKAGES)}",
            '--aptopt=Acquire::Languages "none"', *machine.proxies(), *slim, RELEASE, str(tar), mirror]  # fmt: skip


def compose_plugin() -> Path:
    """Return Debian 13's Compose v2 as a program of the cache folder: it runs on Debian 12, which has only v1."""
    tar = cached()
    program = tar.with_suffix(".docker-compose")
    with contextlib.suppress(FileExistsError), tempfile.TemporaryDirectory(dir=tar.parent) as place:
        if not program.exists():
            copy = Path(place, "docker-compose")
            with tarfile.open(tar) as source, open(copy, "wb") as target:
                shutil.copyfileobj(source.extractfile(f"./{COMPOSE}"), target)
            copy.chmod(0o755)
            os.link(copy, program)
    return program


def main() -> int:
    parser = argparse.ArgumentParser(prog="image_base.py", description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, help="where to; without it, the cache folder")
    parser.add_argument("--mirror", help="a Debian archive (default: the one that apt uses)")
    options = parser.parse_args()
    try:
        if options.file:
            build(options.file.absolute(), options.mirror)
        print(options.file or cached())
        return 0
    except (machine.BoxError, OSError, subprocess.CalledProcessError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
