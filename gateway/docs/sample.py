"""An example of a request, made from its schema: what must be there, with values that pass the rules."""

import re
from typing import Any

Schema = dict[str, Any]

MAX_DEPTH = 8
# By name where a name says more than a type.
_BY_NAME = {
    "requestId": "0199a3c4-7d1e-7000-8000-2b5f9c1d4e6a",
    "currencyCode": "CNY",
    "pointCurrency": "points",
    "storeId": "store-1",
    "sku": "tea-500g",
    "supplierId": "supplier-1",
    "channel": "pos",
    "timeZone": "Asia/Shanghai",
    "displayName": "Example",
    "otherMemberId": "0199a3c4-7d1e-7000-8000-000000000002",
    "validUntil": "2029-12-31T10:00:00Z",
    "percent": "100",
    "evidence": "ticket-1",
    # of an identifier, whose first kind is the phone number
    "value": "+8613800138000",
    "note": "counted again",
    "reason": "goodwill",
}
# What the contract does not demand and the services refuse, or take for something else, at its zero: a line of no
# units, a store that is closed, a phone number that finds nobody.
_ALSO = ("quantity", "active", "verified")
_UUID = "0199a3c4-7d1e-7000-8000-000000000001"
_CANDIDATES = ("example-1", "points", "pos", "CNY", "identity.read", "2026-01-31", "10", "1", "")


def sample(schema: Schema, components: dict[str, Schema], *, name: str = "", depth: int = 0) -> Any:
    """A value that the schema allows."""
    schema = resolved(schema, components)
    if "enum" in schema:
        return next((value for value in schema["enum"] if not value.endswith("_UNSPECIFIED")), schema["enum"][0])
    match schema.get("type"):
        case "object":
            return _object(schema, components, depth)
        case "array":
            return [sample(schema["items"], components, depth=depth + 1)]
        case "boolean":
            return True
        case "integer":
            return schema.get("minimum") or 1
        case "string":
            return _string(schema, name)
        case _:
            return None


def resolved(schema: Schema, components: dict[str, Schema]) -> Schema:
    """The schema behind a reference; what stands beside the reference counts more."""
    if "$ref" not in schema:
        return schema
    beside = {key: value for key, value in schema.items() if key != "$ref"}
    return {**components[schema["$ref"].rpartition("/")[2]], **beside}


def _object(schema: Schema, components: dict[str, Schema], depth: int) -> dict[str, Any]:
    if depth >= MAX_DEPTH:
        return {}
    properties: dict[str, Schema] = schema.get("properties", {})
    chosen = list(schema.get("required") or list(properties)[:3])
    chosen += [name for name in _ALSO if name in properties and name not in chosen]
    return {name: sample(properties[name], components, name=name, depth=depth + 1) for name in chosen}


def _string(schema: Schema, name: str) -> str:
    if schema.get("format") == "uuid":
        return _BY_NAME.get(name, _UUID)
    if schema.get("format") == "date-time":
        return _BY_NAME.get(name, "2026-01-31T10:00:00Z")
    if schema.get("format") in {"int64", "uint64"}:
        return "1"
    pattern = schema.get("pattern", "")
    candidates = (_BY_NAME[name], *_CANDIDATES) if name in _BY_NAME else _CANDIDATES
    return next((text for text in candidates if not pattern or re.search(pattern, text)), "")
