"""Import checkpoints of the 2018 system into model files, without TensorFlow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from topgb.errors import InputError, option
from topgb.files import refuse_existing
from topgb.from2018.checkpoint import TF1Checkpoint, open_checkpoint
from topgb.from2018.member import (
    COUNTERS,
    TOWER,
    ImportedMember,
    MemberVariables,
    member_variables,
    read_member,
    variable_of,
)
from topgb.from2018.merged import member_scopes, mixture_weights, settings_of_members
from topgb.from2018.settings import FLAGS_FILE, flags_beside
from topgb.from2018.shapes import VIDEO_MODELS, models_of_shapes
from topgb.modelfile.header import Header, Member, TensorEncoding
from topgb.modelfile.loaded import assemble
from topgb.modelfile.store import write_model_file
from topgb.version import __version__


@dataclass(frozen=True)
class Imported:
    """The result of `import_checkpoint`.

    header            the header that was written
    unknown           the checkpoint's variables that no part of the model uses
    without_averages  numbers of the members without moving averages, whose weights were taken instead
    """

    header: Header
    unknown: list[str]
    without_averages: list[int]


def import_checkpoint(
    prefix: Path,
    path: Path,
    use_ema: bool = False,
    settings: Mapping[str, Any] | None = None,
    force: bool = False,
    weights: Sequence[float] | None = None,
) -> Imported:
    """Write the model file of a TensorFlow 1 checkpoint of the 2018 system (`PREFIX.index`, `PREFIX.data-…`).

    The features come from `model_flags.json` beside the checkpoint, and so does the class of a single model. The class
    of a merged model and all sizes come from the variables. Variables stay as `quantize.py` stored them: codes with
    their codebook, or float16.

    use_ema   take the moving averages instead of the weights
    settings  what neither file nor variables say: 2018 flags (`dbof_pooling_method`, `model`), or options of `model`
              (`model.pooling`); with `model_1.` before it, a setting is for that merged model alone
    weights   shares of the merged models, which no checkpoint holds

    Raises `InputError` if the checkpoint cannot be read, or does not fit its classes, `settings` or `weights`.
    """
    refuse_existing(path, force, "a model")
    checkpoint = open_checkpoint(prefix)
    source = str(checkpoint.prefix)
    scopes = member_scopes(checkpoint)
    shares = mixture_weights(weights, scopes, source)
    members = _read_members(checkpoint, scopes, settings or {}, use_ema)
    _check_alike(members, source)
    unknown = _unused_variables(checkpoint, members)
    origin = {"software": f"topgb {__version__}", "imported": _origin(members, unknown)}
    entries, tensors = _named_in_full(members)
    header = Header(
        members[0].spec,
        members[0].classes,
        tuple(Member(share, member.config) for share, member in zip(shares, members, strict=True)),
        entries,
        origin=origin,
    )
    assemble(header, tensors, source)
    write_model_file(path, header, tensors, force)
    without = [place for place, member in enumerate(members) if use_ema and member.origin["weights"] == "raw"]
    return Imported(header, unknown, without)


def _read_members(
    checkpoint: TF1Checkpoint, scopes: list[str], settings: Mapping[str, Any], use_ema: bool
) -> list[ImportedMember]:
    beside = flags_beside(checkpoint.prefix)
    all_variables = [member_variables(checkpoint, scope, use_ema) for scope in scopes]
    if use_ema and not any(variables.averaged for variables in all_variables):
        raise InputError(f"{checkpoint.prefix} holds no moving averages; leave out {option('use_ema')}")
    hint = beside.get("model")
    if scopes != [""]:
        # The flags file beside a merged checkpoint is a copy of one member's.
        beside.pop("model", None)
    try:
        flags = [{**beside, **own} for own in settings_of_members(settings, scopes)]
    except InputError as error:
        raise InputError(f"{checkpoint.prefix}: {error}") from None
    models = _model_classes(checkpoint, scopes, flags, all_variables, hint)
    return [read_member(checkpoint, *member) for member in zip(scopes, models, flags, all_variables, strict=True)]


def _model_classes(
    checkpoint: TF1Checkpoint,
    scopes: list[str],
    flags: list[dict[str, Any]],
    variables: list[MemberVariables],
    hint: Any,
) -> list[str]:
    """The 2018 class of each member, from its settings or from its variables.

    A logistic regression has the same variables for averaged frames as for videos. Then the level that another member
    takes decides, or else the model in the flags file.
    """
    candidates = [
        (own["model"],) if "model" in own else models_of_shapes(part.shapes)
        for own, part in zip(flags, variables, strict=True)
    ]
    known = [model for model in (*(models[0] for models in candidates if len(models) == 1), hint) if _is_text(model)]
    frames = flags[0].get("frame_features", known[0] not in VIDEO_MODELS if known else None)
    models = []
    for scope, found in zip(scopes, candidates, strict=True):
        fitting = found if len(found) == 1 else [model for model in found if (model not in VIDEO_MODELS) == frames]
        if len(fitting) != 1 or not _is_text(fitting[0]):
            raise InputError(_unknown_class_message(checkpoint.prefix, scope, found))
        models.append(fitting[0])
    return models


def _is_text(model: Any) -> bool:
    return isinstance(model, str)


def _unknown_class_message(prefix: Path, scope: str, found: Sequence[str]) -> str:
    key = f"{scope.replace('/', '.')}model"
    if len(found) > 1:
        which = option("set", {key: "…"})
        return f"{prefix}: the variables under {scope}{TOWER} could be of {' or '.join(found)}; say {which}"
    if not scope:
        where = f"{prefix.parent / FLAGS_FILE} names no model, nor do the variables show one"
    else:
        unset = f"nor does {option('set')} name one"
        where = f"{prefix}: the variables of {scope[:-1]} show no class that topgb knows, {unset}"
    return f"{where}; give its 2018 class: {option('set', {key: 'NetVLADModelLF'})}"


def _check_alike(members: list[ImportedMember], source: str) -> None:
    first = members[0]
    for member in members[1:]:
        if member.spec.level != first.spec.level:
            raise InputError(
                f"{source}: {first.scope[:-1]} takes {first.spec.level} features and {member.scope[:-1]} "
                f"{member.spec.level} features; check the classes given with {option('set')}"
            )
        if member.classes != first.classes:
            raise InputError(
                f"{source}: {first.scope[:-1]} has {first.classes} classes and {member.scope[:-1]} has "
                f"{member.classes}; only models of the same classes can be mixed"
            )


def _named_in_full(members: list[ImportedMember]) -> tuple[dict[str, TensorEncoding], dict[str, torch.Tensor]]:
    """Encodings and stored tensors of all members by the names that they have in the file."""
    entries: dict[str, TensorEncoding] = {}
    tensors: dict[str, torch.Tensor] = {}
    for place, member in enumerate(members):
        for name, (entry, parts) in member.tensors.items():
            full = f"members.{place}.{name}"
            entries[full] = entry
            tensors |= {full + suffix: part for suffix, part in parts.items()}
    return entries, tensors


def _origin(members: list[ImportedMember], unknown: list[str]) -> dict[str, Any]:
    if not members[0].scope:
        return {**members[0].origin, "unknown": unknown}
    return {"members": [member.origin for member in members], "unknown": unknown}


def _unused_variables(checkpoint: TF1Checkpoint, members: list[ImportedMember]) -> list[str]:
    used = set[str]().union(*(member.used for member in members))
    counters = {member.scope + counter for member in members for counter in COUNTERS} | COUNTERS
    return sorted(name for name in checkpoint.names() if name not in counters and variable_of(name) not in used)
