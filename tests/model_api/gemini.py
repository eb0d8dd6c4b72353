"""Gemini's generateContent, whole or streamed: `POST .../models/NAME:generateContent`, `:streamGenerateContent`."""

import json

from model_api.conversation import Conversation, Tool, text_of


def is_for(path):
    return path.endswith((":generateContent", ":streamGenerateContent"))


def is_streamed(path, body):
    return path.endswith(":streamGenerateContent")


def read(body):
    """Return the conversation in a request; a function's response comes from the user, and is no message.

    Some clients write keys with underscores, which the real one takes as well.
    """
    contents = [content.get("parts") or [] for content in body["contents"] if content.get("role", "user") == "user"]
    asked = [text for text in map(text_of, contents) if text]
    declared = [d for tool in body.get("tools") or () for d in either(tool, "functionDeclarations") or ()]
    tools = [Tool(d["name"], plain(d.get("parametersJsonSchema") or d.get("parameters") or {})) for d in declared]
    last = body["contents"][-1].get("parts") or []
    results = [json.dumps(r.get("response")) for r in (either(part, "functionResponse") for part in last) if r]
    return Conversation(asked, "\n".join([*results, text_of(last)]).strip("\n"), tools)


def whole(body, answer):
    """Return an answer as one document."""
    parts = [{"text": answer.text}] if answer.text else []
    return part(parts + calls(answer), is_last=True)


def stream(body, answer):
    """Yield an answer as server-sent events; a word of the text is an event."""
    for word in answer.words if answer.text else ():
        yield event(part([{"text": word}])), word
    yield event(part(calls(answer), is_last=True))


def calls(answer):
    return [{"functionCall": {"id": c.id, "name": c.name, "args": c.arguments}} for c in answer.calls]


def part(parts, is_last=False):
    candidate = {"index": 0, "content": {"role": "model", "parts": parts}}
    if is_last:
        candidate["finishReason"] = "STOP"
    usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "stand-in"}


def either(document, key):
    """Return what a key has, also where it is written with underscores."""
    return document.get(key) or document.get("".join(f"_{c.lower()}" if c.isupper() else c for c in key))


def plain(schema):
    """Return a schema with its types in lower case, as JSON schema has them; Gemini's own are in upper case."""
    if isinstance(schema, list):
        return [plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {k: v.lower() if k == "type" and isinstance(v, str) else plain(v) for k, v in schema.items()}


def event(document):
    return f"data: {json.dumps(document)}\r\n\r\n"
