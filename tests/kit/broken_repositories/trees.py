"""The work tree: in the way, unreadable, misleading, not representable, or too large to touch."""

import os
import socket
from pathlib import Path

from .subject import broken


def make_nested(subject, name, is_empty=False):
    """Make a repository inside the repository."""
    folder = subject.code / name
    folder.mkdir(parents=True)
    subject.own()
    subject.git("init", "-q", "-b", "main", folder=folder)
    if not is_empty:
        subject.write({"inner.txt": "inner\n"}, folder=folder)
        subject.own()
        subject.git("add", "-A", folder=folder)
        subject.git("commit", "-q", "-m", "inner", folder=folder)


@broken(each={"folder": "folder", "ignored-file": "ignored-file", "ignored-folder": "ignored-folder",
              "nested-repository": "nested", "ignored-repository": "ignored-nested", "fifo": "fifo",
              "link": "link"})  # fmt: skip
def in_the_way(subject, what):
    """The bad version has no notes.txt, and something else stands there."""
    subject.clean()
    subject.git("rm", "-q", "notes.txt")
    if what.startswith("ignored"):
        subject.write({".gitignore": "notes.txt\n*.cache\n"})
    subject.commit("without notes")
    path = subject.code / "notes.txt"
    if what == "ignored-file":
        path.write_text("ignored\n")
    elif what.endswith("folder"):
        subject.write({"notes.txt/inside": "in the way\n"})
    elif what.endswith("nested"):
        make_nested(subject, "notes.txt")
    elif what == "fifo":
        os.mkfifo(path)
    else:
        os.symlink("/nonexistent", path)


@broken()
def file_where_a_folder_was(subject):
    subject.clean()
    subject.git("rm", "-rq", "lib")
    subject.commit("without lib")
    subject.write({"lib": "a file\n"})


@broken(each={name: name for name in ("json", "sqlite3", "os", "site", "encodings", "_sqlite3", "sitecustomize")})
def shadows_the_standard_library(subject, name):
    subject.write({f"{name}.py": f"open({str(subject.code.parent / 'witness')!r}, 'w')\nraise SystemExit(9)\n",
                   f"{name}/__init__.py": "raise SystemExit(9)\n"})  # fmt: skip


@broken()
def names_that_are_no_text(subject):
    names = [b"\xff\xfe.py", b"new\nline", b"tab\t", b"-dash", b"quo\"te'", b"\xc3\x28", b"*", b":(exclude)x", b" ",
             b"back\\slash", b"~", b"@", b"%2f", b"\x01\x7f"]  # fmt: skip
    for name in names:
        Path(os.fsdecode(os.fsencode(subject.code) + b"/" + name)).write_bytes(b"named " + name)
        Path(os.fsdecode(os.fsencode(subject.code) + b"/" + name + b".cache")).write_bytes(b"ignored")


@broken()
def long_names(subject):
    subject.write({"n" * 255: "long\n", "c" * 249 + ".cache": "ignored\n", "/".join(["d" * 250] * 8): "deep\n"})


@broken()
def path_too_long_for_any_call(subject):
    here = os.open(subject.code, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=here)
        deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    fd = os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.write(fd, b"very deep\n")
    os.close(fd)
    os.close(here)


@broken(each={"untracked": "fifo", "ignored": "fifo.cache", "tracked": "notes.txt", "gitignore": "lib/.gitignore",
              "top-gitignore": ".gitignore", "gitattributes": ".gitattributes", "deep-attributes": "lib/.gitattributes",
              "gitmodules": ".gitmodules", "mailmap": ".mailmap"})  # fmt: skip
def fifo(subject, name):
    path = subject.code / name
    if path.exists():
        path.unlink()
    os.mkfifo(path)


@broken(each={"untracked": "door", "ignored": "door.cache", "tracked": "notes.txt"})
def a_socket(subject, name):
    here = os.getcwd()
    os.chdir(subject.code)
    try:
        if os.path.exists(name):
            os.unlink(name)
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(name)
    finally:
        os.chdir(here)


@broken(each={"untracked": "huge.bin", "ignored": "huge.cache"}, loses="clean")
def sparse_10_gb(subject, name):
    with open(subject.code / name, "wb") as file:
        file.truncate(10 << 30)
        os.pwrite(file.fileno(), b"the end", (10 << 30) - 7)


@broken(each={"nested": ("nested", False), "nested-without-commits": ("nested", True), "deep": ("lib/nested", False),
              "ignored": ("local/nested", False)})  # fmt: skip
def repository(subject, case):
    make_nested(subject, case[0], case[1])


@broken(each={"head-fifo": "HEAD", "config-fifo": "config"})
def nested_repository_with(subject, name):
    make_nested(subject, "nested")
    os.unlink(subject.code / "nested/.git" / name)
    os.mkfifo(subject.code / "nested/.git" / name)


@broken(each={"file-junk": b"junk", "file-nowhere": b"gitdir: /nonexistent\n", "file-empty": b""})
def nested_git(subject, content):
    subject.write({"nested/.git": content, "nested/file": "beside it\n"})


@broken(each={f"{kind}-{text}": (kind, mode) for kind in ("file", "untracked-file", "folder", "untracked-folder",
                                                           "ignored-folder")
              for text, mode in (("000", 0), ("0555", 0o555), ("0200", 0o200))})  # fmt: skip
def mode_of(subject, case):
    name = {"file": "behaviour.py", "untracked-file": "dirty.py", "folder": "lib", "untracked-folder": "lib/new",
            "ignored-folder": "local"}[case[0]]  # fmt: skip
    os.chmod(subject.code / name, case[1])


@broken()
def set_user_id(subject):
    os.chmod(subject.code / "agent.py", 0o6755)
    os.chmod(subject.code / "lib", 0o1777)


@broken()
def links(subject):
    os.symlink("loop", subject.code / "loop")
    os.symlink("/", subject.code / "root")
    os.symlink("..", subject.code / "lib/up")
    os.link(subject.code / "dirty.py", subject.code / "dirty2.py")


@broken()
def submodule(subject):
    inner = subject.code.parent / "inner"
    inner.mkdir()
    subject.own(inner)
    subject.git("init", "-q", "-b", "main", folder=inner)
    subject.write({"inner.txt": "inner\n"}, folder=inner)
    subject.own(inner)
    subject.git("add", "-A", folder=inner)
    subject.git("commit", "-q", "-m", "inner", folder=inner)
    subject.git("submodule", "--quiet", "add", str(inner), "sub")
    subject.write({"sub/own.txt": "work in the submodule\n"})


@broken(loses="clean", each={"outside": "../beside", "inside": "beside", "ignored": "local/beside"})
def linked_worktree(subject, where):
    subject.git("worktree", "add", "-q", where, "idea")
    subject.write({f"{where}/own.txt": "work in the worktree\n"})
    subject.own(subject.code / where)


@broken()
def case_only_differs(subject):
    subject.write({"Notes.TXT": "other\n", "LIB/x": "other\n"})


@broken()
def many_files(subject):
    subject.write({f"many/{n % 50}/{n}.txt": f"{n}\n" for n in range(3000)})


@broken()
def everything_is_ignored(subject):
    subject.write({".gitignore": "*\n", "unseen.py": "ignored by now\n"})
