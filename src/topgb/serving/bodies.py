"""Bodies of `/v1/predict`: JSON, or one `.npy` file."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from topgb.errors import InputError, printable
from topgb.json_reading import parse_json
from topgb.packing.arrays import read_header
from topgb.serving.problems import ProblemError

JSON = "application/json"
NPY = "application/octet-stream"
# A longer text would hold up all other requests while it is read.
MOST_JSON = 16 << 20
# Most videos of one request.
MOST_VIDEOS = 128
_SHAPES = "[frames, values] or [videos, frames, values]"
Kind = TypeVar("Kind", bound=BaseModel)
_DTYPES = ("uint8", "float16", "float32", "float64")


class Choice(BaseModel):
    """How to answer: by which model, and which classes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = Field(None, description="The name of a model; the first of /v1/models if it is left out.")
    top: int | None = Field(5, ge=1, description="How many classes to give at most; null gives all.")
    threshold: float | Literal["model"] | None = Field(
        None, description='The least probability of a class that is given, or "model": the model\'s own for each class.'
    )


class TagChoice(Choice):
    """How to answer for a file, and of how long stretches of it."""

    timeline: float | None = Field(None, gt=0, description="Seconds of a stretch; each gets tags of its own.")


class PredictBody(Choice):
    """The features of one video, [T][D], or of several, [B][T][D]: T frames of D values each."""

    features: list[Any] = Field(
        description="Numbers: [T][D], or [B][T][D] for several videos, of any lengths.",
        json_schema_extra={"minItems": 1},
    )
    encoding: Literal["float", "bytes"] = Field(
        "float",
        description="float: values as they were computed; bytes: whole numbers 0 to 255, as records store them.",
    )


@dataclass(frozen=True)
class Asked:
    """A request: what to choose, and the videos as `topgb.Model.predict` takes them."""

    choice: Choice
    videos: Any


def from_json(body: bytes) -> Asked:
    """The request in a JSON body. Raises `ProblemError` 400 if it is not JSON, `InputError` if a value is wrong."""
    try:
        value = parse_json(body, len(body))
    except ValueError as error:
        raise ProblemError(400, f"the body is not JSON ({printable(str(error))[:120]}); send an object") from None
    asked = _validated(PredictBody, value)
    return Asked(asked, _array(asked.features, asked.encoding))


def from_npy(body: bytes, query: Mapping[str, str]) -> Asked:
    """The request of an `.npy` body, whose choices are in the query.

    Arrays of uint8 hold bytes as records store them, others values. Raises `ProblemError` 400 if the body is no `.npy`
    file, `InputError` where the array or a choice is wrong.
    """
    return Asked(from_texts(Choice, query), _npy(body))


def from_texts(kind: type[Kind], texts: Mapping[str, str]) -> Kind:
    """The choices in a query string or a form. Raises `InputError` where one is wrong."""
    given: dict[str, Any] = {key: text for key, text in texts.items() if text}
    if "top" in given:
        given["top"] = None if given["top"] == "all" else _number(given["top"], int)
    if given.get("threshold") not in (None, "model"):
        given["threshold"] = _number(given["threshold"], float)
    if "timeline" in given:
        given["timeline"] = _number(given["timeline"], float)
    return _validated(kind, given)


def _number(text: str, kind: type[int] | type[float]) -> Any:
    try:
        return kind(text)
    except ValueError:
        # The check of the choices says what is wrong.
        return text


def _validated(kind: type[Kind], value: Any) -> Kind:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = first["loc"][0] if first["loc"] else "the body"
        if first["type"] == "extra_forbidden":
            raise InputError(f"{printable(str(where))[:60]!r} is no field of a request; see /docs") from None
        raise InputError(f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}; see /docs") from None


def _array(features: list[Any], encoding: str) -> Any:
    """JSON lists as arrays: one of [T, D], or a list of these."""
    depth, inner = 0, features
    while isinstance(inner, list) and inner and depth < 4:
        depth, inner = depth + 1, inner[0]
    if depth not in (2, 3) or isinstance(inner, list):
        raise InputError(f'"features" must be lists of numbers, {_SHAPES}, with one frame at least')
    if depth == 2:
        return _frames(features, encoding)
    _check_count(len(features))
    return [_frames(video, encoding) for video in features]


def _frames(rows: Any, encoding: str) -> np.ndarray:
    try:
        array = np.array(rows)
    except ValueError:
        array = np.array(None)
    if array.ndim != 2 or array.dtype.kind not in "iuf":
        raise InputError('"features" must hold frames with equal numbers of values, all of them numbers')
    if encoding == "float":
        return array.astype(np.float64)
    if array.dtype.kind == "f" or array.min(initial=0) < 0 or array.max(initial=0) > 255:
        raise InputError('"encoding": "bytes" wants whole numbers from 0 to 255')
    return array.astype(np.uint8)


def _npy(body: bytes) -> np.ndarray:
    file = io.BytesIO(body)
    try:
        shape, fortran_order, dtype = read_header(file)
    except Exception as error:
        # NumPy's parser of headers raises errors without a common base class.
        reason = printable(" ".join(str(error).split()))[:80]
        raise ProblemError(400, f"the body is not a .npy file ({reason}); save the array with numpy.save") from None
    if dtype.newbyteorder("=").name not in _DTYPES:
        raise InputError(f"the array holds {str(dtype)[:40]}; send one of {', '.join(_DTYPES)}")
    if len(shape) not in (1, 2, 3) or min(shape) < 0:
        raise InputError(f"the array has the shape {list(shape)}; send {_SHAPES}")
    wanted, held = prod(shape) * dtype.itemsize, len(body) - file.tell()
    if wanted != held:
        raise ProblemError(400, f"the array has {wanted:,} bytes of values by its header, and {held:,} came; send all")
    if len(shape) == 3:
        _check_count(shape[0])
    values = np.frombuffer(body, dtype, prod(shape), file.tell()).reshape(shape, order="F" if fortran_order else "C")
    return values.astype(dtype.newbyteorder("="), copy=False)


def _check_count(videos: int) -> None:
    if videos > MOST_VIDEOS:
        raise InputError(f"a request may have {MOST_VIDEOS} videos, and this has {videos:,}; ask in several")
    if not videos:
        raise InputError("the request has no video; send one at least")
