"""The base of every architecture's options: typed, closed and immutable."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from topgb.errors import InputError

Schema = TypeVar("Schema", bound=BaseModel)


class Options(BaseModel):
    """Settings of one aggregator or head, as a recipe states them. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def validate(schema: type[Schema], value: Any, path: str) -> Schema:
    """`value` as `schema`; the first thing wrong with it becomes an `InputError` that names the key."""
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        raise InputError(_sentence(error, schema, path)) from None


def _sentence(error: ValidationError, schema: type[BaseModel], path: str) -> str:
    first = error.errors()[0]
    key = ".".join([path, *(str(part) for part in first["loc"])]).strip(".")
    if first["type"] == "extra_forbidden":
        where = ".".join([path, *(str(part) for part in first["loc"][:-1])]).strip(".") or "the top level"
        known = _known_keys(schema, first["loc"][:-1])
        return f"unknown key {key!r}; {where} knows: {', '.join(known)}"
    if first["type"] == "missing":
        return f"{key!r} is missing; state it in the recipe or with --set {key}=…"
    message = first["msg"].removeprefix("Value error, ")
    return f"{key!r} is {first['input']!r}: {message[0].lower()}{message[1:]}"


def _known_keys(schema: type[BaseModel], location: tuple) -> list[str]:
    for part in location:
        annotation = schema.model_fields[part].annotation if part in schema.model_fields else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        nested = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not nested:
            return []
        schema = nested[0]
    return sorted(schema.model_fields)
