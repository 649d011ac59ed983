"""Bodies and answers, as the API's documentation describes them."""

from typing import Any

from pydantic import BaseModel, Field

from topgb.serving.bodies import JSON, NPY, PredictBody, TagChoice
from topgb.serving.problems import MEDIA_TYPE


class Health(BaseModel):
    """The server answers, and its models are loaded."""

    status: str


class FeatureEntry(BaseModel):
    """A feature: its values in a frame, how records store them, and which range its bytes stand for."""

    name: str
    size: int
    dtype: str
    range: tuple[float, float]


class ModelEntry(BaseModel):
    """A model. Its frames are its features' values joined in this order."""

    name: str
    classes: int
    features: list[FeatureEntry]
    level: str = Field(description="frame: many vectors a video; video: one.")
    max_frames: int = Field(description="The most frames of a video that it looks at.")
    thresholds: bool = Field(description="Whether its file says from which probability each class is given.")
    bytes: int = Field(description="The size of its file.")


class Models(BaseModel):
    """The models that the server holds."""

    models: list[ModelEntry]


class Tag(BaseModel):
    """A class and its probability."""

    class_: int = Field(alias="class")
    name: str
    probability: float


class Predictions(BaseModel):
    """The best classes of each video, best first."""

    model: str
    predictions: list[list[Tag]]
    warnings: list[str] | None = Field(None, description="What was left out or clipped, where anything was.")


class Thresholds(BaseModel):
    """The least probability at which each class is given, by class number; null where the file has none."""

    model: str
    thresholds: list[float] | None


class Stretch(BaseModel):
    """The tags of a part of a video, from `start` to `end` in seconds."""

    start: float
    end: float
    tags: list[Tag]


class TaggedVideo(BaseModel):
    """The tags of a video and of stretches of it; `path` is the client's name for its file."""

    path: str
    seconds: float = Field(description="Length of what was looked at.")
    tags: list[Tag]
    timeline: list[Stretch] = Field(description="Empty unless it was asked for.")
    remarks: list[str] | None = Field(None, description="Missing, damaged, clipped or left out, where anything was.")


class Tagged(BaseModel):
    """The videos of a file: one, or each record of a file of records."""

    model: str
    videos: list[TaggedVideo]


class Example(BaseModel):
    """A file to try, at `/v1/examples/` and its name."""

    name: str
    bytes: int


class Examples(BaseModel):
    """The files to try."""

    examples: list[Example]


class Problem(BaseModel):
    """An error (RFC 9457): `detail` says what is wrong and what to do."""

    type: str
    title: str
    status: int
    detail: str


_REASONS = {
    400: "The body is not what its type says.",
    401: "The token is missing or wrong.",
    403: "The request came by another name, or from another site's page.",
    404: "There is no such model.",
    408: "The body came too slowly.",
    413: "The body is too big.",
    415: "The body is of another type.",
    422: "A value is wrong.",
    429: "Too much is waiting; ask again after Retry-After seconds.",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": reason, "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}}
    for status, reason in _REASONS.items()
}


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    said = f"{schema.get('description', '')} Where the body is a .npy file."
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": said}


_CHOICES = {key: value for key, value in PredictBody.model_json_schema()["properties"].items() if key != "features"}
PREDICT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": PredictBody.model_json_schema()},
            NPY: {"schema": {"type": "string", "format": "binary", "description": "One array, saved by numpy.save."}},
        },
    },
    "parameters": [_query(name, schema) for name, schema in _CHOICES.items() if name != "encoding"],
}
_FILE = {"type": "string", "format": "binary", "description": "A video, a sound, .npy, .npz or .tfrecord."}
TAG: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": _FILE, **TagChoice.model_json_schema()["properties"]},
                }
            }
        },
    }
}
