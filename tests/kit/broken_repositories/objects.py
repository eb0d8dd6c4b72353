"""Objects: empty, flipped, missing, forged, or no files at all; also those of the good commit; loose and packed."""

import os
import shutil
import zlib

from .subject import broken


def damage(subject, revision, how):
    """Damage the loose object of a revision."""
    path = subject.object_path(revision)
    data = path.read_bytes()
    path.unlink()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "flipped":
        path.write_bytes(data[:-3] + bytes([data[-3] ^ 255]) + data[-2:])
    elif how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "forged":
        content = zlib.decompress(data)
        kind = content.split(b" ", 1)[0]
        longer = content.split(b"\0", 1)[1] + b"forged\n"
        other = {b"blob": b"MODE = 'forged'\n", b"tree": b""}.get(kind, longer)
        path.write_bytes(zlib.compress(b"%s %d\0%s" % (kind, len(other), other)))
    elif how == "fifo":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how == "unreadable":
        path.write_bytes(data)
        path.chmod(0)


HOWS = {how: how for how in ("empty", "flipped", "truncated", "missing", "forged", "fifo", "folder", "unreadable")}


@broken(each=HOWS)
def good_commit(subject, how):
    damage(subject, subject.good, how)


@broken(each=HOWS)
def good_tree(subject, how):
    damage(subject, f"{subject.good}^{{tree}}", how)


@broken(each=HOWS)
def good_blob(subject, how):
    damage(subject, f"{subject.good}:behaviour.py", how)


@broken(each=HOWS)
def first_commit(subject, how):
    damage(subject, f"{subject.good}~1", how)


@broken(each=HOWS, loses="head")
def bad_commit(subject, how):
    damage(subject, subject.bad, how)


@broken(each=HOWS, loses="head")
def bad_tree(subject, how):
    damage(subject, f"{subject.bad}^{{tree}}", how)


@broken(each=HOWS, loses="head")
def bad_blob(subject, how):
    damage(subject, f"{subject.bad}:behaviour.py", how)


@broken(each=HOWS, loses="fresh tags")
def branch(subject, how):
    damage(subject, "fresh", how)


@broken(each=HOWS)
def branch_the_vault_knows(subject, how):
    damage(subject, "idea", how)


@broken(each=HOWS, loses="stash")
def stash(subject, how):
    damage(subject, "stash@{1}", how)


@broken(each=HOWS)
def annotated_tag(subject, how):
    damage(subject, "refs/tags/v1", how)


def the_pack(subject):
    subject.git("gc", "-q")
    (pack,) = (subject.dot_git / "objects/pack").glob("*.pack")
    for path in pack.parent.iterdir():
        path.chmod(0o644)
    return pack


ALL = "idea fresh stash tags head"


@broken()
def packed(subject):
    the_pack(subject)


@broken(loses=ALL, each={"empty": lambda d: b"", "flipped": lambda d: d[:99] + bytes([d[99] ^ 255]) + d[100:],
                         "truncated": lambda d: d[: len(d) // 2]})  # fmt: skip
def pack(subject, change):
    path = the_pack(subject)
    path.write_bytes(change(path.read_bytes()))


@broken(loses=ALL, each={"empty": b"", "junk": b"junk" * 400})
def pack_index(subject, content):
    the_pack(subject).with_suffix(".idx").write_bytes(content)


@broken(loses=ALL, each={"pack": ".pack", "index": ".idx"})
def pack_without(subject, suffix):
    the_pack(subject).with_suffix(suffix).unlink()


@broken(loses=ALL, each={"pack": ".pack", "index": ".idx"})
def pack_is_a_fifo(subject, suffix):
    path = the_pack(subject).with_suffix(suffix)
    path.unlink()
    os.mkfifo(path)


@broken(each={"graph": "info/commit-graph", "midx": "pack/multi-pack-index"})
def junk_in(subject, name):
    subject.write({f".git/objects/{name}": b"junk" * 300})


@broken(each={"nowhere": "/nonexistent/objects\n", "itself": ".\n", "junk": "\0\0\0\n"})
def alternates(subject, content):
    subject.write({".git/objects/info/alternates": content})


@broken()
def alternates_are_a_fifo(subject):
    os.mkfifo(subject.dot_git / "objects/info/alternates")


@broken(loses=ALL)
def all_gone(subject):
    shutil.rmtree(subject.dot_git / "objects")


@broken(loses=ALL)
def all_empty(subject):
    """What a power cut leaves of a day's work."""
    for path in (subject.dot_git / "objects").glob("??/*"):
        path.chmod(0o644)
        path.write_bytes(b"")


@broken(loses=ALL)
def a_file(subject):
    shutil.rmtree(subject.dot_git / "objects")
    subject.write({".git/objects": "a file"})
