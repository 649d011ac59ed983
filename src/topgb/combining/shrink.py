"""Make the best mixture that fits a budget: which members, and at how many bits each."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from topgb.combining.ensemble import carry_over
from topgb.combining.parents import class_names, open_parents, origin, shared_extras
from topgb.combining.search import Mixture, QuantisedMember, best, frontier, search
from topgb.combining.shortlist import Shortlist, listed_scores, make_shortlist
from topgb.combining.weights import fit_listed
from topgb.errors import InputError
from topgb.evaluation.score import evaluate
from topgb.files import atomic_write, partial_name, refuse_existing, remove_dead_partials
from topgb.modelfile import Header, LoadedModel, Member, StoredModel, TensorEncoding, stored_model, write_model_file
from topgb.modelfile.encodings import decode
from topgb.modelfile.loaded import assemble, assemble_stored
from topgb.progress import SILENT, Progress
from topgb.quantizing.calibration import Calibration, calibrate
from topgb.quantizing.entropy import SLACK, Encoded, fewest_bits
from topgb.quantizing.quantize import MIN_ELEMENTS, QuantizeOptions, large_tensors, quantize, with_encoded
from topgb.quantizing.schemes import Scheme, encode
from topgb.records.dataset import Dataset
from topgb.tensors import load_tensors, save_tensors
from topgb.version import __version__

# Bits per weight at which each member is tried, entropy-coded.
BITS = (2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 7.0)
CPU = torch.device("cpu")
# This file in the folder of work says that only the mixture itself is still to be written.
_FINISHED = "finished"
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class Shrunk:
    """The result of `shrink`.

    member_names  the members to choose from: the file's path, and the member's number if the file has several
    frontier      the mixtures that are better than all smaller ones
    choice        the mixture that was written
    file_bytes    bytes of the written file
    gap           its GAP@20 on the data that the choice was made on, so a little too good
    """

    member_names: list[str]
    frontier: list[Mixture]
    choice: Mixture
    file_bytes: int
    gap: float


@dataclass(frozen=True)
class ShrinkOptions:
    """Options of `shrink`.

    work   folder that keeps quantised members and their scores for other budgets; None: a folder beside the file,
           removed at the end
    seed   divides the videos into halves to cross-validate the fitted weights
    force  overwrite what exists
    """

    work: Path | None = None
    seed: int = 0
    force: bool = False


DEFAULT_OPTIONS = ShrinkOptions()


@dataclass(frozen=True)
class _SingleMember:
    """One member of a parent as a file of its own: its header, and its stored tensors under `members.0.`."""

    name: str
    header: Header
    stored: dict[str, torch.Tensor]
    sha256: str
    member: int

    @property
    def key(self) -> str:
        return f"{self.sha256} {self.member}"

    def model(self) -> LoadedModel:
        return assemble(self.header, self.stored, self.name)


def parse_budget(text: str) -> int:
    """Bytes of `100MB` (10⁶ each), `1GiB` (2³⁰) or `5000000`. Raises `InputError` for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].upper() not in _UNITS:
        raise InputError(f"the budget is {text!r}; write it as 100MB, 1GiB or a number of bytes")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def shrink(
    models: Sequence[Path | StoredModel],
    budget: int,
    dataset: Dataset,
    out: Path,
    options: ShrinkOptions = DEFAULT_OPTIONS,
    progress: Progress = SILENT,
) -> Shrunk:
    """Write to `out` the best mixture found of members of `models` that takes `budget` bytes at most.

    Every member is quantised at each of `BITS`, calibrated on `dataset`, and scored on its labelled videos; then
    `search` mixes them, and weights are fitted. Quantised members and their scores are kept in a folder, so that a
    stopped call goes on when repeated. The result depends only on the files, the data, the budget and the seed. Raises
    `InputError` if models differ in features, classes or class names, a file cannot be read, `out` exists, or nothing
    fits.
    """
    kept = out.with_name(out.name + ".work")
    if options.work is None and out.exists() and (kept / _FINISHED).exists():
        _discard(kept, out)
    remove_dead_partials(out)
    refuse_existing(out, options.force, "a model")
    parents = _members(models)
    most_frames = max(parent.header.max_frames for parent in parents)
    if dataset.spec.level == "frame" and dataset.max_frames < most_frames:
        raise InputError(
            f"the records were opened for models of {dataset.max_frames} frames, and a member looks at {most_frames}; "
            "open them for all models together"
        )
    folder = kept if options.work is None else options.work
    shortlist, listed = _shortlist(parents, dataset, folder, progress)
    quantised: dict[tuple[int, float], QuantisedMember] = {}
    for number, parent in enumerate(parents):
        progress.say(f"member {number + 1} of {len(parents)}: {parent.name}")
        for bits, file in _quantised(parent, dataset, folder, progress):
            scores = _scores(file, shortlist, dataset, folder / f"{file.stem}-{listed}.safetensors", progress)
            quantised[number, bits] = QuantisedMember(number, bits, file.stat().st_size, scores)
    if not quantised:
        raise InputError(
            f"no member can be stored in {BITS[-1]:g} bits a weight, as their layers have few inputs; quantize one by "
            "another method instead"
        )
    progress.say("searching")
    walked = search(quantised, budget, shortlist.gap)
    if not walked:
        least = min(member.size for member in quantised.values())
        raise InputError(f"nothing fits {budget:,} bytes; the smallest member takes {least:,}; {folder} is kept")
    choice = best(walked)
    files = [_candidate_file(parents[number], bits, dataset, folder) for number, bits in choice.bits]
    scores = torch.stack([quantised[item].scores for item in choice.bits])
    weights = fit_listed(scores, shortlist, options.seed, progress)[0] if len(scores) > 1 else np.ones(1)
    header, tensors = _mixture([parents[number] for number, _ in choice.bits], files, choice, weights)
    if options.work is None:
        # Killed after this, the next call removes the folder, even if it finds `out` there and refuses to go on.
        with atomic_write(folder / _FINISHED):
            pass
    write_model_file(out, header, tensors, options.force)
    gap = evaluate(assemble(header, tensors, str(out)), dataset, CPU, progress).compute().gap
    if options.work is None:
        _discard(folder, out)
    return Shrunk([parent.name for parent in parents], frontier(walked), choice, out.stat().st_size, gap)


def _discard(folder: Path, out: Path) -> None:
    """Remove the folder of work for `out`. Killed here, the next writer of `out` removes the rest."""
    done = partial_name(out)
    os.rename(folder, done)
    shutil.rmtree(done, ignore_errors=True)


def _members(models: Sequence[Path | StoredModel]) -> list[_SingleMember]:
    """Every member of every file, each as a file of its own."""
    members = []
    files = open_parents(models, "shrink", least=1)
    for file in files:
        header = file.header
        for index, member in enumerate(header.members):
            prefix = f"members.{index}."
            entries = {f"members.0.{n[len(prefix) :]}": e for n, e in header.tensors.items() if n.startswith(prefix)}
            tensors = {f"members.0.{n[len(prefix) :]}": t for n, t in file.tensors.items() if n.startswith(prefix)}
            alone = Header(
                header.features,
                header.classes,
                (Member(1.0, member.model),),
                entries,
                class_names(files),
                extras=shared_extras(files),
            )
            name = str(file.path) if len(header.members) == 1 else f"{file.path}, member {index}"
            members.append(_SingleMember(name, alone, tensors, file.sha256, index))
    return members


def _shortlist(
    parents: list[_SingleMember], dataset: Dataset, folder: Path, progress: Progress
) -> tuple[Shortlist, str]:
    """The shortlist by the mean of all members, kept in `folder`, and the key that names its file."""
    known = _digest(*(parent.key for parent in parents), _data_key(dataset))
    file = folder / f"{known}-shortlist.safetensors"
    if not file.exists():
        made = make_shortlist([parent.model() for parent in parents], dataset, CPU, progress)
        save_tensors(file, {name: tensor.contiguous() for name, tensor in vars(made).items()})
    return Shortlist(**load_tensors(file)[0]), known


def _quantised(
    parent: _SingleMember, dataset: Dataset, folder: Path, progress: Progress
) -> Iterator[tuple[float, Path]]:
    """Quantise the member to each of `BITS` that its layers can reach, unless that is done; yields bits and file."""
    names = large_tensors(parent.header, MIN_ELEMENTS)
    fewest = fewest_bits(parent.header.tensors[name].shape for name in names)
    reachable = [bits for bits in BITS if bits + SLACK >= fewest]
    if len(reachable) < len(BITS):
        progress.say(f"{parent.name}: its layers have few inputs, and take {fewest:.2f} bits a weight at least")
    calibration: Calibration | None = None
    for bits in reachable:
        file = _candidate_file(parent, bits, dataset, folder)
        if not file.exists():
            calibration = calibration or calibrate(parent.model(), dataset, names, progress)
            _write_candidate(parent, bits, calibration, file, progress)
        yield bits, file


def _candidate_file(parent: _SingleMember, bits: float, dataset: Dataset, folder: Path) -> Path:
    return folder / f"{_digest(parent.key, str(bits), _data_key(dataset))}.safetensors"


def _write_candidate(
    parent: _SingleMember, bits: float, calibration: Calibration, file: Path, progress: Progress
) -> None:
    encoded = quantize(
        parent.header, parent.stored, QuantizeOptions("entropy", bits, min_elements=MIN_ELEMENTS), calibration, progress
    )
    encoded |= _halved(parent, encoded)
    write_model_file(file, *with_encoded(parent.header, parent.stored, encoded, {}), force=True)


def _halved(parent: _SingleMember, encoded: Encoded) -> Encoded:
    """The small tensors as float16, except those with values outside the normal range of float16."""
    limits = torch.finfo(torch.float16)
    halved: Encoded = {}
    for name in parent.header.tensors.keys() - encoded.keys():
        tensor = decode(parent.stored, parent.header.tensors[name], name)
        sizes = tensor.abs()[tensor != 0]
        if sizes.numel() == 0 or bool(((sizes >= limits.tiny) & (sizes <= limits.max)).all()):
            halved[name] = encode(tensor, Scheme("float16"))
    return halved


def _scores(file: Path, shortlist: Shortlist, dataset: Dataset, kept: Path, progress: Progress) -> torch.Tensor:
    if not kept.exists():
        model = assemble_stored(stored_model(file))
        save_tensors(kept, {"scores": listed_scores(model, shortlist, dataset, CPU, progress)})
    return load_tensors(kept)[0]["scores"]


def _mixture(
    parents: list[_SingleMember], files: list[Path], choice: Mixture, weights: np.ndarray
) -> tuple[Header, dict[str, torch.Tensor]]:
    entries: dict[str, TensorEncoding] = {}
    tensors: dict[str, torch.Tensor] = {}
    members: list[Member] = []
    made_of: list[dict[str, Any]] = []
    for parent, file, (_, bits), weight in zip(parents, files, choice.bits, weights.tolist(), strict=True):
        if weight == 0.0:
            continue
        carry_over(stored_model(file), len(members), entries, tensors)
        members.append(Member(weight, parent.header.members[0].model))
        made_of.append({"sha256": parent.sha256, "member": parent.member, "bits": bits, "weight": weight})
    first, made = parents[0].header, origin("shrink", made_of)
    header = Header(
        first.features, first.classes, tuple(members), entries, first.class_names, made, extras=first.extras
    )
    return header, tensors


def _data_key(dataset: Dataset) -> str:
    return json.dumps(dataset.fingerprint())


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join((__version__, *parts)).encode()).hexdigest()[:20]
