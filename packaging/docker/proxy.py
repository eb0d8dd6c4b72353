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
import socket
import socketserver
import sys
import threading
from urllib.parse import urlsplit

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # run as a file, with -I

from engine_rules import Rules, is_exec_start

CHUNKED, FOR_EVER = -1, -2
HEAD_LIMIT, BODY_LIMIT, BLOCK = 64 << 10, 1 << 20, 64 << 10
LINGER_SECONDS, LINGER_BLOCKS = 5.0, 16384
AGREED = b"HTTP/1.1 101 "


# -- carrying it ------------------------------------------------------------------------------------------------


class Engine:
    """The real socket."""

    def __init__(self, path: str) -> None:
        self.path = path

    def connect(self) -> socket.socket:
        door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        door.connect(self.path)
        return door

    def labels(self, kind: str, name: str) -> dict:
        """Return the labels of a container or a network, or of the container of an exec; none where it is not there."""
        if kind == "exec":
            return self.labels("containers", self._ask(f"/exec/{name}/json").get("ContainerID") or "-")
        document = self._ask(f"/networks/{name}" if kind == "networks" else f"/containers/{name}/json")
        return (document if kind == "networks" else document.get("Config") or {}).get("Labels") or {}

    def _ask(self, path: str) -> dict:
        call = http.client.HTTPConnection("engine", timeout=30)
        call.sock = self.connect()
        try:
            call.request("GET", path)
            answer = call.getresponse()
            text = answer.read()
            return json.loads(text) if answer.status == 200 else {}
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
        if len(fields) < len(head) - 1 or any(line.startswith((b" ", b"\t")) for line in head[1:]):
            return self._refuse("a field of the head stands there once, and on one line")
        size, is_chunked = fields.get("content-length", "0").strip(), "chunked" in fields.get("transfer-encoding", "")
        is_seen = not urlsplit(target).path.endswith("/build")
        is_talk = is_exec_start(method, target) and "upgrade" in fields  # after this one both sides just talk
        is_upgrade, is_form = "upgrade" in fields and not is_talk, "form" in fields.get("content-type", "")
        if is_upgrade or is_form or not size.isdigit() or (is_seen and (is_chunked or int(size) > BODY_LIMIT)):
            return self._refuse("upgrades, forms, and long bodies of anything but a build, are not carried")
        body = reader.read(int(size)) if is_seen else b""
        if why := self.server.rules.verdict(method, target, body):
            return self._refuse(why)
        rest = FOR_EVER if is_talk else None if is_seen else CHUNKED if is_chunked else int(size)
        return self._carry(reader, head, body, rest)

    def _read_head(self, reader) -> list[bytes]:
        lines, size = [], 0
        while (line := reader.readline(HEAD_LIMIT)).rstrip(b"\r\n"):
            size += len(line)
            if size > HEAD_LIMIT:
                return []
            lines.append(line.rstrip(b"\r\n"))
        return lines

    def _carry(self, reader, head: list[bytes], body: bytes, rest: int | None) -> None:
        if rest != FOR_EVER:
            head = [line for line in head if not line.lower().startswith((b"connection:", b"expect:"))]
            head.append(b"Connection: close")
        with self.server.engine.connect() as engine:
            engine.sendall(b"\r\n".join([*head, b"", b""]) + body)
            if rest == FOR_EVER and not self._is_agreed(engine):
                engine.shutdown(socket.SHUT_WR)  # it would read what follows as requests, and nobody had looked at them
            elif rest is not None:
                threading.Thread(target=_send_rest, args=(reader, engine, rest), daemon=True).start()
            while data := engine.recv(BLOCK):
                self.request.sendall(data)

    def _is_agreed(self, engine: socket.socket) -> bool:
        """Pass on how the engine's answer begins; tell whether it takes plain talk from here on."""
        begun = b""
        while len(begun) < len(AGREED) and (data := engine.recv(BLOCK)):
            begun += data
        self.request.sendall(begun)
        return begun.startswith(AGREED)

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
    """Carry a body of that many bytes, or a chunked one (-1), or all there ever is."""
    try:
        if size == FOR_EVER:
            while data := reader.read1(BLOCK):
                engine.sendall(data)
            return engine.shutdown(socket.SHUT_WR)
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
                return None
    except (OSError, ValueError):
        return None  # either side went away; the other one sees it


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
