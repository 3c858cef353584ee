"""A contract's pattern in words: who sends a wrong text is told what is allowed, and no regular expression."""

import re

_CHARACTERS = re.compile(r"\[(?P<each>[^\[\]^\\]+)\](?P<times>\{(?P<least>\d+)(?:,(?P<most>\d+))?\}|[+*])")
_GROUP = re.compile(r"\((.+)\)(\?)?")
_RANGE_OR_ONE = re.compile(r".-.|.")

_FORMS = {
    r"[\x21-\x7e]+": "printable ASCII characters without spaces",
    r"[^\x00-\x1f\x7f]*": "text without control characters",
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}": "a day such as 2017-03-06",
    r"[0-9]{1,2}(\.[0-9]{1,4})?|100": "a number from 0 to 100 with at most 4 decimals, such as 12.5",
    r"[0-9]{1,4}(\.[0-9]{1,4})?": "a number of at most 4 digits and 4 decimals, such as 1.5",
    r"[0-9]{1,9}(\.[0-9]{1,6})?": "a number of at most 9 digits and 6 decimals, such as 0.5",
    r"[a-z]+(\.[a-z_]+){1,3}": "2 to 4 words of a-z with '.' between them; '_' may stand in all but the first",
    r"[a-z_]+[.][a-z_]+": "2 words of a-z, '_' with '.' between them",
}
"""What consists of parts, by the pattern without its anchors."""


def words(pattern: str) -> str:
    """What a text must be to match, e.g. "must be 1 to 64 characters of A-Z, a-z, 0-9, '.', '_', '-'".

    Raises ValueError for a pattern that has no words here yet; the unit tests ask for those of every contract."""
    inner = pattern.removeprefix("^").removesuffix("$")
    group = _GROUP.fullmatch(inner)
    form = _form(group[1] if group else inner)
    if form is None:
        raise ValueError(f"{pattern} has no words yet")
    return f"must be empty or {form}" if group and group[2] else f"must be {form}"


def _form(inner: str) -> str | None:
    if inner in _FORMS:
        return _FORMS[inner]
    found = _CHARACTERS.fullmatch(inner)
    if found is None:
        return None
    each = (part if len(part) > 1 else f"'{part}'" for part in _RANGE_OR_ONE.findall(found["each"]))
    return f"{_how_many(found)}characters of {', '.join(each)}"


def _how_many(found: re.Match[str]) -> str:
    least, most = found["least"], found["most"]
    if least is None:
        return "1 or more " if found["times"] == "+" else ""
    if most is None:
        return f"{least} "
    return f"at most {most} " if least == "0" else f"{least} to {most} "
