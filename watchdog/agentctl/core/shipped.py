"""Files that come with us and are no code: as packages where we are installed, as folders in a checkout."""

from __future__ import annotations

import importlib.resources

from .paths import PACKAGE_DIR

FOLDERS = {"agentctl.units": "systemd", "agentctl.docker": "packaging/docker"}  # in a checkout


def read(package: str, name: str) -> str:
    """Return a file's text; raise OSError where it is not there."""
    try:
        return importlib.resources.files(package).joinpath(name).read_text(encoding="utf-8")
    except ModuleNotFoundError:
        pass
    with open(f"{PACKAGE_DIR}/../../{FOLDERS[package]}/{name}", encoding="utf-8") as file:
        return file.read()
