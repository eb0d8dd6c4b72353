"""Who asks, and what may they do: peer credentials on the socket, tokens elsewhere, sessions for browsers.

A token is 256 random bits and known here by its digest alone. What comes from another site's page is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import socket
import struct
import time

from ...core.errors import AgentctlError
from ...state import history

BEAT, APPEND, READ, ADMIN = "beat", "append", "read", "admin"
SCOPES = (BEAT, APPEND, READ, ADMIN)
RESTART = "restart"  # nobody's token has it: the agent itself may ask for its restart, and so may an admin
AGENT_SCOPES = frozenset((BEAT, APPEND, READ, RESTART))
ALL_SCOPES = frozenset((*SCOPES, RESTART))
TOKEN_PREFIX = "actl_"
MAKE_ONE = "agentctl token create"
MOST_VALID = 2  # of one label: the old and the new one while they are exchanged
RATE_PER_SECOND, RATE_BURST = 200.0, 400.0
CACHE_SECONDS = 1.0
SESSION_SECONDS = 12 * 3600.0
SESSION_COOKIE = "agentctl_session"
MOST_SESSIONS = 64


class Refused(AgentctlError):
    """The request is refused: `status` and `code` say how."""

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.status, self.code = status, code


class Peer:
    """Who asks: what they may do, for which agent ('' for any), and how much they have asked lately."""

    __slots__ = ("agent", "asked_at", "budget", "clock", "is_limited", "name", "scopes")

    def __init__(self, name: str, scopes, agent: str, *, is_limited: bool = True, clock=time.monotonic) -> None:
        self.name, self.scopes, self.agent, self.is_limited = name, frozenset(scopes), agent, is_limited
        self.clock, self.budget, self.asked_at = clock, RATE_BURST, clock()

    def spend(self) -> bool:
        """Count one request against the rate; False if it is too many."""
        if not self.is_limited:
            return True
        now = self.clock()
        self.budget = min(RATE_BURST, self.budget + (now - self.asked_at) * RATE_PER_SECOND)
        self.asked_at = now
        if self.budget < 1:
            return False
        self.budget -= 1
        return True


def digest_of(token: str) -> str:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def new_token() -> str:
    """Return a new token: 256 random bits."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


class Access:
    """Knows the peers of one server."""

    def __init__(self, context, store, clock=time.monotonic) -> None:
        self.context, self.store, self.clock = context, store, clock
        self.agent_uid = context.user.uid if context.user else os.geteuid()
        self._by_uid: dict[int, Peer] = {}
        self._by_digest: dict[str, tuple[float, Peer | None]] = {}
        self._peers: dict[str, Peer] = {}  # tokens keep their rate when they are looked up again
        self._sessions: dict[str, tuple[float, str]] = {}  # until when, and the digest of the token that was shown

    def by_socket(self, transport) -> Peer | None:
        """Return the peer behind a unix socket by the kernel's word; None for a stranger or another door."""
        sock = transport.get_extra_info("socket")
        if sock is None or sock.family != socket.AF_UNIX:
            return None
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        uid = struct.unpack("3i", raw)[1]
        if uid not in self._by_uid:
            if uid in (0, os.geteuid()):
                self._by_uid[uid] = Peer(f"uid {uid}", ALL_SCOPES, "", is_limited=False)
            elif uid == self.agent_uid:
                self._by_uid[uid] = Peer(f"uid {uid}", AGENT_SCOPES, self.context.paths.name, clock=self.clock)
        return self._by_uid.get(uid)

    async def by_token(self, header: str, look_up) -> Peer:
        """Return the peer that an Authorization header names; raise Refused if it names none."""
        kind, _, token = header.partition(" ")
        if kind.lower() != "bearer" or not token:
            raise Refused(401, "unauthorized", "the Authorization header is not 'Bearer TOKEN'", MAKE_ONE)
        peer = await self._known(digest_of(token.strip()), look_up)
        if peer is None:
            raise Refused(401, "unauthorized", "the token is not known, or revoked", "agentctl token list")
        return peer

    async def _known(self, digest: str, look_up) -> Peer | None:
        known = self._by_digest.get(digest)
        if known is None or self.clock() - known[0] > CACHE_SECONDS:
            if len(self._by_digest) > 10_000:
                self._by_digest.clear()
            known = (self.clock(), await look_up(self._find, digest))
            self._by_digest[digest] = known
        return known[1]

    def _find(self, digest: str) -> Peer | None:
        launch = self._launch_token()
        if launch and hmac.compare_digest(digest_of(launch), digest):
            return self._remember(digest, "the agent", AGENT_SCOPES, self.context.paths.name)
        row = self.store.token(digest)
        if row is None:
            self._peers.pop(digest, None)
            return None
        scopes = set(row["scopes"].split())
        scopes |= set(SCOPES) | {RESTART} if ADMIN in scopes else set()
        return self._remember(digest, f"token {row['id']}", scopes, row["agent"])

    def _remember(self, digest: str, name: str, scopes, agent: str) -> Peer:
        return self._peers.setdefault(digest, Peer(name, scopes, agent, clock=self.clock))

    def _launch_token(self) -> str:
        """Read the agent's own token; its file lies in a folder of the agent, who may put anything in its place."""
        try:
            with open(history.open_plain(self.context.paths.token_path), "rb") as file:
                return file.read(4096).decode("ascii", "replace").strip()
        except (AgentctlError, OSError):
            return ""

    # -- browsers -----------------------------------------------------------------------------------------------

    def open_session(self, token: str) -> str:
        """Let a browser in that has shown a token; return what its cookie holds."""
        now = self.clock()
        self._sessions = {key: known for key, known in self._sessions.items() if known[0] > now}
        while len(self._sessions) >= MOST_SESSIONS:
            self._sessions.pop(next(iter(self._sessions)))
        cookie = secrets.token_urlsafe(32)
        self._sessions[digest_of(cookie)] = (now + SESSION_SECONDS, digest_of(token))
        return cookie

    async def by_session(self, cookie: str, look_up) -> Peer | None:
        """Return the peer of a session that has not ended, and whose token is still good."""
        until, digest = self._sessions.get(digest_of(cookie), (0.0, ""))
        return await self._known(digest, look_up) if until > self.clock() else None

    def close_session(self, cookie: str) -> None:
        """Forget a browser's session."""
        self._sessions.pop(digest_of(cookie), None)


def check_host(headers, is_tcp: bool, listen_host: str) -> None:
    """Refuse what a page of another site made a browser send: a foreign Host, Origin or Sec-Fetch-Site."""
    host = headers.get("Host", "")
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if is_tcp and name.lower() not in ("localhost", "127.0.0.1", "[::1]", listen_host):
        raise Refused(421, "wrong-host", f"this is not {ascii(host)[:80]}", "ask for the address it listens on")
    origin = headers.get("Origin")
    if origin is not None and origin != f"http://{host}":
        raise Refused(403, "foreign-origin", "requests of other sites' pages are refused", "")
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        raise Refused(403, "foreign-origin", "requests of other sites' pages are refused", "")


def check_scope(peer: Peer | None, scope: str) -> None:
    """Refuse who may not do it."""
    if scope and peer is None:
        raise Refused(401, "unauthorized", "a token is needed here", f"send 'Authorization: Bearer TOKEN'; {MAKE_ONE}")
    if scope and scope not in peer.scopes:
        raise Refused(403, "forbidden", f"{peer.name} has not the scope '{scope}'", "agentctl token create --scope")


def check_agent(peer: Peer, name: str) -> None:
    """Refuse who may speak of another agent only."""
    if peer.agent not in ("", name):
        raise Refused(403, "forbidden", f"{peer.name} is for the agent '{peer.agent}'")
