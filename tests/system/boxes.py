"""What the system tests need around a box: a root tree to boot, and agentctl installed in it.

Nothing here writes outside the cache folder and temporary folders; the checkout is only read.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import pytest

from kit import deadline

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "packaging"))

import box as machine  # noqa: E402

SOURCE_INSIDE = "/opt/agentctl-src"
VENV_INSIDE = "/opt/agentctl/venv"
ROOTS = ("own", "debian13")
SHIPPED = ("pyproject.toml", "README.md", "LICENSE", "watchdog", "systemd", "packaging/docker")
LAYERS_KEPT = 6
LAYER_IN_USE_SECONDS = 3600  # a box copies its layer when it is made, but others' boxes may be many, and slow
PIP_SECONDS = 1800
PATIENCE_SECONDS = 120  # most waits take a hundredth of it, but the machine may have much else to do
IN_BOX = {"PIP_CONFIG_FILE": "/dev/null", "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": ""}


class Unavailable(Exception):
    """The machine cannot give what the test needs; the text says why."""


def wanted_roots():
    """Return the names of the root trees to test on."""
    names = os.environ.get("AGENTCTL_TEST_ROOTS", ",".join(ROOTS)).split(",")
    names = [name.strip() for name in names if name.strip()]
    if unknown := set(names) - set(ROOTS):
        raise ValueError(f"AGENTCTL_TEST_ROOTS names {', '.join(sorted(unknown))}; known: {ROOTS}")
    return names


def find_root(name):
    """Return the root tree of that name, built if need be. Raise Unavailable."""
    try:
        root = Path("/") if name == "own" else machine.build_debian13()
    except (machine.BoxError, OSError) as error:
        raise Unavailable(f"no {name} root tree: {error}") from error
    if reason := machine.is_possible(root):
        raise Unavailable(f"no box over {name}: {reason}")
    return root


def give_up(reason):
    """Skip what this machine cannot do; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"required in CI: {reason}", pytrace=False)
    pytest.skip(f"SYSTEM TESTS DO NOT RUN: {reason}")


def new_box(root, **options):
    """Return a box with agentctl in it, not booted; give up where there can be none."""
    try:
        return agentctl_box(root, **options)
    except Unavailable as error:
        return give_up(str(error))


def bare_box(root, **options):
    """Return a box, not booted, that sees the checkout at SOURCE_INSIDE."""
    shared = [(CHECKOUT, SOURCE_INSIDE), *options.pop("shared", ())]
    return machine.Box(root, shared=shared, **options)


def agentctl_box(root, **options):
    """Return a box, not booted, with agentctl installed at VENV_INSIDE and on the PATH."""
    return bare_box(root, copied=[(installed_layer(root), "/"), *options.pop("copied", ())], **options)


def wait_until(is_true, what="the condition", timeout_seconds=PATIENCE_SECONDS):
    """Poll; return the first true value. Raise TimeoutError with the last value seen."""
    is_so, value = deadline.poll(is_true, timeout_seconds)
    if not is_so:
        raise TimeoutError(f"waited {timeout_seconds} s for {what}; last seen: {value!r}")
    return value


# -- agentctl, installed once per root tree and state of the source -------------------------------


def installed_layer(root):
    """Return a folder that holds, relative to /, what installing agentctl adds to a machine."""
    layers = machine.cache_folder() / "layers"
    layers.mkdir(parents=True, exist_ok=True)
    layer = layers / f"{_key_of_root(root)}-{_key_of_source()}"
    with open(layers / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not layer.exists():
            with tempfile.TemporaryDirectory(prefix=".tmp-", dir=layers) as place:
                _install(root, Path(place))
                (Path(place) / "layer").rename(layer)
        os.utime(layer)
        for old in sorted(layers.glob("[!.]*"), key=os.path.getmtime)[:-LAYERS_KEPT]:
            if old.stat().st_mtime < time.time() - LAYER_IN_USE_SECONDS:
                shutil.rmtree(old)
    return layer


def _key_of_root(root):
    release = Path(root, "etc/os-release").read_bytes()
    python = os.path.realpath(Path(root, "usr/bin/python3"))
    return hashlib.sha256(release + os.path.basename(python).encode()).hexdigest()[:12]


def _python_of(root):
    """Return the version of a root tree's Python, as in 3.13."""
    return os.path.basename(os.path.realpath(Path(root, "usr/bin/python3"))).removeprefix("python")


def _key_of_source():
    digest = hashlib.sha256()
    for path in _source_files():
        digest.update(f"{path.relative_to(CHECKOUT)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _source_files():
    for name in SHIPPED:
        top = CHECKOUT / name
        files = [top] if top.is_file() else sorted(top.rglob("*"))
        yield from (path for path in files if path.is_file() and "__pycache__" not in path.parts)


def _install(root, place):
    wheels = _dependency_wheels(_python_of(root))
    _build_wheel(place)
    pip = f"/opt/wheels/{next(wheels.glob('pip-*.whl')).name}"
    shared = [(wheels, "/opt/wheels"), (place / "wheel", "/opt/wheel")]
    with machine.Box(root, shared=shared) as box:
        box.boot()
        box.run(["python3", "-m", "venv", "--without-pip", VENV_INSIDE], env=IN_BOX)
        box.run(
            [f"{VENV_INSIDE}/bin/python", f"{pip}/pip", "install", "--isolated", "--no-index"]
            + ["--no-cache-dir", "--find-links=/opt/wheels", "--find-links=/opt/wheel", "agentctl"],
            env=IN_BOX,
            timeout=300,
        )
        target = place / "layer" / VENV_INSIDE.strip("/")
        target.parent.mkdir(parents=True)
        deadline.run(["cp", "-a", box.path(VENV_INSIDE), target], check=True)
    link = place / "layer/usr/local/bin/agentctl"
    link.parent.mkdir(parents=True)
    link.symlink_to(f"{VENV_INSIDE}/bin/agentctl")
    for folder in (place / "layer", *(place / "layer").glob("**/")):
        if VENV_INSIDE not in str(folder):
            folder.chmod(0o755)


def _build_wheel(place):
    """Build from a copy: setuptools leaves folders behind in the tree it builds."""
    for path in _source_files():
        copy = place / "source" / path.relative_to(CHECKOUT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    readme = place / "source/README.md"
    readme.touch()
    try:
        _pip_wheel(place / "wheel", "--no-deps", str(place / "source"))
    except Unavailable as error:  # not this machine's fault
        raise RuntimeError(f"the checkout cannot be installed: {error}") from error


def _dependency_wheels(version):
    """Return a folder of wheels for a version of Python; it stays valid until pyproject.toml asks for others."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    names = [*project["dependencies"], "pip"]
    key = hashlib.sha256("\n".join([*names, version]).encode()).hexdigest()[:12]
    folder = machine.cache_folder() / f"wheels-{key}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(prefix=".wheels-", dir=folder.parent) as place:
            _pip_wheel(Path(place) / "wheels", *names)
            if version != f"{sys.version_info.major}.{sys.version_info.minor}":
                _exchange_compiled(Path(place) / "wheels", version)
            with contextlib.suppress(OSError):  # somebody else was faster
                (Path(place) / "wheels").rename(folder)
    return folder


def _exchange_compiled(folder, version):
    """Put wheels for another Python in the place of those that are compiled for ours."""
    compiled = [path for path in folder.glob("*.whl") if path.stem.split("-")[-2] not in ("none", "abi3")]
    wanted = ["==".join(path.name.split("-")[:2]) for path in compiled]
    _pip("download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", version, "--dest", folder,
         *wanted)  # fmt: skip
    for path in compiled:
        path.unlink()


def _pip_wheel(folder, *arguments):
    _pip("wheel", "--quiet", "--use-pep517", "--wheel-dir", folder, *arguments)


def _pip(*arguments):
    done = deadline.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, timeout=PIP_SECONDS)
    if done.returncode:
        raise Unavailable(f"pip {' '.join(map(str, arguments))} failed:\n{done.stderr[-2000:]}")
