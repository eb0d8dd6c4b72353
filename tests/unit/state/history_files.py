"""History files for the tests: lines of it, written and read back."""

import json
import os


def line(number, content="text"):
    return json.dumps({"id": f"m{number}", "role": "user", "content": content}).encode() + b"\n"


def file_of(folder, data, name="history.jsonl"):
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.write(data)
    return path


def ids(path):
    with open(path, "rb") as file:
        return [json.loads(raw)["id"] for raw in file]


def content(path):
    with open(path, "rb") as file:
        return file.read()
