"""The last resort when the recovery process itself is broken: standard library, git, no ledger, `move_tree` at most.

It looks whether the agent is merely halted (then it only tells); else it makes sure that some complete tree of a good
generation is at the agent's path, leaves a mark for the runner, and starts the agent. It deletes nothing.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time

EXIT_HALTED, EXIT_STAY_DOWN, EXIT_NO_STORAGE = 77, 76, 74
AGAIN_SECONDS = 600
STAY = [".git", ".agentctl", "lost+found"]  # what a move entry by entry leaves in the agent's folder
GIT_ENV = {
    "PATH": "/usr/bin:/bin",
    "LC_ALL": "C",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
}


def main(name: str) -> int:
    """Rescue one agent; return the unit's exit status."""
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    status = os.environ.get("MONITOR_EXIT_STATUS", "")
    data, settings = find_data(name), {}
    try:
        with open(f"{data}/settings.json", encoding="utf-8") as file:
            settings = json.load(file)
    except (OSError, ValueError) as error:
        say(f"no compiled settings in {data}: {error}")
    if status == str(EXIT_STAY_DOWN):
        return 0
    if status == str(EXIT_HALTED):
        alert(settings, name, "halted: it stays down until a human acts ('agentctl why')")
        return 0
    if status == str(EXIT_NO_STORAGE):
        return wait_for_storage(settings, data, name)
    signal.alarm(300)  # the unit has no limit, because a disk may stay full for days
    try:
        return step_in(settings, data, name, status)
    except OSError as error:
        alert(settings, name, f"in need of a human: the recovery process failed, and so did the rescue: {error}")
        return 1
    finally:
        signal.alarm(0)


def step_in(settings: dict, data: str, name: str, status: str) -> int:
    """Put a good tree in place and start the agent, unless that would be a loop; return the unit's exit status."""
    say(f"the recovery process of '{name}' failed (status {status or '?'}); stepping in")
    if not (code := find(settings, "agent.code")):
        alert(settings, name, "in need of a human: the recovery process failed and the settings cannot be read")
        return 1
    if was_cut_off() and not was_here_lately(data, "retried-at"):
        # It was killed, not broken, and is made to go on from wherever it was: that loses less than we would.
        return retry(data, name)
    if was_here_lately(data):
        alert(settings, name, "in need of a human: the recovery process fails again and again")
        return 1
    give_ballast(data, code.rstrip("/"))
    if (lock := take_lock(f"{data}/agent.lock")) < 0:
        alert(settings, name, "in need of a human: the recovery process failed, and something of the agent still runs")
        return 1
    if find(settings, "agent.runtime") == "compose" and (left := end_containers(settings, name)):
        alert(settings, name, f"in need of a human: the recovery process failed, and its container may run: {left}")
        return 1
    if not put_good_tree(data, code.rstrip("/"), find(settings, "agent.slots") or "beside"):
        alert(settings, name, "in need of a human: no good tree could be put in place")
        return 1
    os.close(lock)
    for mark in ("rescued", "rescued-at"):  # the first is for the runner, which takes it away
        with open(f"{data}/{mark}", "w", encoding="utf-8") as file:
            file.write(f"{time.time()}\n")
    alert(settings, name, "running on a rescued tree: the recovery process failed; look at 'agentctl logs'")
    if os.environ.get("AGENTCTL_RUNTIME") == "direct":
        return 0  # the supervisor starts the agent
    scope = ["--user"] if os.geteuid() != 0 else []
    subprocess.run(["systemctl", *scope, "reset-failed", f"{name}.service"], check=False)
    return subprocess.run(["systemctl", *scope, "start", "--no-block", f"{name}.service"], check=False).returncode


def wait_for_storage(settings: dict, data: str, name: str) -> int:
    """Tell, wait until the disk takes writes again, then have the recovery process go on where it was."""
    homes = (data, find(settings, "agent.code"), find(settings, "state.dir"))
    if not wait(name, homes, lambda what: alert(settings, name, what)):
        return 0
    say("the disk takes writes again; the recovery process goes on")
    return 0 if os.environ.get("AGENTCTL_RUNTIME") == "direct" else start_rollback(name)


def give_ballast(data: str, code: str) -> None:
    """Give up what was kept for a full disk: nobody after us could need it, and it is made again."""
    for home in (data, f"{os.path.dirname(code)}/.{os.path.basename(code)}.agentctl", f"{code}/.agentctl"):
        if os.path.isfile(f"{home}/ballast"):
            os.unlink(f"{home}/ballast")


def take_lock(path: str) -> int:
    """Take the lock that every runner and every rollback holds; return its descriptor, -1 if somebody has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return -1
    return fd


def end_containers(settings: dict, name: str) -> str:
    """End the agent's containers: nothing may be moved under a running one; return what hinders, '' if none runs."""
    try:
        from agentctl.runtime.container.docker import end_by_settings

        return end_by_settings(lambda key: find(settings, f"compose.{key}"), name)
    except Exception as error:  # noqa: BLE001 - whatever it is, a human is told and nothing is moved
        return str(error)


def was_cut_off() -> bool:
    """Tell whether the recovery process was killed rather than failed."""
    return os.environ.get("MONITOR_SERVICE_RESULT", "") in ("signal", "timeout", "oom-kill", "core-dump", "watchdog")


def retry(data: str, name: str) -> int:
    """Start the recovery process once more."""
    with open(f"{data}/retried-at", "w", encoding="utf-8") as file:
        file.write(f"{time.time()}\n")
    say("it was cut off; starting it again")
    return start_rollback(name)


def start_rollback(name: str) -> int:
    """Start the recovery process, which starts the agent."""
    scope = ["--user"] if os.geteuid() != 0 else []
    return subprocess.run(
        ["systemctl", *scope, "start", "--no-block", f"{name}-rollback.service"], check=False
    ).returncode


def was_here_lately(data: str, mark: str = "rescued-at") -> bool:
    """Tell whether the last time was a moment ago: a second one would be a loop."""
    try:
        with open(f"{data}/{mark}", encoding="utf-8") as file:
            return 0 <= time.time() - float(file.read()) < AGAIN_SECONDS
    except (OSError, ValueError):
        return False


def find_data(name: str) -> str:
    """Name the data folder as `paths` does, without importing it."""
    root = os.environ.get("AGENTCTL_ROOT")
    if root:
        return f"{root}/data/{name}"
    if os.geteuid() == 0:
        return f"/var/lib/agentctl/{name}"
    base = os.environ.get("XDG_DATA_HOME") or f"{os.environ.get('HOME', '/')}/.local/share"
    return f"{base}/agentctl/{name}"


def find(settings: dict, key: str):
    """Find a setting in the compiled copy, flat or by section."""
    values = settings.get("values", settings)
    if key in values:
        return values[key]
    section, _, name = key.partition(".")
    inner = values.get(section)
    return inner.get(name) if isinstance(inner, dict) else None


def put_good_tree(data: str, code: str, where: str) -> bool:
    """Make sure a complete good tree is at `code`: the standby if there is one, else golden or newest good."""
    parent, _, base = code.rpartition("/")
    slots, notes = (f"{parent}/.{base}.agentctl",) * 2 if where == "beside" else (f"{code}/.agentctl", data)
    if where == "mounted" and not is_mounted(code):
        say(f"nothing is mounted at {code}: the agent's file system is missing")
        return False
    if is_cut_off(f"{notes}/moving.json"):
        say("a switch entry by entry was cut off; going on with it")
        return move(f"{notes}/moving.json")
    if where != "beside":
        set_planted_aside(slots)
    kept = f"{slots}/quarantine/rescue-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    os.makedirs(kept, mode=0o711, exist_ok=True)
    fresh = f"{slots}/standby"
    if not is_standby(f"{notes}/standby.json", fresh):
        fresh = lay_out(f"{data}/vault.git", f"{kept}/fresh")
    if not fresh:
        return os.path.isdir(code)
    owner = os.stat(code if os.path.isdir(code) else parent)
    below = parent if where == "beside" else code
    if not exchange(fresh, code, kept, where) and not move(
        f"{notes}/moving.json", live=code, below=below, fresh=fresh, quarantine=kept, stay=STAY
    ):
        return False
    for name in os.listdir(code):
        if name not in STAY[1:]:  # ours, and the file system's
            subprocess.run(["chown", "-Rh", f"{owner.st_uid}:{owner.st_gid}", f"{code}/{name}"], check=False)
    os.chown(code, owner.st_uid, owner.st_gid)
    os.chmod(code, owner.st_mode & 0o7777)  # a standby is sealed
    say(f"{code} is a good tree again; the old one is {kept}/tree")
    return True


def exchange(fresh: str, code: str, kept: str, where: str) -> bool:
    """Put the tree at `fresh` at `code` by two renames; tell whether that is possible here."""
    if where != "beside":
        return False
    try:
        if os.path.lexists(code):
            os.rename(code, f"{kept}/tree")
        os.rename(fresh, code)
    except OSError as error:
        say(f"{code} cannot be renamed ({error.strerror}); moving it entry by entry")
        if not os.path.lexists(code) and os.path.lexists(f"{kept}/tree"):
            os.rename(f"{kept}/tree", code)
        return False
    if os.path.lexists(f"{kept}/tree/.git") and not os.path.lexists(f"{code}/.git"):
        os.rename(f"{kept}/tree/.git", f"{code}/.git")
    return True


def set_planted_aside(slots: str) -> None:
    """Inside its folder the agent may have put a link or a folder of its own where ours belongs."""
    try:
        facts = os.lstat(slots)
    except FileNotFoundError:
        return
    if facts.st_mode & 0o170022 != 0o040000 or facts.st_uid != os.geteuid():
        os.rename(slots, f"{slots}.not-ours-{os.urandom(4).hex()}")


def move(record: str, **what) -> bool:
    """Move entry by entry, or go on with such a move: one of the things for which a module of ours is needed."""
    try:
        from agentctl.generations.move_tree import Move

        if what:
            Move(record).begin(**what)
        Move(record).go_on()
    except Exception as error:  # noqa: BLE001 - whatever it is, a human is told and nothing is launched
        say(f"the tree could not be moved: {error}")
        return False
    return True


def is_cut_off(record: str) -> bool:
    """Tell whether a switch entry by entry was begun and is not done."""
    try:
        with open(record, encoding="utf-8") as file:
            return json.load(file)["phase"] in ("out", "in")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def is_mounted(code: str) -> bool:
    """Tell whether a file system is mounted there, also a part of the same one."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split(" ")[4] for line in file]
    return os.path.ismount(code) or code.replace("\\", "\\134").replace(" ", "\\040") in points


def is_standby(note: str, folder: str) -> bool:
    """Tell whether the folder is the good tree of the note: in mid-switch the replaced one stands there."""
    try:
        with open(note, encoding="utf-8") as file:
            known = json.load(file)
        return known.get("version", 1) == 1 and known["inode"] == os.stat(folder).st_ino
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def lay_out(vault: str, folder: str) -> str:
    """Check golden, or the newest good generation, out of the vault; return the folder, '' if it cannot be."""
    listed = git(
        vault,
        "for-each-ref",
        "--format=%(objectname) %(refname)",
        "refs/agentctl/golden",
        "refs/agentctl/good/",
        "refs/agentctl/condemned/",
    ).split("\n")
    known = [line.split(" ", 1) for line in listed if " " in line]
    condemned = {ref.rpartition("/")[2] for _, ref in known if "/condemned/" in ref}
    refs = [[oid, ref] for oid, ref in known if "/condemned/" not in ref and ref.rpartition("/")[2] not in condemned]
    refs.sort(key=lambda r: (r[1].endswith("/golden"), int(r[1].rpartition("/")[2]) if r[1][-1].isdigit() else 0))
    while refs:
        oid, _ = refs.pop()
        os.makedirs(folder, exist_ok=True)
        done = subprocess.run(
            ["git", "--git-dir", vault, "--work-tree", folder, "checkout", "--force", oid, "--", "."],
            env={**GIT_ENV, "GIT_INDEX_FILE": f"{folder}.index"},
            check=False,
        )
        if done.returncode == 0:
            return folder
    return ""


def git(vault: str, *words: str) -> str:
    """Ask the vault; '' when it does not answer."""
    argv = ["git", "--git-dir", vault, *words]
    return subprocess.run(argv, env=GIT_ENV, capture_output=True, text=True, check=False).stdout


def alert(settings: dict, name: str, what: str) -> None:
    """Say it in the journal and by the configured alert command."""
    say(f"agent '{name}' is {what}")
    if argv := find(settings, "rollback.alert"):
        try:
            subprocess.run(
                argv,
                input=f"agentctl: agent '{name}' is {what}\n{story_of(name)}",
                text=True,
                timeout=60,
                check=False,
                env={**os.environ, "AGENTCTL_EVENT": what},
            )
        except (OSError, subprocess.SubprocessError) as error:
            say(f"the alert command failed: {error}")


def story_of(name: str) -> str:
    """Return what `agentctl why` tells, '' if it cannot: nothing here depends on it."""
    entry = f"{os.path.dirname(os.path.abspath(__file__))}/entry.py"
    try:
        return (
            "\n"
            + subprocess.run(
                [sys.executable, "-I", entry, "story", name], capture_output=True, text=True, timeout=20, check=True
            ).stdout
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return ""


def say(text: str) -> None:
    """Print for the journal."""
    print(f"agentctl rescue: {text}", flush=True)


# -- waiting ---------------------------------------------------------------------------------------
# Wait for a disk that is full or read-only: tell once, look now and then, change nothing.
# For the rescue: standard library only, none of our other modules.


TOLD_SECONDS = 3600  # one alert an hour for a disk that stays full
LOOK_SECONDS = 5.0
TRY_SECONDS = 600
MORE_BYTES = 1 << 20
ENOUGH_BYTES = 4 << 20  # what a launch looks for before it begins


def wait(name: str, folders: tuple, tell) -> bool:
    """Return when the file systems of `folders` take writes again; False if somebody started the agent himself."""
    homes = [folder for folder in folders if folder and os.path.isdir(folder)]
    mark = f"{find_runtime(name)}/no-storage"
    is_first = not was_told(mark)
    if is_first:
        tell(f"down: the disk is full or read-only ({', '.join(homes)}); it is started again when there is room")
        leave_mark(mark)
    before, began = [free(home) for home in homes], time.monotonic()
    while not has_come_back(before, [free(home) for home in homes], time.monotonic() - began, is_first=is_first):
        if is_up(name):
            return False
        time.sleep(LOOK_SECONDS)
    return True


def has_come_back(before: list[int], now: list[int], waited: float, *, is_first: bool = False) -> bool:
    """Tell whether it is worth trying: all is writable, and there is more room, or a long time has gone by.

    The first time also when there is enough: it may have come back before we looked.
    """
    was_sealed = any(b < 0 for b in before)
    is_more = any(n >= b + MORE_BYTES for n, b in zip(now, before, strict=True))
    is_enough = is_first and all(n >= ENOUGH_BYTES for n in now)
    return all(n >= 0 for n in now) and (was_sealed or is_more or is_enough or waited > TRY_SECONDS)


def free(folder: str) -> int:
    """Return the bytes that are free there, -1 where nothing can be written at all."""
    found = os.statvfs(folder)
    if found.f_flag & os.ST_RDONLY:
        return -1
    return (found.f_bfree if os.geteuid() == 0 else found.f_bavail) * found.f_frsize


def is_up(name: str) -> bool:
    """Tell whether somebody has started the agent, or the recovery process, meanwhile."""
    if os.environ.get("AGENTCTL_RUNTIME") == "direct":
        return False
    scope = ["--user"] if os.geteuid() != 0 else []
    units = (f"{name}.service", f"{name}-rollback.service")
    asked = subprocess.run(["systemctl", *scope, "is-active", *units], capture_output=True, text=True, check=False)
    return any(line in ("active", "activating") for line in asked.stdout.split())


def was_told(mark: str) -> bool:
    """Tell whether a human heard of it within the hour."""
    try:
        with open(mark, encoding="utf-8") as file:
            return 0 <= time.time() - float(file.read()) < TOLD_SECONDS
    except (OSError, ValueError):
        return False


def leave_mark(path: str) -> None:
    """Note the time in a file; a mark that cannot be left is only missed."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"{time.time()}\n")
    except OSError:
        return


def find_runtime(name: str) -> str:
    """Name the runtime folder as `paths` does."""
    root = os.environ.get("AGENTCTL_ROOT")
    if root:
        return f"{root}/run/{name}"
    base = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return f"{base}/agentctl/{name}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
