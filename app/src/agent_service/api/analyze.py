"""Documents to analyse: taken with a task id at once, looked at by that."""

import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from agent_service.api.access import CallerAccess
from agent_service.api.background import ANALYZE, Background
from agent_service.api.problems import documented
from agent_service.api.schemas import SessionId, Text, UserId
from agent_service.core.problems import Problem
from agent_service.core.text import printable_text
from agent_service.work import analysis
from agent_service.work.analysis import Source
from agent_service.work.documents import media_type_of

NAME_CHARACTERS = 128

KeyHeader = Annotated[SessionId | None, Header(alias="Idempotency-Key")]

router = APIRouter(tags=["analyses"], responses=documented(404, 503))


def _one_of(**kinds: str) -> list[Any]:
    """What the validators below say of fields that exclude each other: for the document alone."""
    return [{"required": [name], "properties": {name: {"type": kind}}} for name, kind in kinds.items()]


class DocumentBody(BaseModel):
    """A document: its text, or the URL it is at."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"oneOf": _one_of(text="string", url="string")}
    )

    text: Text | None = None
    url: str | None = Field(default=None, max_length=2000)
    name: str | None = Field(default=None, min_length=1, max_length=NAME_CHARACTERS)

    @model_validator(mode="after")
    def _one_of_both(self) -> "DocumentBody":
        if (self.text is None) == (self.url is None):
            raise ValueError("needs either text or url")
        return self


class AnalyzeRequest(BaseModel):
    """One document as text or url, or several in documents."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "oneOf": _one_of(text="string", url="string", documents="array"),
            "examples": [{"text": "Revenue 2025: 1.2 million", "question": "How much was earned?"}],
        },
    )

    text: Text | None = None
    url: str | None = Field(default=None, max_length=2000)
    documents: list[DocumentBody] | None = Field(default=None, min_length=1)
    question: Text | None = Field(default=None, max_length=4000)
    user_id: UserId | None = None
    session_id: SessionId | None = None

    @model_validator(mode="after")
    def _some_document(self) -> "AnalyzeRequest":
        if [self.text, self.url, self.documents].count(None) != 2:
            raise ValueError("needs one of text, url and documents")
        return self


def _schema() -> dict[str, Any]:
    """In one piece: references of a part would not lead anywhere in the whole document."""
    schema = AnalyzeRequest.model_json_schema()
    documents = schema["properties"]["documents"]["anyOf"][0]
    documents["items"] = schema.pop("$defs")["DocumentBody"]
    return schema


class UploadFields(BaseModel):
    """What comes with files, each as a field of the form."""

    model_config = ConfigDict(extra="forbid")

    question: Text | None = Field(default=None, max_length=4000)
    user_id: UserId | None = None
    session_id: SessionId | None = None


class TaskResponse(BaseModel):
    task_id: str


class StatusResponse(BaseModel):
    task_id: str
    state: Literal["queued", "running", "done", "failed"]
    progress: float
    result: dict[str, Any] | None
    problem: dict[str, Any] | None
    created_at: AwareDatetime
    finished_at: AwareDatetime | None


@router.post(
    ANALYZE,
    status_code=202,
    responses=documented(415),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _schema()},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file"],
                        "properties": {
                            "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
                            **UploadFields.model_json_schema()["properties"],
                        },
                    },
                    "encoding": {"file": {"contentType": "text/plain, text/csv, application/pdf"}},
                },
            },
        }
    },
)
async def analyze(request: Request, access: CallerAccess, idempotency_key: KeyHeader = None) -> TaskResponse:
    background: Background = request.app.state.background
    pool = background.pool
    fields: AnalyzeRequest | UploadFields
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        fields, sources = await _uploaded(request, background)
    else:
        fields, sources = _sent(await request.body(), background)
    if len(sources) > background.settings.analyze_documents:
        raise Problem(
            422, "too-many-documents", f"One analysis may have {background.settings.analyze_documents} documents."
        )
    # Documents have bounds of their own: they are read in pieces.
    access.check_size(fields.question or "")
    user_id = access.acts_for(fields.user_id)
    await access.take(len(sources))
    accepted = analysis.Request(
        sources,
        fields.question,
        user_id,
        fields.session_id,
        request.scope["state"]["request_id"],
        idempotency_key,
    )
    task_id = await analysis.accept(pool, background.settings.release, accepted)
    request.scope["state"]["log"] = {"task_id": str(task_id)}
    return TaskResponse(task_id=str(task_id))


@router.get("/api/status/{task_id}")
async def status(
    request: Request, task_id: uuid.UUID, access: CallerAccess, user_id: Annotated[UserId | None, Query()] = None
) -> StatusResponse:
    background: Background = request.app.state.background
    return StatusResponse.model_validate(
        await analysis.status(background.pool, task_id, access.acts_for(user_id), access.own)
    )


def _sent(body: bytes, background: Background) -> tuple[AnalyzeRequest, list[Source]]:
    try:
        fields = AnalyzeRequest.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None
    documents = fields.documents or [DocumentBody(text=fields.text, url=fields.url)]
    sources = []
    for position, document in enumerate(documents, 1):
        name = _name(document.name or document.url or f"text {position}")
        if document.url is not None:
            background.fetcher.check(document.url)
            sources.append(Source(name, "", url=document.url))
        else:
            sources.append(analysis.source_of_text(document.text or "", name))
    return fields, sources


async def _uploaded(request: Request, background: Background) -> tuple[UploadFields, list[Source]]:
    parser = MultiPartParser(
        request.headers, request.stream(), max_files=background.settings.analyze_documents, max_fields=8
    )
    # Bounded already, so nothing need go to the host's disk.
    parser.spool_max_size = background.settings.analyze_max_bytes
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        reason = error.message if isinstance(error, MultiPartException) else "it cannot be parsed"
        raise Problem(400, "invalid-form", f"The body is not a form with files: {reason}") from None
    try:
        fields: dict[str, Any] = {}
        sources = []
        for key, value in form.multi_items():
            if isinstance(value, UploadFile):
                name = _name(value.filename or "document")
                media_type = media_type_of(name, value.content_type or "")
                sources.append(Source(name, media_type, content=await value.read()))
            else:
                fields[key] = value
        if not sources:
            raise Problem(
                422, "invalid-request", "file: is missing", errors=[{"field": "file", "reason": "is missing"}]
            )
        try:
            return UploadFields.model_validate(fields), sources
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from None
    finally:
        await form.close()


def _name(name: str) -> str:
    return " ".join(printable_text(name).split())[-NAME_CHARACTERS:] or "document"
