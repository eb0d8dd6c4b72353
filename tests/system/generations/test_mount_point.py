"""An agent whose code folder is a mount point: its trees are moved entry by entry, on a file system of their own."""

import stat

from boxed_world import World
from boxes import new_box

PLACE = "/srv/agent"
# In one step: a worker of the runner makes the folder anew as soon as it is missing.
EXCHANGE = """
import ctypes, os
AT_FDCWD, RENAME_EXCHANGE = -100, 2
libc = ctypes.CDLL(None, use_errno=True)
if libc.renameat2(AT_FDCWD, b".agentctl", AT_FDCWD, b"mine", RENAME_EXCHANGE):
    raise OSError(ctypes.get_errno(), "renameat2")
"""
PLANT = f"""
cd "$1"
mkdir /tmp/elsewhere /tmp/elsewhere/standby
echo precious >/tmp/elsewhere/standby/precious
ln -s /tmp/elsewhere mine
python3 -c '{EXCHANGE}'
"""


def test_a_code_folder_that_is_a_mount_point(box_root):
    with new_box(box_root, ext4={PLACE: "128M"}) as box:
        box.boot()
        box.run(["useradd", "-m", "bot"])
        world = World(box, owner="bot")
        world.slots = f"{PLACE}/.agentctl"
        world.make().start()
        assert PLACE in world.unit("RequiresMountsFor").split()
        slots = box.path(world.slots).stat()
        assert (slots.st_uid, stat.S_IMODE(slots.st_mode)) == (0, 0o711)
        assert world.git("status", "--porcelain") == ""
        inode = box.path(PLACE).stat().st_ino

        before = world.break_it("crash")
        world.check_rolled_back(before, "crash")
        assert box.path(PLACE).stat().st_ino == inode
        assert box.path(f"{PLACE}/lost+found").is_dir()

        world.ctl("rollback", "undo", "--yes", "--force", check=False)
        world.wait_until(lambda: len(world.incidents()) > 1, "the incident of the undo")
        world.wait_until(lambda: world.incidents()[0]["outcome"], "the end of it")
        assert world.incidents()[-1]["outcome"] == "recovered"
        world.wait_steady(commit=world.good)  # what crashed crashes again
        world.wait_all_over()
        check_planted(box, world)
        check_unmounted(box, world)


def check_planted(box, world):
    """The agent takes the slots away and plants a link: nothing is followed, and it is rolled back all the same."""
    world.shell(PLANT)
    count = len(world.incidents())
    before = world.break_it("crash", version="3")
    incident = world.wait_outcome(count=count + 1)
    world.wait_steady(commit=world.good)
    quarantine = before.quarantine(incident)
    ours = [path for path in before.tree if path.startswith("mine/quarantine/")]
    assert ours and {path: quarantine.get(path) for path in ours} == {path: before.tree[path] for path in ours}
    before.tree = {path: what for path, what in before.tree.items() if not path.startswith("mine")}
    before.check_nothing_is_lost(incident)
    assert box.path("/tmp/elsewhere/standby/precious").read_text() == "precious\n"
    assert not box.path(world.slots).is_symlink() and box.path(world.slots).stat().st_uid == 0


def check_unmounted(box, world):
    """Nothing is launched, moved or condemned while the file system is missing."""
    world.systemctl("stop", world.name)
    count = len(world.incidents())
    world.wait_until(lambda: box.run(["umount", PLACE], check=False).returncode == 0, "nobody to be at work there")
    assert world.systemctl("start", world.name, check=False).returncode != 0
    assert box.run(["ls", "-A", PLACE]).stdout == ""
    assert len(world.incidents()) == count
