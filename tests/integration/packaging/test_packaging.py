"""packaging/install and packaging/demo, run for real in temporary folders; apt is a fake that records."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from kit import deadline, effort

CHECKOUT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.in_order  # one installation each: tried, installed over, and removed at the end
NEEDED = ("packaging", "watchdog", "systemd", "pyproject.toml", "LICENSE")
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
AS_NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]


class Place:
    """A short, open folder, and somebody who calls our scripts: root, or a user with a home in it."""

    def __init__(self, folder, who):
        self.folder, self.who = folder, who
        self.home, self.temp = folder / "home", folder / "tmp"
        self.checkout = folder / "src"
        for name in NEEDED:
            source, target = CHECKOUT / name, self.checkout / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        for own in (self.home, self.temp):
            own.mkdir()
            if who == "user" and os.geteuid() == 0:
                shutil.chown(own, "nobody", "nogroup")
        self.env = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_", "LANG"))}
        self.env |= {"HOME": str(self.home), "TMPDIR": str(self.temp), "PATH": SYSTEM_PATH}
        if who == "root":
            self.env |= {"AGENTCTL_PREFIX": str(self.prefix), "AGENTCTL_BIN_DIR": str(self.link.parent)}

    @property
    def prefix(self):
        return self.home / ("opt" if self.who == "root" else ".local/share/agentctl")

    @property
    def link(self):
        return self.home / ("bin" if self.who == "root" else ".local/bin") / "agentctl"

    @property
    def python(self):
        return self.prefix / "venv/bin/python"

    def popen(self, script, *words):
        is_other = self.who == "user" and os.geteuid() == 0
        argv = [*(AS_NOBODY if is_other else []), self.checkout / "packaging" / script, *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            argv, env=self.env, cwd="/", stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
        )

    def run(self, script, *words, status=0):
        running = self.popen(script, *words)
        out, err = deadline.communicate(running, timeout=300)
        assert running.returncode == status, out + err
        return out + err

    def left(self):
        """Return what a demo could have left: files in the temporary folder, processes that name it."""
        found = [str(path) for path in self.temp.iterdir()]
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            except OSError:
                continue
            if f"{self.temp}/agentctl-demo".encode() in words:
                found.append(words.replace(b"\0", b" ").decode("utf-8", "replace"))
        return found


@pytest.fixture(scope="module", params=effort.choose(["root", "user"], 1, "packaging"))
def place(request):
    if request.param == "root" and os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("required in CI: root", pytrace=False)
        pytest.skip("not root")
    with tempfile.TemporaryDirectory(prefix="pkg-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        place = Place(Path(folder), request.param)
        place.run("install")
        yield place


# -- install --------------------------------------------------------------------------------------


def version_of(place):
    shown = deadline.run([place.link, "--help"], capture_output=True, text=True, env=place.env)
    assert shown.returncode == 0, shown.stderr
    return os.readlink(place.link)


def test_installs_a_command_that_runs_with_its_byte_code(place):
    assert version_of(place) == str(place.prefix / "venv/bin/agentctl")
    compiled = [path.parent.parent for path in place.prefix.rglob("agentctl/__pycache__/entry.*.pyc")]
    assert len(compiled) == 1
    assert list(compiled[0].glob("../agentctl/units")) or list(compiled[0].glob("units/*.service"))
    assert list(compiled[0].glob("../agentctl-*.dist-info/licenses/LICENSE"))
    for script in (place.prefix / "venv/bin").iterdir():
        if not script.is_symlink():
            assert "venv.new" not in script.read_text(), script


def test_installing_again_changes_nothing_and_leaves_nothing(place):
    before = sorted(path.relative_to(place.prefix) for path in place.prefix.glob("venv*/bin/*"))
    place.run("install")
    assert sorted(path.relative_to(place.prefix) for path in place.prefix.glob("venv*/bin/*")) == before
    assert [path.name for path in place.prefix.iterdir()] == ["venv"]
    assert list(place.temp.iterdir()) == []
    version_of(place)


def test_a_failed_install_leaves_what_was_there(place):
    project = place.checkout / "pyproject.toml"
    good = project.read_text()
    project.write_text(good + "\nthis is no toml\n")
    try:
        assert "Hint:" in place.run("install", status=1)
    finally:
        project.write_text(good)
    assert [path.name for path in place.prefix.iterdir()] == ["venv"]
    assert list(place.temp.iterdir()) == []
    version_of(place)


def test_a_command_of_somebody_else_is_not_replaced(place):
    link = os.readlink(place.link)
    place.link.unlink()
    place.link.write_text("mine")
    try:
        assert "is there already and not from here" in place.run("install", status=1)
        assert place.link.read_text() == "mine"
    finally:
        place.link.unlink()
        place.link.symlink_to(link)


@pytest.mark.parametrize("place", ["user"], indirect=True)  # root's would be the machine's own units
def test_what_agents_run_from_is_not_removed(place):
    drop_in = place.home / ".config/systemd/user/mine.service.d/50-agentctl.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text(f"[Service]\nExecStart={place.python} -I -S x\n")
    assert "agents run from" in place.run("install", "--remove", status=1)
    shutil.rmtree(place.home / ".config")
    version_of(place)


def test_an_unknown_word_is_a_usage_error(place):
    assert "usage: packaging/install" in place.run("install", "--frobnicate", status=2)
    assert "usage: packaging/demo" in place.run("demo", "--runtime", "frobnicate", status=2)


# -- demo -----------------------------------------------------------------------------------------


def test_the_demo_tells_its_story_without_systemd_and_leaves_nothing_behind(place):
    told = place.run("demo", "--runtime", "direct", "--python", place.python)
    where = 0
    for words in (
        "speed up: changed my source",
        "no sign of life in time",
        "rolling back 3 -> 2",
        "write note I am still here: noted",
        "The timeline",
        "the watchdog fires",
        "the task is finished",
        "is well: steady",
        "$ agentctl why",
    ):
        where = told.find(words, where)
        assert where >= 0, f"not told, or not in this order: {words}\n{told}"
    assert "not seen" not in told
    assert all(len(line) <= 80 for line in told.splitlines())
    assert place.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_the_demo_leaves_nothing_behind(place, number):
    running = place.popen("demo", "--runtime", "direct", "--python", place.python)
    for line in running.stdout:
        if "improve myself" in line:
            break
    assert place.left()
    running.send_signal(number)
    assert deadline.wait(running, timeout=120) == 128 + number, running.stderr.read()
    running.stdout.close()
    running.stderr.close()
    assert place.left() == []


def test_a_demo_whose_story_does_not_happen_fails(place):
    skills = place.checkout / "packaging/example_agent/edits.py"
    good = skills.read_text()
    skills.write_text(good.replace("    while True:\n", "    while False:\n"))  # does not hang
    try:
        told = place.run("demo", "--runtime", "direct", "--python", place.python, status=1)
    finally:
        skills.write_text(good)
    assert "Error:" in told
    assert "was not finished within" not in told  # it does not wait for the limit of its story
    assert place.left() == []


def test_last_of_all_removing_leaves_nothing(place):
    place.run("install", "--remove")
    assert not place.prefix.exists() and not os.path.lexists(place.link)
    place.run("install", "--remove")


# -- what is missing on a fresh machine -----------------------------------------------------------

TOOLS = ("sh", "grep", "tail", "env", "printf", "cat", "touch", "cp", "chmod", "ln", "test")
FAKE_PYTHON = """#!/bin/sh
case "$2" in
*"< (3, 11)"*) exit {is_old} ;;
*ensurepip*) test -e "{bin}/.{name}-venv" ;;
*) echo {version} ;;
esac
"""
FAKE_APT_GET = """#!/bin/sh
echo "apt-get $*" >>"{log}"
while [ $# -gt 0 ]; do
    case $1 in
    -*|install|update) ;;
    *-venv) touch "{bin}/.$1"; [ "$1" != python3-venv ] || touch "{bin}/".python3.{{10,11,13}}-venv ;;
    *) ln -sf "{store}/$1" "{bin}/$1" ;;
    esac
    shift
done
"""
FAKE_APT_CACHE = """#!/bin/sh
case $2 in
{cases}
*) echo "  Candidate: (none)" ;;
esac
"""
JAMMY = {"python3": "3.10.6-1", "python3.11": "3.11.0~rc1-1", "python3.11-venv": "3.11.0~rc1-1"}
BOOKWORM = {"python3": "3.11.2-1+b1", "python3.11": "3.11.2-6", "python3.11-venv": "3.11.2-6"}
TRIXIE = {"python3": "3.13.5-1", "python3.13": "3.13.5-2", "python3.13-venv": "3.13.5-2"}


class FreshMachine:
    """A PATH on which only the basic tools and a fake apt are; what apt 'installs' appears on it."""

    def __init__(self, folder, *, has=(), offers=(), uid=0, has_sudo=False):
        self.bin, self.store, self.log = folder / "bin", folder / "store", folder / "log"
        self.bin.mkdir()
        self.store.mkdir()
        for tool in TOOLS:
            if found := shutil.which(tool):
                (self.bin / tool).symlink_to(found)
        for name in ("git", "tmux"):
            self.put(self.store / name, "#!/bin/sh\n")
        for name, version in {**dict(offers), **dict(has)}.items():
            if not name.endswith("-venv"):
                short = ".".join(version.split(".")[:2])
                text = FAKE_PYTHON.format(bin=self.bin, name=name, version=short, is_old=int(short == "3.10"))
                self.put(self.store / name, text)
        for name in dict(has):
            (self.bin / name).symlink_to(self.store / name)
        cases = "\n".join(f'{name}) echo "  Candidate: {v}" ;;' for name, v in dict(offers).items())
        self.put(self.bin / "apt-cache", FAKE_APT_CACHE.format(cases=cases))
        apt_get = FAKE_APT_GET.format(log=self.log, bin=self.bin, store=self.store)
        self.put(self.bin / "apt-get", apt_get.replace("{10,11,13}-venv", "11-venv"))
        self.put(self.bin / "id", f"#!/bin/sh\necho {uid}\n")
        if has_sudo:
            sudo = f'#!/bin/sh\n[ "$1" != -n ] || shift\necho "sudo $*" >>"{self.log}"\nexec "$@"\n'
            self.put(self.bin / "sudo", sudo)
        (self.bin / "true").symlink_to(shutil.which("true"))

    @staticmethod
    def put(path, text):
        path.write_text(text)
        path.chmod(0o755)

    def prepare(self):
        """Do what every script does first; return (exit status, output, what apt was asked)."""
        script = f'checkout=x; . "{CHECKOUT}/packaging/lib.sh"; need_tools git tmux; need_python; echo "python=$python"'
        env = {"PATH": str(self.bin), "AGENTCTL_PYTHON_PATH": str(self.bin), "HOME": "/nonexistent"}
        done = deadline.run(
            [self.bin / "sh", "-euc", script], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        asked = self.log.read_text().splitlines() if self.log.exists() else []
        return done.returncode, done.stdout + done.stderr, [a for a in asked if a.startswith("apt-get")]


@pytest.mark.parametrize(
    ("has", "offers", "wanted", "chosen"),
    [
        ({"python3": "3.10"}, JAMMY, "python3.11 python3.11-venv", "python3.11"),
        ({}, TRIXIE, "python3 python3-venv", "python3"),
        ({"python3": "3.11", "python3.11": "3.11"}, BOOKWORM, "python3.11-venv", "python3.11"),
        ({}, BOOKWORM, "python3 python3-venv", "python3"),
    ],
    ids=["Ubuntu 22.04", "Debian 13 without Python", "Debian 12 without venv", "Debian 12 without Python"],
)
@pytest.mark.parametrize("has_sudo", [False, True], ids=["root", "sudo"])
def test_what_is_missing_is_installed(tmp_path, has, offers, wanted, chosen, has_sudo):
    uid = 1000 if has_sudo else 0
    machine = FreshMachine(tmp_path, has=has, offers=offers, uid=uid, has_sudo=has_sudo)
    status, output, asked = machine.prepare()
    assert status == 0, output
    assert output.splitlines()[-1] == f"python={machine.bin}/{chosen}"
    assert asked[0] == "apt-get -q update"
    assert asked.count("apt-get -q update") == 1
    assert "git tmux" in asked[1]
    assert asked[-1].endswith(f" {wanted}")


def test_with_nothing_missing_apt_is_not_asked(tmp_path):
    machine = FreshMachine(tmp_path, has={"python3": "3.11", "python3.11": "3.11"}, offers=BOOKWORM)
    assert machine.prepare()[0] == 0
    machine.log.unlink()
    assert machine.prepare()[::2] == (0, [])


def test_a_user_without_sudo_is_told_what_to_ask_root_for(tmp_path):
    machine = FreshMachine(tmp_path, has={"python3": "3.11"}, offers=BOOKWORM, uid=1000)
    status, output, asked = machine.prepare()
    assert (status, asked) == (1, [])
    assert "Error: these packages are missing: git tmux" in output
    assert "Hint:  ask root to run 'apt-get install git tmux" in output


def test_a_machine_without_a_new_enough_python_is_refused(tmp_path):
    machine = FreshMachine(tmp_path, has={"python3": "3.10"}, offers={"python3": "3.10.6-1"})
    status, output, _ = machine.prepare()
    assert status == 1
    assert "Error: agentctl needs Python 3.11 or newer, and there is none" in output
    assert "universe" in output


def test_the_benchmark_finds_all_that_it_is_made_of():
    done = deadline.run([sys.executable, str(CHECKOUT / "packaging/bench"), "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--only ROWS" in done.stdout, done.stderr
