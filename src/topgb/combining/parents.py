"""Parents are the model files that another one is made of: what they must share, and how its header names them."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from topgb.errors import InputError, TopgbWarning
from topgb.extractor_identity import difference, shown
from topgb.features import FeatureSpec
from topgb.modelfile import Header, StoredModel, stored_model
from topgb.modelfile.header import EXTRACTOR, SEGMENTS, THRESHOLDS
from topgb.modelfile.loaded import assemble_stored
from topgb.version import __version__


def open_parents(models: Sequence[Path | StoredModel], what: str, least: int = 2) -> list[StoredModel]:
    """Open the models, and check that all are sound and share feature spec, extractor, classes and class names.

    `what` is a verb for messages ("average"). A file without class names matches any names. A file that names no
    extractor matches any extractor, with a warning. Raises `InputError` if there are fewer than `least` models, one is
    broken or has a second stage, or two differ; the message names the difference.
    """
    if len(models) < least:
        raise InputError(f"only {len(models)} model is named; to {what} takes two at least")
    parents = [stored_model(model) for model in models]
    for parent in parents:
        if parent.header.reranker is not None:
            raise InputError(
                f"{parent.path} has a second stage, made for the mixture of its own members; to {what}, name the files "
                "it was made from, and make a second stage for the result"
            )
        # Decoding every weight finds a broken file.
        assemble_stored(parent)
        warn_of_dropped(parent)
    first = parents[0]
    first_named = next((parent for parent in parents if parent.header.class_names is not None), first)
    for parent in parents[1:]:
        refuse_difference(first, parent, _spec(first.header.features), _spec(parent.header.features))
        refuse_difference(first, parent, {"classes": first.header.classes}, {"classes": parent.header.classes})
        if parent.header.class_names is not None:
            refuse_difference(first_named, parent, _names(first_named.header), _names(parent.header))
    _check_extractors(parents)
    return parents


def warn_of_dropped(parent: StoredModel) -> None:
    """Warn if a parent has thresholds: they do not hold for a model made from it."""
    if THRESHOLDS in parent.header.extras:
        warnings.warn(
            f"the thresholds of {parent.path} are for its own probabilities, and are left out; topgb thresholds finds "
            "the new model's",
            TopgbWarning,
            stacklevel=4,
        )


def class_names(parents: Sequence[StoredModel]) -> tuple[str, ...] | None:
    """Class names of the first parent that has some, else None."""
    return next((parent.header.class_names for parent in parents if parent.header.class_names is not None), None)


def shared_extras(parents: Sequence[StoredModel]) -> dict[str, Any]:
    """The `extras` that hold for a new model of other probabilities.

    These are the extractor of the features, if any parent names it, and the segments, if all parents say the same.
    """
    found = (parent.header.extractor for parent in parents if parent.header.extractor is not None)
    identity = next(found, None)
    shared = {} if identity is None else {EXTRACTOR: identity}
    segments = parents[0].header.extras.get(SEGMENTS)
    if segments is not None and all(parent.header.extras.get(SEGMENTS) == segments for parent in parents):
        shared[SEGMENTS] = segments
    return shared


def _check_extractors(parents: Sequence[StoredModel]) -> None:
    saying = [parent for parent in parents if parent.header.extractor is not None]
    if not saying:
        return
    first, ours = saying[0], saying[0].header.extractor or {}
    for parent in saying[1:]:
        theirs = parent.header.extractor or {}
        how = difference(ours, theirs)
        if how is not None:
            raise InputError(
                f"the models take features of two extractors, {shown(ours)} in {first.path} and {shown(theirs)} in "
                f"{parent.path}: {how}; name models of one extractor"
            )
    for parent in parents:
        if parent.header.extractor is None:
            warnings.warn(
                f"{parent.path} does not say which extractor made the features it was trained on, so whether they are "
                f"those of {first.path}, {shown(ours)}, is not checked",
                TopgbWarning,
                stacklevel=4,
            )


def refuse_difference(a: StoredModel, b: StoredModel, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Raise `InputError` if `ours` (of model `a`) and `theirs` (of `b`) differ; it names the first key that does."""
    found = _difference(ours, theirs, "")
    if found is not None:
        key, one, other = found
        raise InputError(f"the models differ: {key} is {one} in {a.path}, {other} in {b.path}; name models that agree")


def origin(operation: str, parents: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A header's origin: the operation and the parents, without the parents' own origins, which their files hold."""
    return {"software": f"topgb {__version__}", "operation": operation, "parents": list(parents), **more}


def named(parent: StoredModel) -> dict[str, Any]:
    """How a header names a parent."""
    return {"sha256": parent.sha256}


def _spec(spec: FeatureSpec) -> dict[str, Any]:
    """The feature spec with one key per feature, so that messages name the feature that differs."""
    features = spec.to_json()["features"]
    names = ", ".join(feature["name"] for feature in features)
    return {"level": spec.level, "features": names} | {f"feature {f['name']!r}": f for f in features}


def _names(header: Header) -> dict[str, Any]:
    return {"name of class": {str(index): name for index, name in enumerate(header.class_names or ())}}


def _difference(ours: dict[str, Any], theirs: dict[str, Any], path: str) -> tuple[str, str, str] | None:
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        one, other = (value.get(key, "absent") for value in (ours, theirs))
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            return _difference(one, other, f"{path}{key} ")
        return f"{path}{key}", _short(one), _short(other)
    return None


def _short(value: Any) -> str:
    # A long value, such as a member's options where the other model has none, is cut.
    text = "null" if value is None else str(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 60 else text[:57] + "…"
