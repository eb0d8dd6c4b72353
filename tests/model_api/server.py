#!/usr/bin/env python3
"""A stand-in for a model API, on loopback: chat completions in the OpenAI wire format, whole or streamed.

It has no memory of its own: it answers from the conversation in the request, so its answer shows what the
agent really sent. What came in is on disk before the answer begins (`requests.jsonl`). It is told what to do
by files in its folder: while `stall` is there it takes the file and stops in the middle of that answer.
"""

import argparse
import json
import re
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CODE_WORD = re.compile(r"code word is (\w+)")
STALL_AFTER_WORDS, STALL_SECONDS = 6, 600


class Handler(BaseHTTPRequestHandler):
    """One request; HTTP/1.0, so the end of the connection is the end of the answer."""

    def do_GET(self):
        self._send_json({"object": "list", "data": [{"id": "stand-in", "object": "model"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_stalling = self.server.take_stall()
        self.server.record({"path": self.path, "stalls": is_stalling, "body": body})
        if not self.path.endswith("/chat/completions"):
            self.send_error(404)
            return
        words = compose(body["messages"]).split(" ")
        if body.get("stream"):
            self._stream(body, words, is_stalling)
        else:
            self._stall_if(is_stalling)
            message = {"role": "assistant", "content": " ".join(words)}
            self._send_json(completion(body, message=message, finish_reason="stop"))

    def _stream(self, body, words, is_stalling):
        self._begin("text/event-stream")
        self._send_part(body, {"role": "assistant", "content": ""})
        for place, word in enumerate(words):
            self._stall_if(is_stalling and place == STALL_AFTER_WORDS)
            self._send_part(body, {"content": word if place == 0 else f" {word}"})
        self._send_part(body, {}, finish_reason="stop")
        self.wfile.write(b"data: [DONE]\n\n")

    def _send_part(self, body, delta, finish_reason=None):
        part = completion(body, delta=delta, finish_reason=finish_reason)
        self.wfile.write(b"data: " + json.dumps(part).encode() + b"\n\n")

    def _send_json(self, document):
        self._begin("application/json")
        self.wfile.write(json.dumps(document).encode())

    def _begin(self, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def _stall_if(self, is_stalling):
        if is_stalling:
            time.sleep(STALL_SECONDS)

    def log_message(self, *_):
        """Say nothing: `requests.jsonl` is the record."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        super().__init__(("127.0.0.1", port), Handler)

    def record(self, facts):
        with open(self.folder / "requests.jsonl", "a") as file:
            file.write(json.dumps({"at": time.time(), **facts}) + "\n")

    def take_stall(self):
        try:
            (self.folder / "stall").unlink()
        except FileNotFoundError:
            return False
        return True


def completion(body, *, finish_reason, delta=None, message=None):
    """Make a completion, or a part of one where there is a `delta`."""
    choice = {"index": 0, "finish_reason": finish_reason}
    choice |= {"message": message} if delta is None else {"delta": delta}
    made = {
        "id": "chatcmpl-stand-in",
        "object": "chat.completion" if delta is None else "chat.completion.chunk",
        "created": int(time.time()),
        "model": body.get("model", "stand-in"),
        "choices": [choice],
    }
    if delta is None:
        made["usage"] = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return made


def compose(messages):
    """Answer with what the conversation holds: how many user messages, and every code word in them."""
    said = [text_of(message) for message in messages if message["role"] == "user"]
    known = [word for text in said for word in CODE_WORD.findall(text)]
    return f"I was sent {len(said)} of your messages and know these code words: {' '.join(known) or 'none'} ."


def text_of(message):
    """Return a message's text: it is a string, or a list of parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--folder", required=True)
    chosen = options.parse_args()
    Server(chosen.port, chosen.folder).serve_forever()


if __name__ == "__main__":
    main()
