"""What the tests of the runtime `compose` need: an engine with the images in it, or a loud word why there is none."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from kit.engine import BASE, PATH, Engine, EngineError, why_not

CHECKOUT = Path(__file__).resolve().parents[2]
DOCKER = CHECKOUT / "packaging/docker"
sys.path.insert(0, str(CHECKOUT / "packaging"))

import box as machine  # noqa: E402
import image_base  # noqa: E402

AGENT, WATCHDOG = "agentctl-agent:test", "agentctl-watchdog:test"
COMPOSES = {"v1": ["docker-compose"], "v2": ["docker", "compose"]}
if not shutil.which("docker-compose", path=PATH):  # Debian 13 has no v1 any more
    del COMPOSES["v1"]


def give_up(reason: str):
    """Skip what this machine cannot do; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"required in CI: {reason}", pytrace=False)
    pytest.skip(f"COMPOSE TESTS DO NOT RUN: {reason}")


def start_engine(**options) -> Engine:
    """Start an engine that has the base image; give up where there can be none."""
    if reason := why_not():
        give_up(reason)
    try:
        base, plugin = image_base.cached(), image_base.compose_plugin()
    except (machine.BoxError, OSError) as error:
        give_up(f"no base image: {error}")
    engine = Engine(plugin=plugin, **options)
    try:
        engine.start().import_base(base)
    except (EngineError, OSError) as error:
        engine.close()
        give_up(f"no container engine: {error}")
    return engine


def build(engine: Engine, target: str, tag: str, checkout: Path = CHECKOUT, **more) -> str:
    """Build one of our images from a checkout, without a network; return its id."""
    engine.docker("build", "--network", "none", "--build-arg", f"BASE_IMAGE={BASE}", "--target", target, "--tag", tag,
                  "--file", checkout / "packaging/docker/Dockerfile", checkout, **more)  # fmt: skip
    return engine.ask("{{.Id}}", tag)
