"""The tool of this chat."""


def shell(command: str) -> str:
    """Run a command in a shell and return what it said."""
    import subprocess

    done = subprocess.run(
        ["bash", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return f"{done.stdout}{done.stderr}\nExit code: {done.returncode}"
