"""The description of the API (OpenAPI 3.1), made from the routes themselves."""

from __future__ import annotations

PROBLEMS = {400: "the request cannot be meant", 401: "a token is needed", 403: "the token has not that scope",
            409: "it cannot be done now", 415: "the body is encoded", 421: "the Host is another", 429: "too often",
            507: "the store takes nothing now"}  # fmt: skip
WITH_BODY = {408: "the body came too slowly", 413: "the body is too large"}
PROBLEM = {"type": "object", "required": ["code", "message", "hint"],
           "properties": {name: {"type": "string"} for name in ("code", "message", "hint")}}  # fmt: skip
KINDS = {"text": {"type": "string"}, "number": {"type": "integer", "minimum": 0}, "true": {"type": "boolean"},
         "list": {"type": "array", "items": {"type": "object"}}}  # fmt: skip


def document(routes: list) -> dict:
    """Return the whole description."""
    paths: dict[str, dict] = {}
    for route in routes:
        if not route.is_page:
            paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0", "info": {"title": "agentctl watchdog", "version": "1"}, "paths": paths,
        "components": {"schemas": {"Problem": PROBLEM},
                       "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }  # fmt: skip


def _operation(route) -> dict:
    made: dict = {"summary": route.summary, "responses": {}, "security": [{"token": []}] if route.scope else []}
    problems = {**PROBLEMS, **(WITH_BODY if route.body is not None else {})}
    for status, text in sorted({**problems, **route.answers}.items()):
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}} if status >= 400 else {}
        made["responses"][str(status)] = {"description": text, **({"content": content} if content else {})}
    parameters = [{"name": name, "in": "query", "required": False, "description": text, "schema": _kind(text)}
                  for name, text in route.query.items()]  # fmt: skip
    if "{name}" in route.path:
        parameters.append({"name": "name", "in": "path", "required": True,
                           "schema": {"type": "string", "pattern": "^[a-z0-9_-]{1,32}$"}})  # fmt: skip
        made["responses"].setdefault("404", {"description": "there is none"})
    if parameters:
        made["parameters"] = parameters
    if route.body:
        made["requestBody"] = {"content": {"application/json": {"schema": _body(route.body)}}}
    elif route.body is not None and route.limit_bytes == 0:
        made["requestBody"] = {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}
    return made


def _body(fields: dict[str, str]) -> dict:
    required = [name for name, text in fields.items() if "required" in text]
    made = {"type": "object", "properties": {name: {**_kind(text), "description": text}
                                             for name, text in fields.items()}}  # fmt: skip
    return {**made, **({"required": required} if required else {})}


def _kind(text: str) -> dict:
    if text.startswith("one of "):
        return {"type": "string", "enum": text.removeprefix("one of ").split(", ")}
    if text.startswith("1:"):
        return {"type": "string", "enum": ["1"]}
    word = text.replace(":", " ").replace(",", " ").split()[0]
    return {} if "any JSON" in text else dict(KINDS[word])
