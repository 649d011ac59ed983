"""The base of every architecture's options: typed, closed and immutable."""

import difflib
import reprlib
from collections.abc import Collection
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from topgb.errors import InputError, option

Schema = TypeVar("Schema", bound=BaseModel)


class Options(BaseModel):
    """Settings of one aggregator or head, as a recipe states them. Unknown keys and numbers not finite are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def validate(
    schema: type[Schema], value: Any, path: str, if_missing: str | None = None, also: Collection[str] = ()
) -> Schema:
    """`value` as `schema`. Raises `InputError` naming the key of the first fault.

    `if_missing` is the advice for a missing key; None advises to state the key in the recipe. `also` are further keys
    that are known in this place, to be named where one is not.
    """
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        raise InputError(_sentence(error.errors(), schema, value, path, if_missing, also)) from None


def _sentence(
    errors: list[ErrorDetails],
    schema: type[BaseModel],
    value: Any,
    path: str,
    if_missing: str | None,
    also: Collection[str],
) -> str:
    first = errors[0]
    location = _keys(first, value)
    key = ".".join([path, *location]).strip(".")
    if first["type"] == "extra_forbidden":
        where = ".".join([path, *location[:-1]]).strip(".") or "the top level"
        known = sorted({*_known_keys(schema, first["loc"][:-1]), *(also if len(location) == 1 else ())})
        return f"unknown key {key!r}{or_meant(location[-1], known)} {where} knows: {', '.join(known)}"
    if first["type"] == "missing":
        in_recipe = f"state it in the recipe or with {option('set', {key: '…'})}"
        return f"{key!r} is missing; {if_missing or in_recipe}"
    # A value that may have several types has one error for each type.
    messages = dict.fromkeys(_message(error) for error in errors if _keys(error, value) == location)
    message = " or ".join(messages).replace(" or input should be ", " or ")
    return f"{key!r} is {reprlib.repr(first['input'])}: {message}" if key else message


def or_meant(key: str, known: list[str]) -> str:
    """The question in a message that says that `key` is not known; empty if none of the known keys is like it."""
    meant = _meant(key, known)
    return f"; did you mean {meant!r}?" if meant else ";"


def _meant(key: str, known: list[str]) -> str | None:
    """The known key that is spelled like `key`, or is a word of it, as 2018's flags have: `netvlad_cluster_size`."""
    close = difflib.get_close_matches(key, known, 1)
    words = set(key.lower().split("_"))
    within = [name for name in known if words & {name, name.removesuffix("s")}]
    return next(iter(close or within), None)


def _message(error: ErrorDetails) -> str:
    if error["type"] in ("model_type", "dict_type"):
        return "input should be a mapping"
    message = error["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _keys(error: ErrorDetails, value: Any) -> list[str]:
    """The keys of `value` that lead to an error; pydantic puts the names of a union's types between them."""
    keys = []
    for part in error["loc"]:
        if part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int):
            value = value[part]
        elif error["type"] != "missing" or part != error["loc"][-1]:
            continue
        keys.append(str(part))
    return keys


def _known_keys(schema: type[BaseModel], location: tuple) -> list[str]:
    for part in location:
        # Indices of a list and keys of a mapping do not change the schema.
        annotation = schema.model_fields[part].annotation if part in schema.model_fields else schema
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        schema = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), schema)
    return sorted(schema.model_fields)
