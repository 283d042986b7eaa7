"""The text of a document: plain text, CSV or PDF, or the reason why there is none."""

import asyncio
import csv
import io
import os
import sys
from dataclasses import dataclass

from agent_service.core.problems import Problem
from agent_service.core.text import printable_text
from agent_service.work import pdf

TEXT, CSV, PDF = "text/plain", "text/csv", "application/pdf"
PDF_SECONDS = 90

_BY_NAME = {".txt": TEXT, ".md": TEXT, ".text": TEXT, ".csv": CSV, ".pdf": PDF}
_BY_TYPE = {"text/plain": TEXT, "text/markdown": TEXT, "text/csv": CSV, "application/csv": CSV, "application/pdf": PDF}


@dataclass(frozen=True, slots=True)
class Document:
    name: str
    media_type: str
    content: bytes


def media_type_of(name: str, declared: str) -> str:
    """By what the sender says, else by the name's end; a Problem for what cannot be read."""
    declared = declared.partition(";")[0].strip().lower()
    found = _BY_TYPE.get(declared) or _BY_NAME.get(os.path.splitext(name.lower())[1])
    if found is None:
        raise Problem(415, "unsupported-document", "Send text (.txt, .md), CSV (.csv) or PDF (.pdf).")
    return found


async def text_of(document: Document, limit: int) -> str:
    match document.media_type:
        case "application/pdf":
            text = await _pdf(document.content, limit)
        case "text/csv":
            text = await asyncio.to_thread(_csv, _decoded(document.content))
        case _:
            text = _decoded(document.content)
    text = printable_text(text)
    if len(text) > limit:
        raise _too_long(limit)
    if not text.strip():
        raise Problem(422, "document-without-text", "The document has no text; a scan needs text recognition first.")
    return text


def _decoded(content: bytes) -> str:
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        # Every byte is some character of it: what spreadsheets still write.
        return content.decode("cp1252", "replace")


def _csv(text: str) -> str:
    """Rows as lines with the separator that the file uses; quoted line ends no longer look like rows."""
    try:
        dialect = csv.Sniffer().sniff(text[:8192], delimiters=",;\t|")
    except csv.Error:
        dialect = csv.excel
    try:
        rows = [" | ".join(" ".join(cell.split()) for cell in row) for row in csv.reader(io.StringIO(text), dialect)]
    except csv.Error as error:
        raise _unreadable("CSV") from error
    return "\n".join(row for row in rows if row.strip(" |"))


async def _pdf(content: bytes, limit: int) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", pdf.__file__, str(limit),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        # None of the service's secrets are for it.
        env={},
    )  # fmt: skip
    try:
        async with asyncio.timeout(PDF_SECONDS):
            output, _ = await process.communicate(content)
    except TimeoutError as error:
        raise _unreadable("PDF") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    match process.returncode:
        case 0:
            return output.decode()
        case pdf.ENCRYPTED:
            raise Problem(422, "document-encrypted", "The PDF needs a password.")
        case pdf.TOO_LONG:
            raise _too_long(limit)
        case _:
            raise _unreadable("PDF")


def _too_long(limit: int) -> Problem:
    return Problem(422, "document-too-long", f"A document may have {limit} characters of text.")


def _unreadable(kind: str) -> Problem:
    return Problem(422, "document-unreadable", f"The document cannot be read as {kind}.")
