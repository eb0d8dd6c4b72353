#!/usr/bin/env python3
"""Let the watchdog's container have of Docker's API what it needs for one agent, and nothing else.

    proxy.py --project NAME --folder /srv/agent --folder /var/lib/agentctl/NAME ... [--listen SOCKET] [--engine SOCKET]

Who may make any container is root on the host. So a container is let through only if it mounts nothing but the
folders named, gets no right beyond a plain one's, and belongs to the agent's Compose project; no volume is ever
removed, nothing is pulled, and nobody gets into a container. Standard library only; one request a connection.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import socket
import socketserver
import sys
import threading
from urllib.parse import parse_qs, unquote, urlsplit

HEAD_LIMIT, BODY_LIMIT, BLOCK = 64 << 10, 1 << 20, 64 << 10
LINGER_SECONDS, LINGER_BLOCKS = 5.0, 16384
PROJECT = "com.docker.compose.project"
ID = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
IMAGE = r"[A-Za-z0-9][A-Za-z0-9_.:/@-]*"

# What is let through without looking further.
READS = re.compile(rf"/(_ping|version|info|events|images/json|images/{IMAGE}/json|containers/json|containers/{ID}/json"
                   rf"|networks|networks/{ID}|volumes|volumes/{ID})")  # fmt: skip
CONTAINER = re.compile(rf"/containers/({ID})(?:/(start|stop|kill|wait|rename|logs))?")
# What a container may be given: freely; with a look at what it says; and, of all the rest, nothing. Names are compared
# in small letters, because the engine does not mind how they are written.
FREE = {
    *("capdrop", "readonlyrootfs", "init", "tmpfs", "shmsize", "ulimits", "logconfig", "restartpolicy", "portbindings"),
    *("dns", "dnsoptions", "dnssearch", "extrahosts", "memory", "memoryreservation", "memoryswap", "memoryswappiness"),
    *("nanocpus", "cpushares", "cpuperiod", "cpuquota", "cpusetcpus", "cpusetmems", "pidslimit", "blkioweight"),
    *("oomscoreadj", "isolation", "consolesize", "containeridfile"),
}  # fmt: skip
LOOKED_AT = {"networkmode", "securityopt", "mounts", "binds"}
PLAIN = {"ipcmode": ("private", "none"), "cgroupnsmode": ("private",), "runtime": ("runc",)}
NOTHING = (None, False, "", 0)
UNMASKING = ("maskedpaths", "readonlypaths")  # an empty list of these is a right, not nothing


class Rules:
    """What is let through for one agent. `verdict` is pure but for `labels`, which asks the engine."""

    def __init__(self, project: str, image: str, folders: list[str], labels) -> None:
        self.project, self.image, self.labels = project, image, labels
        self.folders = [os.path.normpath(folder) for folder in folders]

    def verdict(self, method: str, target: str, body: bytes = b"") -> str:
        """Return why a request is refused, or nothing."""
        parts = urlsplit(target)
        path = re.sub(r"^/v\d+\.\d+(?=/)", "", unquote(parts.path))
        given = parse_qs(parts.query, keep_blank_values=True)
        query = {name: values[0] for name, values in given.items()}
        if "//" in path or ".." in path.split("/") or any(len(values) > 1 for values in given.values()):
            return f"{path} is no plain request"
        if method in ("GET", "HEAD") and READS.fullmatch(path):
            return ""
        found = CONTAINER.fullmatch(path)
        if found and path != "/containers/create":
            return self._of_container(method, *found.groups(), query)
        if (method, path) == ("POST", "/build"):
            return _of_build(query) or self._of_name(query.get("t", "").partition(":")[0])
        if method == "POST" and re.fullmatch(rf"/images/{IMAGE}/tag", path):
            return self._of_name(query.get("repo", ""))
        try:
            wanted = decoded(body)
        except ValueError as error:
            return f"the body is unclear: {error}"
        if method == "POST" and (new := re.fullmatch("/(containers|networks|volumes)/create", path)):
            return self._of_new(new[1], wanted)
        if method == "POST" and re.fullmatch(rf"/networks/{ID}/(connect|disconnect)", path):
            return self._of_container("POST", str(wanted.get("container", "")), "connect", {})
        return f"{method} {path} is not among what the watchdog needs"

    def _of_container(self, method: str, name: str, verb: str | None, query: dict) -> str:
        if verb is None and method != "DELETE":
            return f"{method} of a container is not among what the watchdog needs"
        if verb is not None and method != ("GET" if verb == "logs" else "POST"):
            return f"{verb} is asked otherwise"
        if verb is None and query.get("v", "0").lower() not in ("", "0", "false"):
            return "a container is removed without its volumes here"
        project = self.labels(name).get(PROJECT)
        return "" if self._is_ours(project) else f"container {name} is not of project {self.project}"

    def _of_name(self, name: str) -> str:
        return "" if name == self.image else f"an image gets a name of {self.image} here, and not {name or 'none'}"

    def _of_new(self, kind: str, wanted: dict) -> str:
        if not self._is_ours((wanted.get("labels") or {}).get(PROJECT)):
            return f"a new one of the {kind} has to be of project {self.project}"
        if kind == "volumes":
            return "a volume with options of its driver may be any folder" if wanted.get("driveropts") else ""
        if kind == "networks":
            is_plain = wanted.get("driver") in (None, "", "bridge") and not wanted.get("options")
            return "" if is_plain else "a network is a plain bridge here"
        return self._of_host_config(wanted.get("hostconfig") or {})

    def _of_host_config(self, config: dict) -> str:
        for name, value in config.items():
            is_nothing = value is None if name in UNMASKING else value in NOTHING or value in ([], {})
            if name not in FREE | LOOKED_AT and not is_nothing and value not in PLAIN.get(name, ()):
                return f"HostConfig.{name} has to be plain, and is {json.dumps(value)[:80]}"
        if re.match(r"host$|container:|ns:", config.get("networkmode") or ""):
            return f"the network {config['networkmode']} is not the project's own"
        for option in config.get("securityopt") or []:
            if not re.fullmatch(r"no-new-privileges([:=]true)?", option):
                return f"the security option {option} is not known here"
        sources = [bound.split(":")[0] for bound in config.get("binds") or []]
        for mount in config.get("mounts") or []:
            options = (mount.get("volumeoptions") or {}).get("driverconfig") or {}
            if mount.get("type") not in ("bind", "volume", "tmpfs") or options.get("options"):
                return "a mount is a folder of the agent, a plain volume or a tmpfs here"
            sources += [mount.get("source") or "/"] if mount["type"] == "bind" else []
        foreign = [source for source in sources if source.startswith("/") and not self._is_inside(source)]
        return f"{foreign[0]} is not a folder of the agent" if foreign else ""

    def _is_inside(self, path: str) -> bool:
        """Links are followed first: the agent may make one in a folder of its own."""
        real = os.path.realpath(path)
        return any(real == folder or real.startswith(folder + "/") for folder in self.folders)

    def _is_ours(self, project: str | None) -> bool:
        return project is not None and (project == self.project or project.startswith(f"{self.project}-try-"))


def _of_build(query: dict) -> str:
    if query.get("version", "1") != "1":
        return "BuildKit needs a session with the engine; set DOCKER_BUILDKIT=0"
    if query.get("remote"):
        return "what is built is sent, not fetched"
    if query.get("networkmode", "") not in ("", "default", "none"):
        return f"a build has no network {query['networkmode']}"
    for name in ("pull", "extrahosts", "securityopt", "cgroupparent"):
        if query.get(name, "") not in ("", "0", "false", "null", "[]"):
            return f"a build without {name} here"
    return ""


def decoded(body: bytes) -> dict:
    """Read a body as the engine does: names in whatever letters, labels as they are written. Raise ValueError."""
    def named(pairs: list) -> dict:
        small = [name if "." in name or "/" in name else name.lower() for name, _ in pairs]
        if len(set(small)) < len(small) or not all(name.isascii() for name in small):
            raise ValueError("a name is there twice, or written in a strange way")
        return {name: value for name, (_, value) in zip(small, pairs, strict=True)}

    found = json.loads(body or b"{}", object_pairs_hook=named)
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    return found


# -- carrying it ------------------------------------------------------------------------------------------------


class Engine:
    """The real socket."""

    def __init__(self, path: str) -> None:
        self.path = path

    def connect(self) -> socket.socket:
        door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        door.connect(self.path)
        return door

    def labels(self, name: str) -> dict:
        """Return a container's labels; none where there is no such container."""
        call = http.client.HTTPConnection("engine", timeout=30)
        call.sock = self.connect()
        try:
            call.request("GET", f"/containers/{name}/json")
            answer = call.getresponse()
            document = json.loads(answer.read())
            return (document.get("Config") or {}).get("Labels") or {} if answer.status == 200 else {}
        finally:
            call.close()


class Door(socketserver.BaseRequestHandler):
    """One request: read its head, look at its body where that tells something, carry both ways."""

    def handle(self) -> None:
        reader = self.request.makefile("rb")
        head = self._read_head(reader)
        if not head:
            return None
        try:
            method, target, _ = head[0].decode("latin-1").split()
            fields = dict(line.decode("latin-1").lower().split(":", 1) for line in head[1:])
        except ValueError:
            return self._refuse("this is no HTTP request")
        size, is_chunked = fields.get("content-length", "0").strip(), "chunked" in fields.get("transfer-encoding", "")
        is_seen = not urlsplit(target).path.endswith("/build")
        is_strange = "upgrade" in fields or "form" in fields.get("content-type", "") or not size.isdigit()
        if is_strange or is_seen and (is_chunked or int(size) > BODY_LIMIT):
            return self._refuse("upgrades, forms, and long bodies of anything but a build, are not carried")
        body = reader.read(int(size)) if is_seen else b""
        if why := self.server.rules.verdict(method, target, body):
            return self._refuse(why)
        return self._carry(reader, head, body, None if is_seen else -1 if is_chunked else int(size))

    def _read_head(self, reader) -> list[bytes]:
        lines, size = [], 0
        while (line := reader.readline(HEAD_LIMIT)).rstrip(b"\r\n"):
            size += len(line)
            if size > HEAD_LIMIT:
                return []
            lines.append(line.rstrip(b"\r\n"))
        return lines

    def _carry(self, reader, head: list[bytes], body: bytes, rest: int | None) -> None:
        kept = [line for line in head[1:] if not line.lower().startswith((b"connection:", b"expect:"))]
        with self.server.engine.connect() as engine:
            engine.sendall(b"\r\n".join([head[0], *kept, b"Connection: close", b"", b""]) + body)
            if rest is not None:
                threading.Thread(target=_send_rest, args=(reader, engine, rest), daemon=True).start()
            while data := engine.recv(BLOCK):
                self.request.sendall(data)

    def _refuse(self, why: str) -> None:
        print(f"refused: {why}", file=sys.stderr, flush=True)
        text = json.dumps({"message": f"agentctl's proxy refuses: {why}"}).encode()
        self.request.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nConnection: close\r\n"
                             b"Content-Length: %d\r\n\r\n" % len(text) + text)  # fmt: skip
        self.request.shutdown(socket.SHUT_WR)
        self.request.settimeout(LINGER_SECONDS)
        for _ in range(LINGER_BLOCKS):  # who is still sending reads no answer before that is done
            if not self.request.recv(BLOCK):
                break


def _send_rest(reader, engine: socket.socket, size: int) -> None:
    """Carry a body of that many bytes, or a chunked one (-1)."""
    try:
        while size:
            if size < 0:
                line = reader.readline(BLOCK)
                engine.sendall(line)
                count = int(line.split(b";")[0], 16) + 2  # each chunk ends with CR LF
                is_last = count == 2
            else:
                count, is_last = size, True
            while count and (data := reader.read1(min(count, BLOCK))):
                engine.sendall(data)
                count -= len(data)
            if is_last or count:
                return
    except (OSError, ValueError):
        return  # either side went away; the other one sees it


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address) -> None:
        print(f"a request broke off: {sys.exc_info()[1]}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="proxy.py", description=__doc__.splitlines()[0])
    parser.add_argument("--project", required=True, help="the agent's Compose project")
    parser.add_argument("--image", help="the name of its images (default: agentctl-PROJECT)")
    parser.add_argument("--folder", action="append", default=[], help="a folder of the host that it may mount")
    parser.add_argument("--listen", default="/run/agentctl-engine/docker.sock")
    parser.add_argument("--engine", default="/var/run/docker.sock")
    options = parser.parse_args()
    if os.path.exists(options.listen):
        os.unlink(options.listen)
    os.umask(0o177)
    with Server(options.listen, Door) as server:
        server.engine = Engine(options.engine)
        server.rules = Rules(options.project, options.image or f"agentctl-{options.project}", options.folder,
                             server.engine.labels)  # fmt: skip
        server.serve_forever()


if __name__ == "__main__":
    main()
