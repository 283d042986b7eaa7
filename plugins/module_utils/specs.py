"""What a variable may be: options as roles' argument specifications and meta/options.yml write them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TRUE_WORDS = frozenset({"yes", "on", "true", "y", "t", "1"})
FALSE_WORDS = frozenset({"no", "off", "false", "n", "f", "0"})
SECRET_MINIMUM = 16
PLACEHOLDER_PARTS = (
    "changeme",
    "changethis",
    "replaceme",
    "replacethis",
    "placeholder",
    "example",
    "yourkey",
    "yourapikey",
)
PLACEHOLDER_STARTS = ("password", "passw0rd", "secret", "default", "todo", "xxx")


@dataclass(frozen=True)
class Option:
    """One variable's specification; `owner` is the role or the playbook that has it."""

    name: str
    owner: str
    type: str = "str"
    required: bool = False
    default: Any = None
    choices: tuple[Any, ...] = ()
    elements: str = ""
    secret: bool = False
    description: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)


def read_options(owner: str, specification: Mapping[str, Any]) -> dict[str, Option]:
    """The options of one entry point, as argument_specs.yml has them under `options`."""
    options = {}
    for name, raw in specification.items():
        description = raw.get("description", "")
        options[name] = Option(
            name=name,
            owner=owner,
            type=raw.get("type", "str"),
            required=bool(raw.get("required", False)),
            default=raw.get("default"),
            choices=tuple(raw.get("choices") or ()),
            elements=raw.get("elements", ""),
            secret=bool(raw.get("no_log", False)),
            description=description if isinstance(description, str) else " ".join(description),
            options=read_options(owner, raw.get("options") or {}),
        )
    return options


def suggest(name: str, known: Iterable[str]) -> str:
    """The known name that `name` was most likely meant to be, or nothing."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.75)
    return close[0] if close else ""


def mismatch(option: Option, value: Any) -> str:
    """Why the value does not fit its option, without ever showing a secret; empty where it fits."""
    if value is None:
        return "" if option.default is None and not option.required else "is null"
    wrong = _wrong_type(option.type, value, option.secret)
    if wrong:
        return wrong
    if option.choices and not _chosen(option, value):
        return f"must be one of {', '.join(map(_word, option.choices))}{_shown(value, option.secret)}"
    if option.type == "list":
        return _wrong_elements(option, value)
    if option.type == "dict" and option.options:
        return _wrong_keys(option, value)
    return ""


def placeholder(value: str, *, minimum: int = 0) -> str:
    """Why a secret's value cannot be a real secret; empty where it can."""
    letters = re.sub(r"[^a-z0-9]", "", value.lower())
    if any(part in letters for part in PLACEHOLDER_PARTS) or letters.startswith(PLACEHOLDER_STARTS):
        return "is a placeholder"
    if re.fullmatch(r"<.*>", value.strip()) or "..." in value or re.search(r"(.)\1{5}", value):
        return "is a placeholder"
    if len(value) < minimum:
        return f"is shorter than {minimum} characters"
    return ""


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shown(value: Any, secret: bool) -> str:
    if secret:
        return ""
    text = repr(value) if not isinstance(value, str) else f"'{value}'"
    return f", not {text if len(text) <= 60 else text[:57] + '...'}"


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _wrong_type(kind: str, value: Any, secret: bool) -> str:
    fits = {
        "raw": lambda: True,
        "str": lambda: isinstance(value, (str, int, float)) and not isinstance(value, bool),
        "path": lambda: isinstance(value, str),
        "int": lambda: _is_integer(value),
        "float": lambda: _is_number(value),
        "bool": lambda: isinstance(value, bool) or str(value).strip().lower() in TRUE_WORDS | FALSE_WORDS,
        "list": lambda: _is_list(value),
        "dict": lambda: isinstance(value, Mapping),
    }[kind]
    if fits():
        return ""
    words = {
        "str": "a string",
        "path": "a path",
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "list": "a list",
        "dict": "a mapping",
    }
    return f"must be {words[kind]}{_shown(value, secret)}"


def _is_integer(value: Any) -> bool:
    if isinstance(value, (bool, float)):
        return False
    return isinstance(value, int) or (isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+\s*", value) is not None)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, (int, float)):
        return True
    return isinstance(value, str) and re.fullmatch(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)\s*", value) is not None


def _chosen(option: Option, value: Any) -> bool:
    chosen = value if option.type == "list" else [value]
    return all(str(one) in [str(choice) for choice in option.choices] for one in chosen)


def _wrong_elements(option: Option, value: Sequence[Any]) -> str:
    for position, element in enumerate(value, start=1):
        wrong = _wrong_type(option.elements or "raw", element, option.secret)
        if not wrong and option.options and isinstance(element, Mapping):
            wrong = _wrong_keys(option, element)
        if wrong:
            return f"entry {position} {wrong}"
    return ""


def _wrong_keys(option: Option, value: Mapping[str, Any]) -> str:
    for key in value:
        if key not in option.options:
            meant = suggest(str(key), option.options)
            return f"has an unknown key '{key}'" + (f"; did you mean '{meant}'?" if meant else "")
    for key, inner in option.options.items():
        if key not in value:
            if inner.required:
                return f"lacks its key '{key}'"
            continue
        wrong = mismatch(inner, value[key])
        if wrong:
            return f"key '{key}' {wrong}"
    return ""
