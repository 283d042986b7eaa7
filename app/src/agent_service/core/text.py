"""What text may enter the service, and what may be stored."""

import re

# Line feed and tab are text; other C0 and C1 control characters are not, nor is half of a surrogate pair.
_NO_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_NO_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def fault_in_text(text: str) -> str | None:
    """Say what the text may not contain, or None."""
    return _fault(_NO_TEXT.search(text))


def fault_in_name(name: str) -> str | None:
    """As for a text, and of one line."""
    return _fault(_NO_NAME.search(name))


def _fault(found: re.Match[str] | None) -> str | None:
    if not found:
        return None
    kind = "lone surrogate" if "\ud800" <= found.group() <= "\udfff" else "control character"
    return f"contains the {kind} U+{ord(found.group()):04X}"


def unix_lines(text: str) -> str:
    """Browsers send CR LF from a text field; one kind of line end is stored."""
    return text.replace("\r\n", "\n")


def storable(text: str) -> str:
    """Replace what PostgreSQL or UTF-8 cannot hold: NUL and lone surrogates."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def printable_text(text: str) -> str:
    """What is left of a text from a system that cannot be told to send another."""
    return _NO_TEXT.sub("\ufffd", unix_lines(text))
