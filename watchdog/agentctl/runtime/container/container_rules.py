"""What the runtime `compose` decides: names, variables, which image, what a build would pull. Pure: touches nothing."""

from __future__ import annotations

from ...ledger.models import Generation

KNOWN_HERE, TAGGED, SHARED, BUILD = "known", "tagged", "shared", "build"
PLATFORM_WORDS = 2  # `FROM --platform=X IMAGE AS NAME`
EXIT_OF_SIGNAL = 128
LAST_SIGNAL = 64


def project_of(settings, name: str) -> str:
    """Name the Compose project: the agent's own name, unless the settings say another."""
    return settings.project or name


def image_of(settings, name: str) -> str:
    """Name the image whose tags are `g<N>` and `lkg`; what an agent may be called, an image may not always be."""
    if settings.image:
        return settings.image
    is_fit = all(name[0].isalnum() and name[-1].isalnum() and odd not in name for odd in ("___", "_-", "-_"))
    return f"agentctl-{name}" if is_fit else f"agentctl-x{name.encode().hex()}"


def variables(
    *,
    name: str,
    image: str,
    uid: int,
    gid: int,
    code: str,
    code_inside: str,
    state: str,
    state_inside: str,
    run: str,
    config: str,
) -> dict[str, str]:
    """Return what the compose file may use, and the container is made of: nothing else of ours gets there."""
    return {
        "AGENT_NAME": name, "AGENT_IMAGE": image, "AGENT_UID": str(uid), "AGENT_GID": str(gid),
        "AGENT_CODE_DIR": code, "AGENT_CODE_INSIDE": code_inside or code,
        "AGENT_STATE_DIR": state, "AGENT_STATE_INSIDE": state_inside or state,
        "AGENT_RUN_DIR": run, "AGENT_CONFIG_DIR": config,
    }  # fmt: skip


def moved_inside(env: dict[str, str], moves: list[tuple[str, str]]) -> dict[str, str]:
    """Return the contract's variables as they are inside: paths below a folder mounted elsewhere move along."""
    moved = {}
    for name, value in env.items():
        moved[name] = value
        for outside, inside in moves:
            if inside and (value == outside or value.startswith(f"{outside}/")):
                moved[name] = inside + value[len(outside) :]
                break
    return moved


def choose_image(
    generation: Generation, inputs: str, others: list[Generation], present: frozenset[str], tagged: str
) -> tuple[str, str]:
    """Choose where a generation's image comes from: (how, image id); ("build", "") where it has to be built.

    `present` are the image ids that the engine has, `tagged` the id behind the generation's own tag if that was
    built from the same inputs.
    """
    if generation.image in present and generation.image:
        return KNOWN_HERE, generation.image
    if tagged:
        return TAGGED, tagged
    for other in sorted(others, key=lambda row: row.number, reverse=True):
        if other.image in present and other.image and other.image_inputs == inputs:
            return SHARED, other.image
    return BUILD, ""


def bases(dockerfile: str, arguments: dict[str, str]) -> list[str]:
    """List the images that a build of this Dockerfile begins from, stages of its own left out.

    A name with a variable that is not known stands as it is: no image is called so, and it counts as missing.
    """
    known, stages, found = dict(arguments), set(), []
    is_before_from = True
    for words in _instructions(dockerfile):
        verb = words[0].upper()
        if verb == "ARG" and is_before_from:
            for word in words[1:]:
                name, equals, default = word.partition("=")
                if equals:
                    known.setdefault(name, _expanded(default, known))
        if verb == "FROM":
            is_before_from = False
            plain = [word for word in words[1:] if not word.startswith("--")]
            if not plain:
                continue
            image = _expanded(plain[0], known)
            if image.lower() not in stages and image != "scratch" and image not in found:
                found.append(image)
            if len(plain) > PLATFORM_WORDS and plain[1].upper() == "AS":
                stages.add(plain[2].lower())
        if verb == "COPY":
            found += [
                image
                for image in _copied_from(words, known)
                if image.lower() not in stages and not image.isdigit() and image not in found
            ]
    return found


def _instructions(dockerfile: str):
    """Yield each instruction's words, over lines that end in a backslash; here-documents are left out."""
    joined, lines = "", dockerfile.splitlines()
    while lines:
        text = lines.pop(0).strip()
        if text.startswith("#") or (not text and not joined):
            continue
        if text.endswith("\\"):
            joined += f"{text[:-1]} "
            continue
        words = (joined + text).split()
        joined = ""
        if words:
            yield words
        for end in _here_documents(words):
            ends = [number for number, line in enumerate(lines) if line.lstrip("\t") == end]
            del lines[: ends[0] + 1 if ends else 0]


def _here_documents(words: list[str]) -> list[str]:
    """List the lines that end the here-documents of an instruction; a program in one may well begin with `from`."""
    if not words or words[0].upper() not in ("RUN", "COPY", "ADD"):
        return []
    opened = [word[2:].removeprefix("-") for word in words if word.startswith("<<") and word[2:3] != "<"]
    return [_unquoted(name) for name in opened if name]


def _copied_from(words: list[str], known: dict[str, str]) -> list[str]:
    return [_expanded(word.removeprefix("--from="), known) for word in words[1:] if word.startswith("--from=")]


def _expanded(word: str, known: dict[str, str]) -> str:
    """Put in what is known for $NAME, ${NAME}, ${NAME:-else} and ${NAME:+instead}."""
    done, opened = "", "${"
    while opened:
        before, opened, rest = word.partition("${")
        inner, _, word = rest.partition("}") if opened else ("", "", "")
        name, _, other = inner.partition(":")
        value = known.get(name)
        if other.startswith("-"):
            value = value or other[1:]
        elif other.startswith("+"):
            value = other[1:] if value else ""
        done += before + (value if value is not None else f"${{{inner}}}" if opened else "")
    for name, value in sorted(known.items(), key=lambda item: -len(item[0])):
        done = done.replace(f"${name}", value)
    return _unquoted(done)


def _unquoted(word: str) -> str:
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "\"'" else word


def exit_of(code: int) -> tuple[int | None, int | None]:
    """Read a container's exit status as (status, None) or (None, signal), the way the agent ended."""
    if EXIT_OF_SIGNAL < code <= EXIT_OF_SIGNAL + LAST_SIGNAL:
        return None, code - EXIT_OF_SIGNAL
    return code, None


def is_well(live: dict, launch: dict, now: float) -> str:
    """Return '' if the launch in the container has a fresh heartbeat, else why it is not well."""
    if not launch:
        return "no launch is on record: the runner outside starts this container"
    if live.get("launch_id") != launch.get("launch_id"):
        return "the runner speaks of another launch"
    last = live.get("last_heartbeat_at")
    if last is None:
        return "no heartbeat yet"
    limit = max(last + float(launch.get("timeout_seconds", 0)), live.get("silent_until_at") or 0)
    return "" if now <= limit else f"no heartbeat for {now - last:.1f}s"


def describe_strays(found: list[str], folder: str) -> str:
    """Say that files in the repository were changed that do not count, '' if none was."""
    if not found:
        return ""
    has, are = ("was", "it is") if len(found) == 1 else ("were", "they are")
    return f"{' and '.join(found)} in the agent's repository {has} changed; {are} not used: what counts is in {folder}"
