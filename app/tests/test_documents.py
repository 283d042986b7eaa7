"""The text of what people upload, and the reason where there is none."""

import asyncio
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from agent_service.core.problems import Problem
from agent_service.work.documents import CSV, PDF, TEXT, Document, media_type_of, text_of

LIMIT = 10_000


def pdf(*pages: str, password: str | None = None) -> bytes:
    writer = PdfWriter()
    for text in pages:
        page = writer.add_blank_page(width=300, height=300)
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode() if text else b"")
        font = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Helvetica"),
            }
        )
        page[NameObject("/Contents")] = writer._add_object(stream)
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): writer._add_object(font)})}
        )
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


def read(media_type: str, content: bytes, limit: int = LIMIT) -> str:
    return asyncio.run(text_of(Document("d", media_type, content), limit))


def refusal(media_type: str, content: bytes, limit: int = LIMIT) -> str:
    with pytest.raises(Problem) as caught:
        read(media_type, content, limit)
    assert 400 <= caught.value.status < 500
    return caught.value.code


def test_text_in_its_encodings() -> None:
    assert read(TEXT, "Olá, 안녕".encode()) == "Olá, 안녕"
    assert read(TEXT, b"\xef\xbb\xbfHi\r\nthere") == "Hi\nthere"
    assert read(TEXT, "Olá".encode("utf-16")) == "Olá"
    assert read(TEXT, "Preço".encode("cp1252")) == "Preço"
    assert read(TEXT, b"a\x00b") == "a\ufffdb"


def test_csv_rows_are_lines_whatever_separates_them() -> None:
    assert read(CSV, b'name;value\n"two\nlines";"1;5"\n') == "name | value\ntwo lines | 1;5"
    assert read(CSV, b"a,b\n1,2\n") == "a | b\n1 | 2"
    assert read(CSV, b"one column\n1\n") == "one column\n1"


def test_pdf_pages() -> None:
    assert read(PDF, pdf("Revenue 12", "Profit 3")).split() == ["Revenue", "12", "Profit", "3"]
    assert len(PdfReader(io.BytesIO(pdf("a", "b"))).pages) == 2


def test_why_there_is_no_text() -> None:
    assert refusal(PDF, pdf("Secret", password="open")) == "document-encrypted"
    assert refusal(PDF, pdf("")) == "document-without-text"
    assert refusal(PDF, b"%PDF-1.7 and then nothing") == "document-unreadable"
    assert refusal(PDF, pdf("Revenue 12")[:400]) in ("document-unreadable", "document-without-text")
    assert refusal(PDF, pdf("x" * 200), limit=50) == "document-too-long"
    assert refusal(TEXT, b"x" * 51, limit=50) == "document-too-long"
    assert refusal(TEXT, b" \n") == "document-without-text"


@settings(max_examples=300)
@given(st.sampled_from([TEXT, CSV]), st.binary(max_size=2000))
def test_any_bytes_are_text_or_a_refusal(media_type: str, content: bytes) -> None:
    try:
        text = read(media_type, content)
    except Problem as problem:
        assert 400 <= problem.status < 500
    else:
        assert text.strip()
        assert "\x00" not in text
        text.encode()


@pytest.mark.parametrize(
    ("name", "declared", "found"),
    [("a.pdf", "application/octet-stream", PDF), ("a.CSV", "", CSV), ("a", "text/plain; charset=utf-8", TEXT),
     ("a.md", "", TEXT)],
)  # fmt: skip
def test_kinds(name: str, declared: str, found: str) -> None:
    assert media_type_of(name, declared) == found


@pytest.mark.parametrize(("name", "declared"), [("a.exe", ""), ("pdf", ""), ("a", "image/png"), ("", "")])
def test_other_kinds_are_refused(name: str, declared: str) -> None:
    with pytest.raises(Problem) as caught:
        media_type_of(name, declared)
    assert caught.value.status == 415
