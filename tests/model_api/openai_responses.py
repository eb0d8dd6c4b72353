"""OpenAI's responses, whole or streamed: `POST .../responses`."""

import json
import time

from model_api.conversation import Conversation, Tool, text_of


def is_for(path):
    return path.endswith("/responses")


def is_streamed(path, body):
    return bool(body.get("stream"))


def read(body):
    """Return the conversation in a request; `input` is a text, or a list of messages, calls and their outputs."""
    items = body.get("input") or []
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    asked = [text_of(i.get("content")) for i in items if i.get("role") == "user"]
    newest = items[-1] if items else {}
    said = newest.get("output") if "output" in newest else newest.get("content")
    tools = [Tool(t["name"], t.get("parameters") or {}) for t in body.get("tools") or () if t.get("type") == "function"]
    return Conversation(asked, text_of(said), tools)


def whole(body, answer):
    """Return an answer as one document."""
    return response(body, "completed", items(answer))


def stream(body, answer):
    """Yield an answer as server-sent events, each with its number; a word of the text is an event."""
    number = -1

    def event(kind, **facts):
        nonlocal number
        number += 1
        return f"event: {kind}\ndata: {json.dumps({'type': kind, 'sequence_number': number} | facts)}\n\n"

    yield event("response.created", response=response(body, "in_progress", []))
    for place, item in enumerate(items(answer)):
        yield event("response.output_item.added", output_index=place, item=item | empty(item))
        at = {"item_id": item["id"], "output_index": place}
        if item["type"] == "message":
            yield from text_events(event, at | {"content_index": 0}, answer)
        else:
            yield event("response.function_call_arguments.delta", **at, delta=item["arguments"])
            yield event("response.function_call_arguments.done", **at, arguments=item["arguments"])
        yield event("response.output_item.done", output_index=place, item=item)
    yield event("response.completed", response=response(body, "completed", items(answer)))


def text_events(event, at, answer):
    yield event("response.content_part.added", **at, part=text_part(""))
    for word in answer.words:
        yield event("response.output_text.delta", **at, delta=word, logprobs=[]), word
    yield event("response.output_text.done", **at, text=answer.text, logprobs=[])
    yield event("response.content_part.done", **at, part=text_part(answer.text))


def items(answer):
    made = []
    if answer.text:
        made.append({"type": "message", "id": "msg_stand_in", "role": "assistant", "status": "completed",
                     "content": [text_part(answer.text)]})  # fmt: skip
    for call in answer.calls:
        made.append({"type": "function_call", "id": f"fc_{call.id}", "call_id": call.id, "name": call.name,
                     "arguments": json.dumps(call.arguments), "status": "completed"})  # fmt: skip
    return made


def empty(item):
    """Return what differs in an item that has just begun."""
    return {"status": "in_progress"} | ({"content": []} if item["type"] == "message" else {"arguments": ""})


def text_part(text):
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def response(body, status, output):
    is_done = status == "completed"
    return {
        "id": "resp_stand_in", "object": "response", "created_at": int(time.time()), "status": status,
        "model": body.get("model", "stand-in"), "output": output, "error": None, "incomplete_details": None,
        "instructions": None, "metadata": {}, "parallel_tool_calls": False, "temperature": 1.0, "top_p": 1.0,
        "tool_choice": "auto", "tools": body.get("tools") or [],
        "usage": {"input_tokens": 1, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 1,
                  "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 2} if is_done else None,
    }  # fmt: skip
