"""Anthropic's messages, whole or streamed: `POST .../v1/messages`."""

import json

from model_api.conversation import Conversation, Tool, text_of


def is_for(path):
    return path.endswith("/messages")


def is_streamed(path, body):
    return bool(body.get("stream"))


def read(body):
    """Return the conversation in a request; a tool's result comes as a message of the user, and is none."""
    asked = [text_of(blocks_of(m, "text")) for m in body["messages"] if m["role"] == "user" and blocks_of(m, "text")]
    last = [m for m in body["messages"] if m["role"] != "system"][-1]  # a client may put a reminder behind it
    results = [text_of(block.get("content")) for block in blocks_of(last, "tool_result")]
    newest = "\n".join([*results, text_of(blocks_of(last, "text"))]).strip("\n")
    tools = [Tool(t["name"], t["input_schema"]) for t in body.get("tools") or () if "input_schema" in t]
    return Conversation(asked, newest, tools)


def whole(body, answer):
    """Return an answer as one document."""
    return message(body) | {"content": blocks(answer), "stop_reason": reason(answer)}


def stream(body, answer):
    """Yield an answer as server-sent events; a word of the text is an event."""
    yield event("message_start", message=message(body))
    for place, block in enumerate(blocks(answer)):
        is_text = block["type"] == "text"
        start = {"text": ""} if is_text else {"input": {}}
        yield event("content_block_start", index=place, content_block=block | start)
        if is_text:
            for word in answer.words:
                yield event("content_block_delta", index=place, delta={"type": "text_delta", "text": word}), word
        else:
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            yield event("content_block_delta", index=place, delta=delta)
        yield event("content_block_stop", index=place)
    delta = {"stop_reason": reason(answer), "stop_sequence": None}
    yield event("message_delta", delta=delta, usage={"output_tokens": 1})
    yield event("message_stop")


def blocks_of(said, kind):
    """Return a message's blocks of one kind; a plain text is a block of text."""
    content = said["content"]
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    return [block for block in content if block.get("type") == kind]


def blocks(answer):
    made = [{"type": "text", "text": answer.text}] if answer.text else []
    return made + [{"type": "tool_use", "id": c.id, "name": c.name, "input": c.arguments} for c in answer.calls]


def reason(answer):
    return "tool_use" if answer.calls else "end_turn"


def message(body):
    return {"id": "msg_stand_in", "type": "message", "role": "assistant", "model": body.get("model", "stand-in"),
            "content": [], "stop_reason": None, "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1}}  # fmt: skip


def event(kind, **facts):
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | facts)}\n\n"
