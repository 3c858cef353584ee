"""The API page: one HTML document made from the OpenAPI document. It reads well without its script."""

import json
import re
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from gateway.docs.sample import resolved, sample
from gateway.openapi.reasons import COMMON_REASONS

Json = dict[str, Any]

_VERBS = ("get", "post", "put", "patch", "delete")
_RANGES = (("minLength", "maxLength", "characters"), ("minItems", "maxItems", "items"), ("minimum", "maximum", ""))
_REASONS = re.compile(r"`([A-Z_]+)`")
_EXAMPLES = """\
<p><strong>The examples</strong> take <code>$SIYU</code> for <span id="here">the address of this page</span>, and \
<code>$TOKEN</code> for a token of yours; every name and id in them is made up. So set them once:</p>
<pre><code>SIYU=http://localhost:8080
TOKEN=$(curl -fsS "$SIYU/v1/token" -H 'content-type: application/json' \\
  -d '{"clientId": "&lt;client_id&gt;", "clientSecret": "&lt;client_secret&gt;"}' | jq -r .accessToken)</code></pre>
"""


def page(document: Json) -> str:
    """The whole page."""
    tags = [(tag, list(_operations(document, tag["name"]))) for tag in document["tags"]]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(document["info"]["title"])} API</title>
<link rel="icon" href="/docs/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/docs/docs.css">
<script src="/docs/docs.js" defer></script>
</head>
<body>
<header>
<a class="brand" href="#top">Siyu <span>API</span></a>
<label class="search"><span class="hidden">Search</span>
<input id="search" type="search" placeholder="Search calls, paths, scopes, reasons   /" autocomplete="off"></label>
<a class="raw" href="/openapi.json">openapi.json</a>
</header>
<nav aria-label="Calls">{"".join(_nav(tag, operations) for tag, operations in tags)}
<section><h2>Types</h2><ol>{"".join(_nav_type(name) for name in document["components"]["schemas"])}</ol></section></nav>
<main id="top">
<section class="intro">
<h1>{escape(document["info"]["title"])} API <small>{escape(document["info"]["version"])}</small></h1>
{prose(document["info"]["description"])}{_EXAMPLES}</section>
<p id="nothing" hidden>Nothing found.</p>
{"".join(_tag(tag, operations, document) for tag, operations in tags)}
<section class="types"><h2>Types</h2>
{"".join(_type(name, schema) for name, schema in document["components"]["schemas"].items())}</section>
</main>
</body>
</html>
"""


def prose(text: str) -> str:
    """Paragraphs, lists, **strong** and `code`; everything else is text."""
    return "".join(_paragraph(part) for part in re.split(r"\n\s*\n", text.strip()) if part.strip())


def inline(text: str) -> str:
    """**strong** and `code` within a line."""
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", safe)


def _paragraph(text: str) -> str:
    lines = text.splitlines()
    if all(line.startswith("- ") for line in lines):
        return f"<ul>{''.join(f'<li>{inline(line[2:])}</li>' for line in lines)}</ul>"
    return f"<p>{inline(' '.join(lines))}</p>"


def _operations(document: Json, tag: str) -> Iterator[tuple[str, str, Json]]:
    for path, item in document["paths"].items():
        for verb in _VERBS:
            if verb in item and tag in item[verb]["tags"]:
                yield verb, path, item[verb]


def _nav(tag: Json, operations: Iterable[tuple[str, str, Json]]) -> str:
    links = "".join(
        f'<li data-for="{escape(operation["operationId"])}"><a href="#{escape(operation["operationId"])}">'
        f"{_badge(verb)}<span>{escape(operation['operationId'].partition('_')[2])}</span></a></li>"
        for verb, _, operation in operations
    )
    service, _, name = tag["name"].partition(".")
    return f"<section><h2><em>{escape(service)}</em> {escape(name)}</h2><ol>{links}</ol></section>"


def _nav_type(name: str) -> str:
    return f'<li class="type" data-for="type-{escape(name)}"><a href="#type-{escape(name)}">{escape(name)}</a></li>'


def _tag(tag: Json, operations: list[tuple[str, str, Json]], document: Json) -> str:
    calls = "".join(_operation(verb, path, operation, document) for verb, path, operation in operations)
    return f"<section class=tag><h2>{escape(tag['name'])}</h2>{prose(tag['description'])}{calls}</section>"


def _operation(verb: str, path: str, operation: Json, document: Json) -> str:
    components = document["components"]["schemas"]
    identity = escape(operation["operationId"])
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    reply = operation["responses"]["200"]["content"]["application/json"]["schema"]
    # the reasons have a table of their own
    description = re.sub(r"\n*Refusals:.*?(?=\n\n|\Z)", "", operation["description"], flags=re.DOTALL)
    parts = [
        f'<article id="{identity}" {_searchable(path, operation)}>',
        f'<h3><a href="#{identity}">{inline(operation["summary"])}</a></h3>',
        f'<p class="call">{_badge(verb)}<code>{_path(path)}</code></p>',
        prose(description),
        _parameters(operation["parameters"]),
        f"<h4>Request</h4>{_fields(resolved(body, components))}" if body else "",
        f"<h4>Reply <small>{_type_link(reply)}</small></h4>{_fields(resolved(reply, components))}",
        _refusals(operation["responses"]),
        f"<h4>Example</h4><pre><code>{escape(_curl(verb, path, operation, body, components))}</code></pre>",
        "</article>",
    ]
    return "".join(parts)


def _searchable(path: str, operation: Json) -> str:
    """By what the script finds and ranks it. What every call refuses would find every call."""
    reasons = {
        reason for response in operation["responses"].values() for reason in _REASONS.findall(response["description"])
    }
    name = operation["operationId"].partition("_")[2]
    title = [operation["operationId"], operation["summary"], path, *operation["x-siyu-scopes"]]
    # a call that needs no token meets these only if they are its own
    common = COMMON_REASONS if operation["security"] else frozenset()
    return _search_data(name, title, sorted(reasons - common))


def _search_data(name: str, title: Iterable[str] = (), rest: Iterable[str] = ()) -> str:
    words = " ".join(title)
    data = {"name": name, "title": words, "text": " ".join([name, words, *rest])}
    return " ".join(f'data-{key}="{escape(value.lower().strip())}"' for key, value in data.items())


def _parameters(parameters: list[Json]) -> str:
    if not parameters:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(each['name'])}</code>{_must(each.get('required', False))}</td>"
        f"<td>{escape(each['in'])}<br>{_kind(each['schema'])}</td>"
        f"<td>{inline(each['description'])}{_limits(each['schema'])}</td></tr>"
        for each in parameters
    )
    return f"<h4>Parameters</h4><table>{rows}</table>"


def _fields(schema: Json) -> str:
    required = set(schema.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{_must(name in required)}</td><td>{_kind(field)}</td>"
        f"<td>{_described(field)}{_limits(field)}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    )
    return f"<table>{rows}</table>" if rows else "<p class=none>No fields.</p>"


def _described(field: Json) -> str:
    text: str = field.get("description", "")
    return prose(text) if "\n" in text else inline(text)


def _type(name: str, schema: Json) -> str:
    identity = f"type-{escape(name)}"
    shown = _fields(schema) if schema.get("type") == "object" else ""
    return (
        f'<article id="{identity}" class="type" {_search_data("", [name])}>'
        f'<h3><a href="#{identity}">{escape(name)}</a></h3>{prose(schema.get("description", ""))}{shown}</article>'
    )


def _refusals(responses: dict[str, Json]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(status)}</code></td><td>{inline(response['description'])}</td></tr>"
        for status, response in responses.items()
        if status not in {"200", "default"}
    )
    return f"<details><summary>Refusals</summary><table>{rows}</table></details>"


def _kind(schema: Json) -> str:
    if "$ref" in schema:
        return _type_link(schema)
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"map to {_kind(schema['additionalProperties'])}"
    if "anyOf" in schema and "type" not in schema:
        return "one of " + ", ".join(_kind(each) for each in schema["anyOf"])
    return escape(str(schema.get("format", schema.get("type", "anything"))))


def _type_link(schema: Json) -> str:
    name = schema["$ref"].rpartition("/")[2]
    return f'<a href="#type-{escape(name)}">{escape(name)}</a>'


def _limits(schema: Json) -> str:
    """The rules as short marks, without those that every 64-bit number has."""
    told = []
    for low, high, unit in _RANGES:
        if low in schema or high in schema:
            told.append(f"{schema.get(low, '')}…{schema.get(high, '')} {unit}".strip())
    if "pattern" in schema and schema.get("format") not in {"int64", "uint64"}:
        told.append(f"<code>{escape(schema['pattern'])}</code>")
    if "enum" in schema:
        told.append(" ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"]))
    if "default" in schema:
        told.append(f"default <code>{escape(str(schema['default']))}</code>")
    return f'<span class="limits">{" · ".join(told)}</span>' if told else ""


def _must(is_required: bool) -> str:  # noqa: FBT001 - one word in a table
    return '<b class="must" title="required">*</b>' if is_required else ""


def _badge(verb: str) -> str:
    return f'<b class="verb {verb}">{verb.upper()}</b>'


def _path(path: str) -> str:
    return re.sub(r"(\{[^}]+\})", r"<var>\1</var>", escape(path))


def _curl(verb: str, path: str, operation: Json, body: Json | None, components: dict[str, Json]) -> str:
    of_path = {each["name"]: each for each in operation["parameters"] if each["in"] == "path"}
    filled = re.sub(r"\{([^}]+)\}", lambda name: str(_of_path(of_path[name[1]], components)), path)
    lines = [f'curl -X {verb.upper()} "$SIYU{filled}"']
    if operation["security"]:
        lines.append('  -H "authorization: Bearer $TOKEN"')
    if body is not None:
        shown = json.dumps(sample(body, components), indent=2, ensure_ascii=False)
        lines.extend(["  -H 'content-type: application/json'", f"  -d '{shown}'"])
    return " \\\n".join(lines)


def _of_path(parameter: Json, components: dict[str, Json]) -> Any:
    return sample(parameter["schema"], components, name=parameter["name"].rpartition(".")[2])
