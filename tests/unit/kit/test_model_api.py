"""The stand-in for model APIs: words and tool calls in each wire format, whole, streamed, and stopped in between."""

import json
import threading
import urllib.request

import pytest

from model_api.server import Server

RUN = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}


@pytest.fixture
def api(tmp_path):
    server = Server(0, tmp_path / "api")
    serving = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
    serving.start()
    yield server
    server.shutdown()
    server.server_close()


def post(api, path, body):
    """Open the answer to a request."""
    request = urllib.request.Request(f"http://127.0.0.1:{api.server_port}{path}", json.dumps(body).encode())
    return urllib.request.urlopen(request, timeout=60)


def events(answer):
    """Return the documents of a stream of server-sent events."""
    lines = (line.decode().strip() for line in answer)
    data = (line.removeprefix("data: ") for line in lines if line.startswith("data: "))
    return [json.loads(item) for item in data if item != "[DONE]"]


class OpenAiChat:
    def ask(self, messages, stream):
        tools = [{"type": "function", "function": {"name": "bash", "parameters": RUN}}]
        said = [{"role": role, "content": text} for role, text in messages]
        return "/v1/chat/completions", {"messages": said, "tools": tools, "stream": stream}

    def read(self, document):
        message = document["choices"][0]["message"]
        calls = [call["function"] for call in message.get("tool_calls", ())]
        return message["content"] or "", [(c["name"], json.loads(c["arguments"])) for c in calls]

    def read_stream(self, documents):
        deltas = [document["choices"][0]["delta"] for document in documents]
        calls = [call["function"] for delta in deltas for call in delta.get("tool_calls", ())]
        text = "".join(delta.get("content") or "" for delta in deltas)
        return text, [(c["name"], json.loads(c["arguments"])) for c in calls]


class OpenAiResponses:
    def ask(self, messages, stream):
        said = [{"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}
                for role, text in messages]  # fmt: skip
        return "/v1/responses", {
            "input": said,
            "tools": [{"type": "function", "name": "bash", "parameters": RUN}],
            "stream": stream,
        }

    def read(self, document):
        messages = [item for item in document["output"] if item["type"] == "message"]
        calls = [item for item in document["output"] if item["type"] == "function_call"]
        text = "".join(part["text"] for item in messages for part in item["content"])
        return text, [(c["name"], json.loads(c["arguments"])) for c in calls]

    def read_stream(self, documents):
        assert [document["sequence_number"] for document in documents] == list(range(len(documents)))
        deltas = [d["delta"] for d in documents if d["type"] == "response.output_text.delta"]
        done = [d["response"] for d in documents if d["type"] == "response.completed"]
        return "".join(deltas), self.read(done[0])[1] if done else []


class Anthropic:
    def ask(self, messages, stream):
        said = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in messages]
        return "/v1/messages", {"messages": said, "tools": [{"name": "bash", "input_schema": RUN}], "stream": stream}

    def read(self, document):
        text = "".join(block["text"] for block in document["content"] if block["type"] == "text")
        return text, [(b["name"], b["input"]) for b in document["content"] if b["type"] == "tool_use"]

    def read_stream(self, documents):
        deltas = [d["delta"] for d in documents if d["type"] == "content_block_delta"]
        names = [d["content_block"]["name"] for d in documents
                 if d["type"] == "content_block_start" and d["content_block"]["type"] == "tool_use"]  # fmt: skip
        given = [json.loads(d["partial_json"]) for d in deltas if d["type"] == "input_json_delta"]
        return "".join(d.get("text", "") for d in deltas), list(zip(names, given, strict=True))


class Gemini:
    def ask(self, messages, stream):
        roles = {"assistant": "model"}
        said = [{"role": roles.get(role, role), "parts": [{"text": text}]} for role, text in messages]
        tools = [{"functionDeclarations": [{"name": "bash", "parameters": RUN}]}]
        verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"/v1beta/models/stand-in:{verb}", {"contents": said, "tools": tools}

    def read(self, document):
        parts = document["candidates"][0]["content"]["parts"]
        calls = [part["functionCall"] for part in parts if "functionCall" in part]
        return "".join(part.get("text", "") for part in parts), [(c["name"], c["args"]) for c in calls]

    def read_stream(self, documents):
        read = [self.read(document) for document in documents]
        return "".join(text for text, _ in read), [call for _, calls in read for call in calls]


WIRES = pytest.mark.parametrize("wire", [OpenAiChat(), OpenAiResponses(), Anthropic(), Gemini()],
                                ids=lambda wire: type(wire).__name__)  # fmt: skip
STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
SAID = [("user", "My code word is ALBATROSS"), ("assistant", "So it is"), ("user", "What is it?")]


def talk(api, wire, stream, messages=SAID):
    with post(api, *wire.ask(messages, stream)) as answer:
        return wire.read_stream(events(answer)) if stream else wire.read(json.load(answer))


def order(api, number, **step):
    (api.folder / "script").mkdir(exist_ok=True)
    (api.folder / "script" / f"{number}.json").write_text(json.dumps(step))


def requests(api):
    lines = map(json.loads, (api.folder / "requests.jsonl").read_text().splitlines())
    return [line for line in lines if "path" in line]


@WIRES
@STREAMED
def test_it_answers_from_the_conversation(api, wire, stream):
    text, calls = talk(api, wire, stream)
    assert text == "I was sent 2 of your messages and know these code words: ALBATROSS ."
    assert calls == []
    assert requests(api)[0]["asked"] == ["My code word is ALBATROSS", "What is it?"]


@WIRES
@STREAMED
def test_it_calls_the_shell_it_is_offered(api, wire, stream):
    order(api, 1, when="What is it", shell="ls", say="I look.")
    assert talk(api, wire, stream) == ("I look.", [("bash", {"command": "ls"})])
    assert talk(api, wire, stream)[1] == []


@WIRES
def test_it_stops_in_the_middle_of_one_answer(api, wire):
    (api.folder / "stall").write_text("What is it")
    talk(api, wire, True, SAID[:1])  # another message: the pattern does not fit
    with post(api, *wire.ask(SAID, True)) as answer:
        answer.fp.raw._sock.settimeout(1)  # it says nothing more: any wait shows that
        lines = []
        with pytest.raises(TimeoutError):
            lines.extend(iter(answer.readline, None))
    text, _ = talk(api, wire, True)
    assert text.endswith("ALBATROSS .")
    assert [request["stalls"] for request in requests(api)] == [False, True, False]


def test_a_step_waits_for_who_fits(api):
    wire = OpenAiChat()
    order(api, 1, when="nobody says this", say="never")
    order(api, 2, say="not yet")
    assert "code words" in talk(api, wire, False)[0]
    (api.folder / "script" / "1.json").unlink()
    assert talk(api, wire, False)[0] == "not yet"
    order(api, 3, call=[{"name": "no_such_tool"}])
    assert "code words" in talk(api, wire, False)[0]


def test_a_shell_gets_what_it_demands(api):
    schema = {"properties": {"command": {"type": "array"}, "description": {"type": "string"}},
              "required": ["command", "description"]}  # fmt: skip
    order(api, 1, shell="ls")
    body = {"messages": [{"role": "user", "content": "go"}],
            "tools": [{"type": "function", "function": {"name": "shell", "parameters": schema}}]}  # fmt: skip
    with post(api, "/v1/chat/completions", body) as answer:
        _, calls = OpenAiChat().read(json.load(answer))
    assert calls == [("shell", {"command": ["bash", "-lc", "ls"], "description": "as asked"})]
