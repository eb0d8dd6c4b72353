"""A stand-in for model APIs, on loopback: OpenAI (chat, responses), Anthropic, Gemini, whole or streamed.

It has no memory of its own: it answers from the conversation in the request, so its answer shows what the
agent really sent. What came in is on disk before the answer begins (`requests.jsonl`), and so is the end of an
answer that went out whole. It is told what to do by files in its folder (`orders.py`).
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from model_api import anthropic_messages, gemini, openai_chat, openai_responses
from model_api.orders import Orders

WIRES = (openai_chat, openai_responses, anthropic_messages, gemini)
MODELS = {"object": "list", "data": [{"id": "stand-in", "object": "model", "created": 0, "owned_by": "nobody"}]}
STALL_SECONDS = 600


class Handler(BaseHTTPRequestHandler):
    """One request; HTTP/1.0, so the end of the connection is the end of the answer."""

    def do_GET(self):
        self._send_json(MODELS)

    def do_HEAD(self):
        self._begin("application/json")

    def do_POST(self):
        path, body = self.path.partition("?")[0], self._read_body()
        wire = next((wire for wire in WIRES if wire.is_for(path)), None)
        if wire is None:
            self.server.record({"path": self.path, "stalls": False, "asked": [], "body": body})
            self._send_beside(path)
            return
        conversation = wire.read(body)
        answer = self.server.orders.answer(conversation)
        number = self.server.next_number()
        is_stalling = answer.stall_after is not None
        self.server.record({"id": number, "path": self.path, "stalls": is_stalling, "asked": conversation.asked,
                            "newest": conversation.newest, "calls": [vars(call) for call in answer.calls],
                            "tools": [tool.name for tool in conversation.tools], "body": body})  # fmt: skip
        if wire.is_streamed(path, body):
            self._stream(wire.stream(body, answer), answer)
        else:
            self._stall_if(is_stalling)
            self._send_json(wire.whole(body, answer))
        self.server.record({"answered": number})

    def _stream(self, parts, answer):
        """Send part by part; one that is a word of the text is a pair, and is counted."""
        self._begin("text/event-stream")
        last = None if answer.stall_after is None else min(answer.stall_after, len(answer.text.split()))
        words = 0
        for part in parts:
            self._stall_if(words == last)
            is_word = isinstance(part, tuple)
            words += is_word
            self.wfile.write((part[0] if is_word else part).encode())

    def _stall_if(self, is_stalling):
        """Say nothing more, ever: who waited that long gets no answer either."""
        if is_stalling:
            time.sleep(STALL_SECONDS)
            raise ConnectionAbortedError

    def _send_beside(self, path):
        """Answer the questions around a conversation: how many tokens it has."""
        if path.endswith("/count_tokens"):
            self._send_json({"input_tokens": 1})
        elif path.endswith(":countTokens"):
            self._send_json({"totalTokens": 1})
        else:
            self.send_error(404)

    def _read_body(self):
        raw = b""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            while size := int(self.rfile.readline().split(b";")[0], 16):
                raw += self.rfile.read(size)
                self.rfile.readline()
        else:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return json.loads(raw or b"{}")

    def _send_json(self, document):
        self._begin("application/json")
        self.wfile.write(json.dumps(document).encode())

    def _begin(self, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except ConnectionError:  # the agent was killed, or stalled for ever
            self.close_connection = True

    def log_message(self, *_):
        """Say nothing: `requests.jsonl` is the record."""


class Server(ThreadingHTTPServer):
    """The stand-in; port 0 takes a free one."""

    daemon_threads = True

    def __init__(self, port, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.orders, self.lock, self.count = Orders(self.folder), threading.Lock(), 0
        super().__init__(("127.0.0.1", port), Handler)

    def next_number(self):
        with self.lock:
            self.count += 1
            return self.count

    def record(self, facts):
        with self.lock, open(self.folder / "requests.jsonl", "a") as file:
            file.write(json.dumps({"at": time.time(), **facts}) + "\n")
