"""The box itself: a real systemd, a disk that outlives a crash, and nothing left behind."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import boxes
import pytest
from boxes import wait_until

from kit import deadline

BEATS_TWICE_THEN_HANGS = """
[Unit]
OnFailure=answer.service
[Service]
Type=notify
NotifyAccess=all
WatchdogSec=300ms
ExecStart=/bin/sh -c 'echo beating; systemd-notify --ready; systemd-notify WATCHDOG=1; sleep 1000'
"""
ANSWER = """
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo answering $MONITOR_UNIT $MONITOR_SERVICE_RESULT; echo run >>/srv/answers'
"""
SANDBOXED = """
[Service]
Type=oneshot
DynamicUser=yes
ProtectSystem=strict
ProtectProc=invisible
ProtectKernelTunables=yes
ProtectControlGroups=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateNetwork=yes
PrivateUsers=yes
NoNewPrivileges=yes
SystemCallFilter=@system-service
ExecStart=/bin/sh -c 'id -u; ! touch /usr/x; echo sandboxed'
"""
EXCHANGE = """
import ctypes, pathlib, sys
a, b = (pathlib.Path(sys.argv[1], name) for name in "ab")
for folder in a, b:
    folder.mkdir()
    (folder / "name").write_text(folder.name)
libc = ctypes.CDLL(None, use_errno=True)
if libc.renameat2(-100, bytes(a), -100, bytes(b), 2):
    raise OSError(ctypes.get_errno(), "renameat2")
assert (a / "name").read_text() == "b"
"""
HOLD_A_BOX = """
import sys
import box
with box.Box(name="held") as held:
    held.boot()
    print(held.pid, held._keeper.pid, held._folder, flush=True)
    held.run(["sleep", "1000"], timeout=1000)
"""


def put_unit(box, name, text):
    box.path(f"/etc/systemd/system/{name}").write_text(text)
    box.run(["systemctl", "daemon-reload"])


def journal(box, unit, *more):
    box.run(["journalctl", "--sync"])  # what was said is on its way for a while
    return box.run(["journalctl", "-o", "cat", "-u", unit, *more]).stdout


# -- a real systemd ---------------------------------------------------------------------------


def test_systemd_is_pid_1_and_well(bare_box):
    assert bare_box.path("/proc/1/comm").read_text() == "systemd\n"
    assert bare_box.run(["systemctl", "is-system-running", "--wait"]).stdout == "running\n"
    assert bare_box.run(["hostname"]).stdout == "box\n"
    assert bare_box.boot_seconds > 0


def test_a_unit_that_stops_beating_is_killed_and_answered(bare_box):
    put_unit(bare_box, "beats.service", BEATS_TWICE_THEN_HANGS)
    put_unit(bare_box, "answer.service", ANSWER)
    bare_box.run(["mkdir", "-p", "/srv"])
    bare_box.run(["systemctl", "start", "beats"])
    wait_until(lambda: bare_box.path("/srv/answers").exists(), "OnFailure=")
    wait_until(lambda: "watchdog" in journal(bare_box, "answer"), "the journal")
    assert "answering beats.service watchdog" in journal(bare_box, "answer")
    assert "Watchdog timeout" in journal(bare_box, "beats")
    result = bare_box.run(["systemctl", "show", "-P", "Result", "beats"])
    assert result.stdout == "watchdog\n"
    bare_box.run(["systemctl", "reset-failed", "beats"])  # the box is for others, who want it well


def test_sandboxed_units_run(bare_box):
    put_unit(bare_box, "sandboxed.service", SANDBOXED)
    bare_box.run(["systemctl", "start", "sandboxed"])
    wait_until(lambda: "sandboxed" in journal(bare_box, "sandboxed", "-t", "sh"))


def test_settings_of_the_machine_are_read_only(bare_box):
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/power/state"):
        done = bare_box.run(["sh", "-c", f"test ! -e {path} || echo x >{path}"], check=False)
        assert done.returncode == 0 or "Read-only" in done.stderr


# -- commands ---------------------------------------------------------------------------------


def test_run_returns_output_status_and_takes_input_and_environment(bare_box):
    done = bare_box.run(["sh", "-c", "cat; echo $WORD >&2; exit 3"], check=False, input="in\n",
                        env={"WORD": "word"})  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("in\n", "word\n", 3)
    with pytest.raises(subprocess.CalledProcessError):
        bare_box.run(["false"])


def test_run_does_not_show_the_caller_s_environment(bare_box, monkeypatch):
    monkeypatch.setenv("AGENTCTL_SECRET_OF_THE_CALLER", "1")
    assert "SECRET" not in bare_box.run(["env"]).stdout


def test_run_as_a_user(bare_box):
    done = bare_box.run(["sh", "-c", "id -un; echo $HOME; id -Gn"], user="games")
    assert done.stdout.split()[:2] == ["games", "/usr/games"]


def test_a_timeout_kills_what_the_command_started(bare_box):
    with pytest.raises(subprocess.TimeoutExpired):
        bare_box.run(["sh", "-c", "sleep 4321 & wait"], timeout=1)
    assert bare_box.run(["pgrep", "-f", "sleep 432[1]"], check=False).returncode == 1


def test_a_command_costs_no_seconds(bare_box):
    took = []
    for _ in range(20):
        started_at = time.monotonic()
        bare_box.run(["true"])
        took.append(time.monotonic() - started_at)
    assert min(took) < 5  # it takes milliseconds, but the machine may have much else to do


def test_the_checkout_is_there_and_read_only(bare_box):
    assert bare_box.path(boxes.SOURCE_INSIDE + "/pyproject.toml").is_file()
    done = bare_box.run(["touch", boxes.SOURCE_INSIDE + "/x"], check=False)
    assert "Read-only" in done.stderr


@pytest.mark.parametrize("place", ["/srv", "/mnt/ext4"])
def test_two_folders_can_be_exchanged(bare_box, place):
    bare_box.run(["mkdir", "-p", place + "/exchange"])
    bare_box.run(["python3", "-c", EXCHANGE, place + "/exchange"])


# -- the life of the disk ---------------------------------------------------------------------


@pytest.fixture
def small_box(box_root):
    with boxes.bare_box(box_root, ext4={"/mnt/ext4": "16M"}) as box:
        yield box.boot()


@pytest.mark.parametrize("way_down", ["reboot", "power_off", "crash"])
def test_files_and_journal_survive(small_box, way_down):
    small_box.run(["mkdir", "-p", "/srv"])
    for place in ("/srv", "/mnt/ext4"):
        small_box.path(f"{place}/kept").write_text("kept")
    small_box.run(["touch", "/run/lost"])
    small_box.run(["systemd-run", "--wait", "--unit=before", "echo", "said before"])
    wait_until(lambda: "said before" in journal(small_box, "before"))
    boot_id = small_box.path("/proc/sys/kernel/random/boot_id").read_text()
    getattr(small_box, way_down)()
    if way_down != "reboot":
        assert not small_box.is_up
        assert small_box.path("/srv/kept").read_text() == "kept"
        small_box.boot()
    for place in ("/srv", "/mnt/ext4"):
        assert small_box.path(f"{place}/kept").read_text() == "kept"
    assert not small_box.path("/run/lost").exists()
    assert "said before" in journal(small_box, "before", "-b", "-1")
    assert "said before" not in journal(small_box, "before", "-b", "0")
    assert small_box.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout != boot_id


def test_enabled_units_start_at_boot(small_box):
    put_unit(small_box, "hello.service", "[Service]\nExecStart=sleep 1000\n"
                                         "[Install]\nWantedBy=multi-user.target\n")  # fmt: skip
    small_box.run(["systemctl", "enable", "hello"])
    small_box.crash()
    small_box.boot()
    assert small_box.run(["systemctl", "is-active", "hello"]).stdout == "active\n"


def test_a_reboot_from_inside_is_noticed(small_box):
    small_box.run(["systemctl", "--no-block", "reboot"], check=False)
    assert small_box.wait_down() == "reboot"
    assert not small_box.is_up


def test_a_user_has_a_manager_of_his_own(box_root):
    with boxes.bare_box(box_root, user_manager=True) as box:
        box.boot()
        box.run(["useradd", "-m", "somebody"])
        box.start_user_manager("somebody")
        state = box.run(["systemctl", "--user", "is-system-running", "--wait"], user="somebody",
                        check=False)  # fmt: skip
        assert state.stdout in ("running\n", "degraded\n")
        box.run(["systemd-run", "--user", "--wait", "true"], user="somebody")
        box.reboot()
        wait_until(lambda: box.run(["systemctl", "--user", "is-active", "default.target"],
                                   user="somebody", check=False).returncode == 0)  # fmt: skip


# -- nothing stays ----------------------------------------------------------------------------


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def loops(folder):
    """List the loop devices whose files are, or were, in that folder."""
    listed = deadline.run(["losetup", "-a"], capture_output=True, text=True).stdout.splitlines()
    return [line for line in listed if Path(folder).name in line]


def cgroups():
    for line in Path("/proc/mounts").read_text().splitlines():
        if line.split()[2] == "cgroup2":
            return sorted(Path(line.split()[1]).glob("agentctl-box-*"))
    return []


def nothing_of(folder):
    mounts = Path("/proc/self/mounts").read_text()
    return not Path(folder).exists() and str(folder) not in mounts and not any(
        cgroup.name == Path(folder).name for cgroup in cgroups())  # fmt: skip


def test_close_leaves_nothing(box_root, tmp_path):
    box = boxes.bare_box(box_root, workdir=tmp_path, ext4={"/mnt/ext4": "16M"})
    with box:
        box.boot()
        box.popen(["sleep", "1000"])
        pids = [box.pid, box._keeper.pid]
        assert list(tmp_path.iterdir()) and loops(box._folder)
    assert not any(map(is_alive, pids))
    assert nothing_of(box._folder)
    assert not list(tmp_path.iterdir())
    wait_until(lambda: not loops(box._folder), "the loop device to go")
    box.close()


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
def test_a_box_dies_with_its_controller(signal_number):
    if reason := boxes.machine.is_possible():
        pytest.skip(reason)
    holder = subprocess.Popen([sys.executable, "-c", HOLD_A_BOX], stdout=subprocess.PIPE, text=True,
                              env={"PYTHONPATH": str(boxes.CHECKOUT / "packaging"),
                                   "PYTHONDONTWRITEBYTECODE": "1"})  # fmt: skip
    with holder:
        init, keeper, folder = deadline.read_line(holder).split()
        holder.send_signal(signal_number)
        deadline.wait(holder, "who holds the box")
    wait_until(lambda: not is_alive(init) and not is_alive(keeper), "the end of the box")
    assert nothing_of(folder)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_line_cleans_up_when_told_to_stop(box_root, signal_number):
    script = str(boxes.CHECKOUT / "packaging/box.py")
    command = [script, "run", "--root", str(box_root), "--", "sh", "-c", "echo up; sleep 1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
                          start_new_session=True) as process:  # fmt: skip
        assert deadline.read_line(process) == "up\n"
        folder = folder_of(process.pid)
        assert folder.exists()
        process.send_signal(signal_number)
        try:
            deadline.wait(process, timeout=180)
        finally:
            process.kill()
    assert process.returncode == 128 + signal_number
    assert nothing_of(folder)


def folder_of(pid):
    """Return the folder of the box that a process holds: its keeper was told of it."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        if "keep" in words:
            return Path(json.loads(words[words.index("keep") + 1])["folder"])
    raise AssertionError(f"{pid} has no keeper")


def test_a_box_dies_with_its_keeper(box_root, tmp_path):
    with boxes.bare_box(box_root, workdir=tmp_path) as box:
        box.boot()
        init = box.pid
        box._keeper.kill()
        wait_until(lambda: not is_alive(init), "the end of PID 1")
    assert not list(tmp_path.iterdir())


def test_the_command_line_passes_the_status_on(box_root):
    script = str(boxes.CHECKOUT / "packaging/box.py")
    command = [script, "run", "--root", str(box_root), "--", "sh", "-c", "ps -o comm= 1; exit 7"]
    done = deadline.run(command, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("systemd\n", 7)


# -- agentctl in the box ----------------------------------------------------------------------


def test_agentctl_is_installed(box):
    box.run([f"{boxes.VENV_INSIDE}/bin/python", "-c", "import agentctl, click, git, psutil, sdnotify"])
    assert box.path("/usr/local/bin/agentctl").is_symlink()
