"""Errors as `application/problem+json` (RFC 9457), each with one sentence."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Response

MEDIA_TYPE = "application/problem+json"
# For problems of which nobody knows when they will pass.
RETRY = {"retry-after": "1"}


class ProblemError(Exception):
    """An answer that refuses a request: its HTTP status, and a sentence that says what is wrong and what to do."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None):
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


def problem(status: int, detail: str) -> dict[str, Any]:
    """The members of a problem; its type is that of its status."""
    return {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}


def problem_bytes(status: int, detail: str) -> bytes:
    """A problem as JSON in ASCII."""
    return json.dumps(problem(status, detail)).encode()


def problem_response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """A problem as an answer."""
    return Response(problem_bytes(status, detail), status, dict(headers or {}), MEDIA_TYPE)
