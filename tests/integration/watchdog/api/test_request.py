"""The watchdog's doors: who may, from where, how much, how slowly. One server, many ways to abuse it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import stat
import sys
import threading
import time

import pytest

from agentctl.watchdog.api import auth
from integration.watchdogs import Watchdog, ask, free_port
from integration.world import SOURCE, World
from kit import deadline, effort

SECRET = "hunter2-hunter2-hunter2"
BASE = b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SHARE = effort.pick(1, 10)


@pytest.fixture(scope="module")
def served():
    """One world and its watchdog on a socket and a port; no agent runs, which the doors do not care about."""
    patch = pytest.MonkeyPatch()
    port = free_port()
    world = World(patch, {"watchdog": {"listen": f"127.0.0.1:{port}"}, "offline": {"after": "1h"},
                          "agent": {"environment": {"SERVICE_API_KEY": SECRET}}}).adopt()  # fmt: skip
    watchdog = Watchdog(world, port).start()
    yield watchdog
    watchdog.kill()
    world.end()
    patch.undo()


def ctl(world, *words):
    code = "import sys; from agentctl.cli.main import main; sys.exit(main())"
    return deadline.run([sys.executable, "-c", code, "--name", world.name, *words], capture_output=True, text=True,
                        env={**os.environ, "PYTHONPATH": SOURCE})  # fmt: skip


@pytest.fixture(scope="module")
def tokens(served):
    """A token of each scope, by name."""
    made = {}
    for scope in ("beat", "append", "read", "admin"):
        done = ctl(served.world, "token", "create", "--scope", scope)
        assert done.returncode == 0, done.stderr
        made[scope] = done.stdout.strip()
    return made


def bearer(token: str) -> dict:
    return {"Authorization": f"Bearer {token}"}


def alive(served) -> bool:
    """Tell whether a heartbeat gets through now."""
    answer = served.ask("POST", "/health", {"agent": "far", "launch_id": "L"})
    return answer.status == 200


def raw(port: int, data: bytes, *, wait_seconds: float = 60.0, is_last: bool = True) -> bytes:
    """Send bytes, return what comes back until the server closes or is silent."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait_seconds) as connection:
        try:
            connection.sendall(data)
            if is_last:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        found = b""
        try:
            while chunk := connection.recv(65536):
                found += chunk
        except OSError:
            pass
        return found


# --- who


def test_the_socket_is_for_the_agent_and_root_and_the_store_for_us_alone(served):
    for path, mode in ((served.paths.watchdog_socket_path, 0o600), (served.paths.handover_socket_path, 0o600),
                       (served.paths.store_path, 0o600)):  # fmt: skip
        assert stat.S_IMODE(os.stat(path).st_mode) == mode


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [("beat", {"/health"}), ("append", {"/history"}), ("read", {"/agents"}),
     ("admin", {"/health", "/history", "/agents", "/pause"})],
)  # fmt: skip
def test_scopes(served, tokens, scope, allowed):
    calls = {"/health": ("POST", {"agent": "far", "launch_id": "L"}), "/agents": ("GET", None),
             "/history": ("POST", {"role": "user", "content": "x"}), "/pause": ("POST", {"for": "1s"})}  # fmt: skip
    for route, (method, body) in calls.items():
        answer = ask(served.port, method, route, body, **bearer(tokens[scope]))
        assert answer.status == (200 if route in allowed else 403), (route, answer.body)


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer ", "Basic abc", "Bearer " + "x" * 4000, "\x7f"])
def test_without_a_valid_token_nothing(served, header):
    more = {"Authorization": header} if header is not None else {}
    answer = ask(served.port, "GET", "/agents", **more)
    assert answer.status in (400, 401)
    assert answer.json.keys() == {"code", "message", "hint"}


def test_a_token_is_shown_once_stored_hashed_rotated_and_revoked_at_once(served, tmp_path):
    world, path = served.world, tmp_path / "token"
    assert ctl(world, "token", "create", "--label", "turn", "--out", str(path)).returncode == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = path.read_text().strip()
    second = json.loads(ctl(world, "token", "create", "--label", "turn", "--json").stdout)
    third = ctl(world, "token", "create", "--label", "turn")
    assert third.returncode == 1 and "Hint:" in third.stderr
    for token in (first, second["token"]):
        assert ask(served.port, "GET", "/agents", **bearer(token)).status == 200
    listed = json.loads(ctl(world, "token", "list", "--json").stdout)
    old = next(t["id"] for t in listed if t["label"] == "turn" and t["id"] != second["id"])
    assert first not in json.dumps(listed)
    assert ctl(world, "token", "revoke", old).returncode == 0
    served.until(lambda: ask(served.port, "GET", "/agents", **bearer(first)).status == 401, "it to be refused")
    assert ask(served.port, "GET", "/agents", **bearer(second["token"])).status == 200
    for name in os.listdir(os.path.dirname(served.paths.store_path)):
        if name.startswith("watchdog.db"):
            with open(f"{os.path.dirname(served.paths.store_path)}/{name}", "rb") as file:
                assert first.encode() not in file.read()
    assert first not in served.log


def test_a_token_for_one_agent_speaks_of_no_other(served):
    made = ctl(served.world, "token", "create", "--scope", "beat,append,read", "--agent", "far").stdout.strip()
    beat = {"launch_id": "L", "agent": "far"}
    assert ask(served.port, "POST", "/health", beat, **bearer(made)).status == 200
    assert ask(served.port, "POST", "/health", {"launch_id": "M", "agent": "near"}, **bearer(made)).status == 403
    assert ask(served.port, "GET", f"/history?agent={served.world.name}", **bearer(made)).status == 403
    assert [a["name"] for a in ask(served.port, "GET", "/agents", **bearer(made)).json["agents"]] == ["far"]


@pytest.mark.parametrize(
    ("method", "route"),
    [("GET", "/"), ("GET", "/pane"), ("GET", "/incidents"), ("GET", "/generations"), ("GET", "/plan"),
     ("POST", "/restart"), ("POST", "/rollback"), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/act")],
)  # fmt: skip
def test_a_token_for_another_agent_neither_sees_nor_moves_this_one(served, method, route):
    made = ctl(served.world, "token", "create", "--scope", "admin", "--agent", "far", "--label", f"{method}{route}")
    body = "verb=resume" if route == "/act" else {"dry_run": True} if method == "POST" else None
    kind = {"Content-Type": "application/x-www-form-urlencoded"} if route == "/act" else {}
    answer = ask(served.port, method, route, body, **bearer(made.stdout.strip()), **kind)
    assert (answer.status, answer.json["code"]) == (403, "forbidden")


def test_metrics_for_one_agent_tell_of_no_other(served):
    made = ctl(served.world, "token", "create", "--scope", "read", "--agent", "far", "--label", "numbers")
    told = ask(served.port, "GET", "/metrics", **bearer(made.stdout.strip()))
    assert told.status == 200 and f'agent="{served.world.name}"'.encode() not in told.body


def test_a_session_ends_with_its_token(served):
    made = json.loads(ctl(served.world, "token", "create", "--scope", "admin", "--label", "page", "--json").stdout)
    entered = ask(served.port, "POST", "/session", f"token={made['token']}",
                  Content_Type="application/x-www-form-urlencoded")  # fmt: skip
    session = {"Cookie": entered.headers["Set-Cookie"].split(";")[0]}
    assert ask(served.port, "GET", "/agents", **session).status == 200
    assert ctl(served.world, "token", "revoke", made["id"]).returncode == 0
    served.until(lambda: ask(served.port, "GET", "/agents", **session).status == 401, "the session to be over")


@pytest.mark.parametrize("how", ["folder", "fifo", "link", "loop"])
def test_what_the_agent_puts_in_the_place_of_its_token_locks_nobody_out(served, tmp_path, how):
    secret = tmp_path / "secret"
    secret.write_text("what only root can read")
    made = ctl(served.world, "token", "create", "--label", how).stdout.strip()
    path = served.paths.token_path
    os.makedirs(os.path.dirname(path), exist_ok=True)
    {"folder": os.mkdir, "fifo": os.mkfifo, "link": lambda p: os.symlink(secret, p),
     "loop": lambda p: os.symlink(p, p)}[how](path)  # fmt: skip
    try:
        assert ask(served.port, "GET", "/agents", **bearer(made)).status == 200
        assert ask(served.port, "GET", "/agents", **bearer(secret.read_text())).status == 401
    finally:
        os.rmdir(path) if how == "folder" else os.unlink(path)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "localhost.evil.example:80"}, 421),
        ({"Host": "localhost:8642"}, 200),
        ({"Host": "127.0.0.1"}, 200),
        ({"Host": "localhost", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost", "Origin": "null"}, 403),
        ({"Host": "localhost", "Origin": "http://localhost"}, 200),
        ({"Host": "localhost", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "localhost", "Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_other_sites_pages_are_refused(served, tokens, headers, status):
    assert ask(served.port, "GET", "/agents", **bearer(tokens["read"]), **headers).status == status


def test_a_token_that_asks_too_often_is_slowed_and_others_are_not(served):
    made = ctl(served.world, "token", "create", "--scope", "read", "--label", "busy").stdout.strip()
    other = ctl(served.world, "token", "create", "--scope", "read", "--label", "calm").stdout.strip()
    head = f"GET /agents HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {made}\r\n".encode()
    many = (head + b"\r\n") * 1500 + head + b"Connection: close\r\n\r\n"
    began = time.monotonic()
    statuses = re.findall(rb"HTTP/1.1 (\d+)", raw(served.port, many, wait_seconds=60, is_last=False))
    most = auth.RATE_BURST + 1 + auth.RATE_PER_SECOND * (time.monotonic() - began)  # more where it takes longer
    assert 400 <= statuses.count(b"200") <= most
    assert statuses.count(b"200") + statuses.count(b"429") == len(statuses) == 1501
    assert ask(served.port, "GET", "/agents", **bearer(other)).status == 200


# --- what


def test_what_was_given_to_us_as_secret_does_not_leave(served):
    said = {"id": "secret1", "role": "user", "content": f"the key is {SECRET} and sk-abcdefghijklmnop0123"}
    assert served.ask("POST", "/history", said).status == 200
    shown = served.ask("GET", "/history?last=1000").body
    assert SECRET.encode() not in shown and b"[masked]" in shown
    for route in ("/history/export", "/", "/metrics", "/events"):
        answer = served.ask("GET", route)
        assert answer.status == 200, route
        assert SECRET.encode() not in answer.body and b"sk-abcdefghijklmnop0123" not in answer.body
    assert SECRET.encode() in served.ask("GET", "/history/export?raw=1").body
    assert SECRET not in served.log


def test_import_and_export_are_the_same_messages(served):
    lines = [json.dumps({"id": f"i{n}", "role": "user", "content": "é" * n}) for n in range(1200)]
    answer = served.ask("POST", "/history/import?agent=copy", "\n".join(lines).encode())
    assert (answer.status, answer.json) == (200, {"acknowledged": 1200})
    again = served.ask("POST", "/history/import?agent=copy", "\n".join(lines).encode() + b"\n\n")
    assert again.status == 200
    found = [json.loads(line) for line in served.ask("GET", "/history/export?agent=copy&raw=1").body.splitlines()]
    assert [m["id"] for m in found] == [f"i{n}" for n in range(1200)]
    broken = served.ask("POST", "/history/import?agent=copy", b'{"id":"x","role":"u"}\nnot json\n')
    assert broken.status == 400 and "line 2" in broken.json["message"]


@pytest.mark.parametrize(
    ("method", "route", "body", "status"),
    [
        ("POST", "/health", b"{" * 3000, 400),
        ("POST", "/health", b"[]", 400),
        ("POST", "/health", b"null", 400),
        ("POST", "/health", b'{"launch_id": 5}', 400),
        ("POST", "/health", b'{"launch_id": "\\ud800", "agent": "far"}', 400),
        ("POST", "/health", b'{"launch_id": "L", "agent": "../../etc"}', 400),
        ("POST", "/health", b'{"launch_id": "L", "agent": "far", "progress": -1}', 400),
        ("POST", "/health", b'{"launch_id": "L", "agent": "far", "progress": true}', 400),
        ("POST", "/health", b'{"launch_id": "L", "agent": "far", "phase": "dancing"}', 400),
        ("POST", "/health", b"x" * 5000, 413),
        ("POST", "/history", b'{"messages": []}', 400),
        ("POST", "/history", b'{"messages": [1]}', 400),
        ("POST", "/history", b'{"id": "a\\ud800", "role": "user", "content": "x"}', 400),
        ("POST", "/history", b'{"id": {}, "role": "user"}', 400),
        ("POST", "/history", b'{"x": 1}', 400),
        ("POST", "/history", b'{"content": "' + b"x" * (1 << 20) + b'"}', 413),
        ("POST", "/history", b'{"role": "user", "content": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400),
        ("GET", "/history?last=0", None, 400),
        ("GET", "/history?last=1001", None, 400),
        ("GET", "/history?last=\xb2", None, 400),
        ("GET", "/history?after=a&q=b", None, 400),
        ("GET", "/agents/nobody", None, 404),
        ("GET", "/agents/..%2F..", None, 404),
        ("GET", "/agents/a/b", None, 404),
        ("PUT", "/health", b"{}", 405),
        ("GET", "/../../etc/passwd", None, 404),
        ("GET", "/page.py", None, 404),
        ("POST", "/pause", b'{"for": "100y"}', 400),
        ("POST", "/pause", b'{"for": "366d"}', 400),
        ("POST", "/restart", b'{"history": "x"}', 400),
        ("POST", "/rollback", b'{"generation": "x"}', 400),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_in_one_form(served, method, route, body, status):
    data = f"{method} {route} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body or b'')}\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(served.paths.watchdog_socket_path)
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(data.encode("latin-1") + (body or b""))
        found = b""
        with contextlib.suppress(ConnectionResetError):  # what is too large is not read to its end
            while chunk := connection.recv(65536):
                found += chunk
    if status == 413 and not found:
        assert alive(served)
        return
    head, _, text = found.partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == str(status).encode(), found[:500]
    assert json.loads(text).keys() == {"code", "message", "hint"}


# --- how


@pytest.mark.parametrize(
    "data",
    [
        BASE + b"Content-Length: -1\r\n\r\n{}",
        BASE + b"Content-Length: 99999999999999999999\r\n\r\n{}",
        BASE + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        BASE + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        BASE + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFFFF\r\n{}",
        BASE + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 200,
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(3000)) + b"\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_broken_requests_get_a_refusal_or_nothing(served, data):
    found = raw(served.port, data)
    assert not found or re.match(rb"HTTP/1.[01] (4\d\d|505)", found), found[:200]
    assert alive(served)


def test_pipelined_requests_are_answered_in_order(served):
    one = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    two = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    statuses = re.findall(rb"HTTP/1.1 (\d+)", raw(served.port, one + two + one + last, is_last=False))
    assert statuses == [b"200", b"404", b"200", b"200"]


def test_thousands_of_malformed_requests_do_not_hurt(served):
    dice = random.Random(7)
    whole = BASE + b"Content-Length: 40\r\n\r\n" + b'{"launch_id": "L", "agent": "far"}      '
    for _ in range(1000 * SHARE):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 8)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
            connection.sendall(data[: dice.randint(1, len(data))])
    assert alive(served)
    assert served.ask("GET", "/health").json["bugs"] == 0


def test_idle_connections_and_dripping_ones_keep_nobody_out(served):
    """More connections than there is room for: those that say nothing give way, dripping heads and bodies end."""
    held = []
    try:
        for _ in range(400):
            held.append(socket.create_connection(("127.0.0.1", served.port), timeout=60))
        assert alive(served)
        assert served.ask("GET", "/health").json["connections"] <= 256
        for number, connection in enumerate(held[-60:]):
            try:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: l" if number % 2 else BASE + b"Content-Length: 99\r\n\r\n")
            except OSError:
                continue
        stop = threading.Event()

        def drip():
            while not stop.is_set():
                for connection in held[-60:]:
                    try:
                        connection.send(b"x")
                    except OSError:
                        continue
                time.sleep(0.3)

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            served.until(lambda: alive(served) and served.ask("GET", "/health").json["connections"] < 10,
                         "the slow ones to be closed")  # fmt: skip
        finally:
            stop.set()
            deadline.join(dripping)
    finally:
        for connection in held:
            connection.close()
    assert alive(served)


def test_duplicates_and_disorder_leave_each_message_once(served):
    dice, errors = random.Random(3), []
    messages = [{"id": f"d{n}", "role": "user", "content": str(n)} for n in range(100)]

    def send(seed: int) -> None:
        order = random.Random(seed).sample(messages, len(messages))
        for start in range(0, 100, 10):
            answer = served.ask("POST", "/history", {"agent": "crowd", "messages": order[start : start + 10]})
            if answer.status != 200:
                errors.append(answer.body)

    threads = [threading.Thread(target=send, args=(dice.random(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        deadline.join(thread)
    assert errors == []
    found = [json.loads(x)["id"] for x in served.ask("GET", "/history/export?agent=crowd").body.splitlines()]
    assert sorted(found) == sorted(m["id"] for m in messages)


def test_metrics_are_read_by_prometheus_own_parser(served):
    from prometheus_client.parser import text_string_to_metric_families

    answer = served.ask("GET", "/metrics")
    found = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}
    assert {"agentctl_agent_state", "agentctl_heartbeats", "agentctl_requests", "agentctl_store_broken"} <= found.keys()
    states = [s for s in found["agentctl_agent_state"].samples if s.labels["agent"] == served.world.name]
    assert sum(s.value for s in states) == 1


def test_the_broken_answers_of_null(served):
    """A null where a list belongs was a bug once."""
    assert served.ask("POST", "/history", {"messages": None, "role": ""}).status == 400


def test_a_locked_store_refuses_the_history_and_not_the_heartbeats(served):
    import sqlite3

    other = sqlite3.connect(served.paths.store_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        found = []
        waiting = threading.Thread(target=lambda: found.append(
            served.ask("POST", "/history", {"id": "late", "role": "user", "content": "x"})))  # fmt: skip
        waiting.start()
        while waiting.is_alive():
            assert alive(served)
            time.sleep(0.05)
        assert (found[0].status, found[0].json["code"]) == (507, "store-unavailable")
        assert served.ask("GET", "/health").json["ok"] is False
    finally:
        other.execute("COMMIT")
        other.close()
    assert served.ask("POST", "/history", {"id": "late", "role": "user", "content": "x"}).status == 200
    assert served.ask("GET", "/health").json["ok"] is True
