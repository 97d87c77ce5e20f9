"""One shape for every error: `{"detail": {"what": …, "why": …, "remedy": …}}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from .logs import logger
from .settings import RETRY_AFTER_SECONDS


class FieldProblem(BaseModel):
    """One field of a request that was refused."""

    field: str = Field(description="Where it is, from the outside in", examples=["body.connections.0.port"])
    problem: str = Field(examples=["Input should be less than or equal to 65535"])


class Problem(BaseModel):
    """What went wrong, why, and what to do about it."""

    what: str = Field(examples=["The request was not accepted"])
    why: str = Field(examples=["Redis at 127.0.0.1:6379/0 does not answer"])
    remedy: str = Field(examples=["Start Redis, then send the request again"])
    errors: list[FieldProblem] = Field(default=[], description="The refused fields (only with 422)")


class ErrorAnswer(BaseModel):
    """The body of every answer that is not a success."""

    detail: Problem


class ForwarderError(Exception):
    """An answer that is not a success.

    Args:
        status: The HTTP status.
        what: What failed.
        why: Why it failed.
        remedy: What the client can do.
        headers: Headers to send with the answer.
        errors: The refused fields.
    """

    def __init__(
        self,
        status: int,
        what: str,
        why: str,
        remedy: str,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[FieldProblem] = (),
    ) -> None:
        """Keep the parts of the answer."""
        super().__init__(f"{what}: {why}")
        self.status = status
        self.headers = dict(headers or {})
        self.problem = Problem(what=what, why=why, remedy=remedy, errors=list(errors))

    def answer(self) -> JSONResponse:
        """Return the error as a response."""
        detail = self.problem.model_dump(exclude_defaults=True)
        return JSONResponse({"detail": detail}, self.status, self.headers)


def unavailable(what: str, why: str, remedy: str, retry_after: int = RETRY_AFTER_SECONDS) -> ForwarderError:
    """Return a 503 with `Retry-After` (RFC 9110, section 10.2.3)."""
    return ForwarderError(503, what, why, remedy, {"Retry-After": str(retry_after)})


def wrong_value(name: str, value: str, right: Sequence[str]) -> ForwarderError:
    """Return a 404 for a route value that does not exist; it lists the right ones."""
    return ForwarderError(
        404, f"There is no {name} {value!r} on this route", f"{name} is one of: {', '.join(right)}", "Use one of them"
    )


def invalid(problems: Sequence[FieldProblem]) -> ForwarderError:
    """Return a 422 that names the refused fields."""
    why = "; ".join(f"{item.field}: {item.problem}" for item in problems[:5])
    more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
    return ForwarderError(
        422, "The request was refused", why + more, "Correct the named fields; /docs shows examples", errors=problems
    )


def _validation(_: Request, error: RequestValidationError) -> JSONResponse:
    """Answer 404 for a wrong route value, 422 for everything else. The refused values are not repeated: secrets."""
    problems = []
    for item in error.errors():
        place: tuple[Any, ...] = tuple(item["loc"])
        if place[:1] == ("path",) and item["type"] == "enum":
            expected = str(item["ctx"]["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
            return wrong_value(str(place[1]), str(item["input"])[:64], expected).answer()
        message = "This key is not known" if item["type"] == "extra_forbidden" else str(item["msg"])
        if item["type"] == "json_invalid":
            place, message = ("body",), "It is not valid JSON"
        problems.append(FieldProblem(field=".".join(map(str, place))[:256], problem=message[:256]))
    return invalid(problems).answer()


def _http(request: Request, error: HTTPException) -> JSONResponse:
    if error.status_code == 400:  # FastAPI's own answer to a body that is not even text
        return invalid([FieldProblem(field="body", problem="It is not JSON in UTF-8")]).answer()
    if error.status_code == 404:
        why, remedy = f"{request.url.path[:128]} is no route of the Forwarder", "/docs lists the routes"
    elif error.status_code == 405:
        why, remedy = f"{request.url.path[:128]} does not take {request.method}", "/docs names the right method"
    else:
        why, remedy = str(error.detail), "/docs shows how the route is used"
    return ForwarderError(error.status_code, "The request was refused", why, remedy, error.headers).answer()


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    logger.error("Unexpected error in %s %s", request.method, request.url.path, exc_info=error)
    return ForwarderError(
        500, "The request failed", "The frontend met an error of its own", "See GET /interaction/arti/logs/frontend"
    ).answer()


def install(app: FastAPI) -> None:
    """Give `app` the one error shape."""
    app.add_exception_handler(ForwarderError, lambda _, error: error.answer())  # type: ignore[attr-defined]
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


_MEANINGS = {
    401: "A token is wanted (`FORWARDER_TOKEN` is set) and none or another one was sent",
    404: "Unknown: the detail lists the right values, or says what was not found",
    409: "Not possible in the present state: the detail says what has to come first",
    413: "The body is larger than 256 KiB",
    422: "Refused: the detail names each field",
    503: "A part that is needed is away for now: try again after `Retry-After` seconds",
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI `responses` of a route for these statuses."""
    answers: dict[int | str, dict[str, Any]] = {}
    for status in sorted({401, 413, *statuses}):
        answers[status] = {"model": ErrorAnswer, "description": _MEANINGS[status]}
    if 503 in answers:
        seconds = {"description": "Seconds to wait", "schema": {"type": "integer"}}
        answers[503]["headers"] = {"Retry-After": seconds}
    return answers
