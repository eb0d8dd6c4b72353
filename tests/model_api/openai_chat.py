"""OpenAI's chat completions, whole or streamed: `POST .../chat/completions`."""

import json
import time

from model_api.conversation import Conversation, Tool, text_of


def is_for(path):
    return path.endswith("/chat/completions")


def is_streamed(path, body):
    return bool(body.get("stream"))


def read(body):
    """Return the conversation in a request."""
    messages = [(m["role"], text_of(m.get("content"))) for m in body["messages"]]
    tools = [Tool(t["function"]["name"], t["function"].get("parameters") or {})
             for t in body.get("tools") or () if t.get("type") == "function"]  # fmt: skip
    return Conversation([text for role, text in messages if role == "user"], messages[-1][1], tools)


def whole(body, answer):
    """Return an answer as one document."""
    message = {"role": "assistant", "content": answer.text or None}
    if answer.calls:
        message["tool_calls"] = [tool_call(call) for call in answer.calls]
    return completion(body, {"message": message}, reason(answer)) | {"usage": USAGE}


def stream(body, answer):
    """Yield an answer as server-sent events; a word of the text is an event."""
    yield event(completion(body, {"delta": {"role": "assistant", "content": ""}}))
    for word in answer.words if answer.text else ():
        yield event(completion(body, {"delta": {"content": word}})), word
    for place, call in enumerate(answer.calls):
        yield event(completion(body, {"delta": {"tool_calls": [{"index": place} | tool_call(call)]}}))
    yield event(completion(body, {"delta": {}}, reason(answer)))
    if (body.get("stream_options") or {}).get("include_usage"):
        yield event(completion(body, None) | {"usage": USAGE})
    yield "data: [DONE]\n\n"


USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


def reason(answer):
    return "tool_calls" if answer.calls else "stop"


def tool_call(call):
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}


def completion(body, choice, finish_reason=None):
    is_part = choice is None or "delta" in choice
    return {
        "id": "chatcmpl-stand-in",
        "object": "chat.completion.chunk" if is_part else "chat.completion",
        "created": int(time.time()),
        "model": body.get("model", "stand-in"),
        "choices": [] if choice is None else [{"index": 0, "finish_reason": finish_reason} | choice],
    }


def event(document):
    return f"data: {json.dumps(document)}\n\n"
