"""What the proxy in front of Docker's API lets through for one agent. Pure but for looking up whose something is."""

from __future__ import annotations

import json
import os
import re
from urllib.parse import parse_qs, unquote, urlsplit

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
# What a new container says of itself. Older engines (20.10) read HostConfig's names here as well, privileges and all.
OF_ITSELF = {
    *("hostname", "domainname", "user", "attachstdin", "attachstdout", "attachstderr", "exposedports", "tty"),
    *("openstdin", "stdinonce", "env", "cmd", "healthcheck", "argsescaped", "image", "volumes", "workingdir"),
    *("entrypoint", "networkdisabled", "macaddress", "onbuild", "labels", "stopsignal", "stoptimeout", "shell"),
    *("hostconfig", "networkingconfig"),
}  # fmt: skip


class Rules:
    """What is let through for one agent.

    `labels(kind, name)` asks the engine: the labels of a container or a network, and of the container of an exec.
    """

    def __init__(self, project: str, image: str, folders: list[str], labels) -> None:
        self.project, self.image, self.labels = project, image, labels
        self.folders = [os.path.normpath(folder) for folder in folders]

    def verdict(self, method: str, target: str, body: bytes = b"") -> str:
        """Return why a request is refused, or nothing."""
        parts = urlsplit(target)
        path = re.sub(r"^/v\d+\.\d+(?=/)", "", unquote(parts.path))
        given = parse_qs(parts.query, keep_blank_values=True)
        query = {name: values[0] for name, values in given.items()}
        is_twice = any(len(values) > 1 for values in given.values()) or ";" in parts.query  # `&` to older engines
        if "//" in path or ".." in path.split("/") or is_twice:
            return f"{path} is no plain request"
        if method in ("GET", "HEAD") and READS.fullmatch(path):
            return ""
        found = CONTAINER.fullmatch(path)
        if found and path != "/containers/create":
            return self._of_container(method, *found.groups(), query, body)
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
            return self._of_owner("containers", str(wanted.get("container", "")))
        if method == "DELETE" and (network := re.fullmatch(rf"/networks/({ID})", path)):
            return self._of_owner("networks", network[1])
        if method == "POST" and (container := re.fullmatch(rf"/containers/({ID})/exec", path)):
            is_plain = not wanted.get("privileged") and not wanted.get("user")
            return self._of_owner("containers", container[1]) if is_plain else "a command has its container's rights"
        if inner := re.fullmatch(rf"/exec/({ID})/(start|resize|json)", path):
            return self._of_owner("exec", inner[1])
        return f"{method} {path} is not among what the watchdog needs"

    def _of_container(self, method: str, name: str, verb: str | None, query: dict, body: bytes) -> str:
        if verb is None and method != "DELETE":
            return f"{method} of a container is not among what the watchdog needs"
        if verb is not None and method != ("GET" if verb == "logs" else "POST"):
            return f"{verb} is asked otherwise"
        if verb is None and query.get("v", "0").lower() not in ("", "0", "false"):
            return "a container is removed without its volumes here"
        if body.strip() not in (b"", b"{}", b"null"):  # in API versions before 1.24 a start brings rights with it
            return f"nothing comes with a request to {verb or 'remove'} a container"
        return self._of_owner("containers", name)

    def _of_owner(self, kind: str, name: str) -> str:
        is_ours = re.fullmatch(ID, name) and self._is_ours(self.labels(kind, name).get(PROJECT))
        return "" if is_ours else f"{name} of the {kind} is not of project {self.project}"

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
        odd = [name for name, value in wanted.items() if name not in OF_ITSELF and value is not None]
        return f"{odd[0]} is not known here" if odd else self._of_host_config(wanted.get("hostconfig") or {})

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


def is_exec_start(method: str, target: str) -> bool:
    """Tell the one request that may be upgraded to a plain connection: a command in a container."""
    return method == "POST" and re.fullmatch(rf"(/v\d+\.\d+)?/exec/{ID}/start", target) is not None
