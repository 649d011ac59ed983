"""Exported files give topgb's own probabilities in a process that cannot import topgb."""

import fcntl
import itertools
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import topgb
from export_both import export_both
from topgb.features import Feature, FeatureSpec
from topgb.modelfile import Header, Member, write_model_file
from topgb.modelfile.encodings import encode_plain
from topgb.modelfile.export.graph import ExportGraph
from topgb.modelfile.exported import exported_bytes
from topgb.modelfile.member import encode_member
from topgb.modelfile.packed_linear import PackedLinear
from topgb.modelfile.store import read_model_file, stored_model
from topgb.models import build_tagger, parse_model
from topgb.models.registry import aggregators, heads
from topgb.quantizing.schemes import Scheme, encode

pytestmark = pytest.mark.numeric

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

# Frames that a model looks at; the batches have more, fewer and one.
MAX_FRAMES = 12
COUNTS = ([1], [5, 2, 1, 5], [20, 11, 3])
# Of the ensembles' probabilities, to which a member gives a sixth at least.
TOLERANCE = 2e-6

ONE = FeatureSpec("frame", (Feature("rgb", 16),))
# Names that are attributes of modules, or no names in a graph.
ODD = FeatureSpec("frame", (Feature("keys", 6), Feature("a b/ü", 10, range=(-1.0, 3.0))))
FLOATS = FeatureSpec("video", (Feature("mean_rgb", 16, "float32"),))
SMALL = {"clusters": 4, "hidden": 8, "width": 8, "cells": 8, "groups": 2}
MEMORY = {"videos": 5, "labels": 8, "most_labels": 3, "neighbours": 3}

# Those whose decoding takes the most operations first.
SCHEMES = {
    **{f"groups, {bits} bits": Scheme("groups", bits) for bits in (7, 6, 5, 3, 4, 2, 8)},
    "int8": Scheme("int8"),
    "int8_zlib": Scheme("entropy", step=0.002),
    "codebook": Scheme("uniform"),
    "float16": Scheme("float16"),
    "float32": None,
}
# An export takes seconds, so several things share a file.
MIXED = {
    "ensemble": (
        {"aggregator": "netfv", "coupling": None, "gating": True, "head": {"name": "moe", "gating": "probabilities"}},
        {"aggregator": "average", "std": True, "features": ["a b/ü"], "normalization": "none", "head": "logistic"},
    ),
    "variants": (
        {"aggregator": "bigru", "reset": "after", "gating": True, "head": "logistic"},
        {"aggregator": "attention", "attend_to_padding": True, "head": "logistic"},
        {"aggregator": "average", "mixture": 2, "head": "logistic"},
    ),
    "every head": tuple(
        {
            "aggregator": "average",
            "head": {"name": name, **{key: MEMORY[key] for key in MEMORY if key in head.Options.model_fields}},
        }
        for name, head in heads().items()
    ),
}
SPECS = {"ensemble": ODD, "variants": ONE, "every head": FLOATS}
# A matrix in rows of no round length: the graph is little beside it, and topgb computes with it packed.
WIDE = FeatureSpec("frame", (Feature("rgb", 1051),))
WIDE_CLASSES = 1000
MEASURED = ("codebook", "int8", "int8_zlib", "groups, 4 bits")
# Packed matrices take inputs and products rounded to bfloat16, eight bits of a number; exported files take float32.
PACKED_TOLERANCE = 2e-3

RUNNER = """
import sys
sys.modules["topgb"] = None
from pathlib import Path
import numpy as np, onnxruntime, torch
from torch._inductor.constant_folding import constant_fold
try:
    import topgb
except ImportError:
    pass
else:
    raise SystemExit("topgb can be imported")
torch.set_num_threads(1)
exported, found = map(Path, sys.argv[1:])
for inputs in exported.glob("*.inputs.npz"):
    stem, arrays, outputs = str(inputs).removesuffix(".inputs.npz"), np.load(inputs), {}
    session = onnxruntime.InferenceSession(stem + ".onnx")
    program = torch.export.load(stem + ".pt2").module()
    batches = [(arrays[f"features{place}"], arrays[f"num_frames{place}"]) for place in range(len(arrays) // 2)]
    for place, (features, counts) in enumerate(batches):
        outputs[f"onnx{place}"], = session.run(["probabilities"], {"features": features, "num_frames": counts})
        outputs[f"pt2{place}"] = program(torch.from_numpy(features), torch.from_numpy(counts))
    constant_fold(program)
    for place, (features, counts) in enumerate(batches):
        outputs[f"folded{place}"] = program(torch.from_numpy(features), torch.from_numpy(counts))
    np.savez(found / inputs.name.replace("inputs", "outputs"), **outputs)
"""


def _section(section: dict) -> dict:
    options = aggregators()[section["aggregator"]].Options.model_fields
    return {**{key: value for key, value in SMALL.items() if key in options}, "max_frames": MAX_FRAMES, **section}


def _write(path: Path, sections, spec: FeatureSpec, classes: int, schemes: Sequence[Scheme | None]) -> None:
    torch.manual_seed(0)
    entries, tensors, members = {}, {}, []
    for place, section in enumerate(sections):
        tagger = build_tagger(spec, classes, parse_model(_section(section)))
        for name, buffer in tagger.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.02, 0.1)
            elif name.endswith("label_bounds"):
                buffer.copy_(torch.tensor([0, 2, 3, 3, 6, 8]))
            elif name.endswith("label_classes"):
                buffer.copy_(torch.arange(8) % classes)
        more_entries, more_tensors = encode_member(place, tagger.state_dict())
        entries, tensors = entries | more_entries, tensors | more_tensors
        members.append(Member((place + 1) / (len(sections) * (len(sections) + 1) / 2), tagger.config))
    for name, entry in list(entries.items()):
        scheme = schemes[int(name.split(".")[1])]
        if scheme is not None and len(entry.shape) > 1:
            entries[name], parts = encode(tensors.pop(name), scheme)
            tensors |= {name + suffix: part for suffix, part in parts.items()}
    names = tuple(f"class {index}" for index in range(classes))
    write_model_file(path, Header(spec, classes, tuple(members), entries, class_names=names), tensors)


def _batches(spec: FeatureSpec) -> list[tuple[np.ndarray, np.ndarray]]:
    numbers = np.random.default_rng(0)
    batches = []
    for counts in COUNTS:
        counts = np.array(counts) if spec.level == "frame" else np.ones(len(counts), np.int64)
        shape = (len(counts), counts.max(), spec.width)
        values = numbers.integers(0, 256, shape, dtype=np.uint8) if spec.all_bytes else numbers.normal(size=shape)
        batches.append((values if spec.all_bytes else values.astype(np.float32), counts))
    return batches


def _matrices(name: str) -> int:
    tagger = build_tagger(ONE, 7, parse_model(_section({"aggregator": name, "head": "logistic"})))
    return sum(value.dim() > 1 for value in tagger.state_dict().values())


def _families() -> dict:
    """Every aggregator, three to a file, each in another encoding.

    Those of many matrices get the encodings of few operations: an export's time is that of its operations.
    """
    pairs = list(zip(sorted(aggregators(), key=_matrices), itertools.cycle(SCHEMES.values())))
    cases = {}
    for first in range(0, len(pairs), 3):
        names, schemes = zip(*pairs[first : first + 3], strict=True)
        sections = [{"aggregator": name, "head": "logistic"} for name in names]
        cases[", ".join(names)] = (sections, ONE, 7, schemes)
    return cases


CASES = {
    **_families(),
    **{name: (sections, SPECS[name], 7, [None] * len(sections)) for name, sections in MIXED.items()},
    **{
        f"wide {name}": (({"aggregator": "average", "head": "logistic"},), WIDE, WIDE_CLASSES, [SCHEMES[name]])
        for name in MEASURED
    },
}


def _export_cases(folder: Path) -> None:
    for place, (sections, spec, classes, schemes) in enumerate(CASES.values()):
        path = folder / f"{place}.safetensors"
        _write(path, sections, spec, classes, schemes)
        export_both(path)
        batches = enumerate(_batches(spec))
        arrays = {
            f"{key}{i}": v for i, pair in batches for key, v in zip(("features", "num_frames"), pair, strict=True)
        }
        np.savez(folder / f"{place}.inputs.npz", **arrays)
    (folder / "complete").touch()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Every case's model file, exports and batches.

    An export takes minutes and is the same on every processor, so `make test-portable` names a folder for all its runs.
    """
    folder = Path(os.environ.get("TOPGB_EXPORTS") or tmp_path_factory.mktemp("exported"))
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            _export_cases(folder)
    return folder


@pytest.fixture(scope="module")
def outputs(folder, tmp_path_factory) -> Path:
    """What a process without topgb makes of every case's exports and batches."""
    outputs = tmp_path_factory.mktemp("outputs")
    done = subprocess.run([sys.executable, "-I", "-c", RUNNER, folder, outputs], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return outputs


@pytest.mark.parametrize("case", CASES)
def test_predictions_are_topgbs_own(folder, outputs, case):
    place = list(CASES).index(case)
    model = topgb.load(folder / f"{place}.safetensors", resident="full")
    found = np.load(outputs / f"{place}.outputs.npz")
    for batch, (features, counts) in enumerate(_batches(CASES[case][1])):
        expected = model.predict(features, counts)
        for way in ("onnx", "pt2", "folded"):
            np.testing.assert_allclose(found[f"{way}{batch}"], expected, rtol=0, atol=TOLERANCE, err_msg=way)


@pytest.mark.parametrize("scheme", MEASURED)
def test_wide_matrices_are_computed_in_float32(folder, outputs, scheme):
    place = list(CASES).index(f"wide {scheme}")
    path, found = folder / f"{place}.safetensors", np.load(outputs / f"{place}.outputs.npz")
    full, packed = topgb.load(path, resident="full"), topgb.load(path)
    assert any(isinstance(module, PackedLinear) for module in packed.loaded.modules())
    for batch, (features, counts) in enumerate(_batches(WIDE)):
        expected, rounded = full.predict(features, counts), packed.predict(features, counts)
        for way in ("onnx", "pt2", "folded"):
            np.testing.assert_allclose(found[f"{way}{batch}"], expected, rtol=0, atol=TOLERANCE, err_msg=way)
        np.testing.assert_allclose(rounded, expected, rtol=0, atol=PACKED_TOLERANCE)
        assert np.abs(rounded - expected).max() > TOLERANCE, "docs/export.md says that packed matrices are rounded"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_decodes_to_the_weights_that_topgb_has_in_full(tmp_path, scheme):
    path = tmp_path / "m.safetensors"
    _write(path, ({"aggregator": "average", "head": "logistic"},), WIDE, WIDE_CLASSES, [SCHEMES[scheme]])
    graph = ExportGraph(*read_model_file(path))
    full, packed = topgb.load(path, resident="full"), topgb.load(path)
    for features, counts in _batches(WIDE):
        with torch.no_grad():
            found = graph(torch.from_numpy(features), torch.from_numpy(counts)).numpy()
        np.testing.assert_allclose(found, full.predict(features, counts), rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(found, packed.predict(features, counts), rtol=0, atol=PACKED_TOLERANCE)


@pytest.mark.parametrize("scheme", MEASURED)
def test_the_file_is_as_small_as_the_model_file(folder, scheme):
    place = list(CASES).index(f"wide {scheme}")
    model_file = (folder / f"{place}.safetensors").stat().st_size
    if scheme == "int8_zlib":
        # Its codes are written as they are, a byte each.
        model_file = WIDE.width * WIDE_CLASSES
    assert (folder / f"{place}.onnx").stat().st_size < 1.05 * model_file
    # A program's graph takes some 60 KB here, whatever the weights.
    assert (folder / f"{place}.pt2").stat().st_size < 1.05 * model_file + 60_000


@pytest.mark.parametrize("case", CASES)
def test_sizes_are_told_before_an_export(folder, case):
    path = folder / f"{list(CASES).index(case)}.safetensors"
    told = exported_bytes(stored_model(path))
    for to, expected in told.items():
        found = path.with_suffix(f".{to}").stat().st_size
        # Weights and text are exact, the graph is an estimate: within a percent of files of a megabyte that are not
        # mostly graph, and of the small ones within a third of what is not weights.
        weights = min(found, sum(tensor.nbytes for tensor in read_model_file(path)[1].values()))
        allowed = 0.01 * found if found > 1_000_000 else 0.34 * (found - weights)
        assert abs(expected - found) <= allowed, f"{to}: {expected} for {found}"


def test_every_encoding_is_among_the_cases():
    assert {scheme for *_, schemes in CASES.values() for scheme in schemes} == set(SCHEMES.values())


def test_the_files_tell_what_they_take_and_give(folder):
    place = list(CASES).index("ensemble")
    model = onnx.load(folder / f"{place}.onnx")
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == [
        *["features", "num_frames"],
        "probabilities",
    ]
    told = {entry.key: entry.value for entry in model.metadata_props}["topgb"]
    extra = {"topgb": ""}
    torch.export.load(folder / f"{place}.pt2", extra_files=extra)
    assert extra["topgb"] == told
    header = read_model_file(folder / f"{place}.safetensors")[0]
    assert json.loads(told) == {
        "input": "stored",
        "classes": 7,
        "class_names": list(header.class_names),
        "features": json.loads(json.dumps(header.features.to_json())),
    }


def test_the_files_say_nothing_of_the_machine_they_were_made_on(folder):
    root = str(Path(topgb.__file__).parent).encode()
    for place in range(len(CASES)):
        with zipfile.ZipFile(folder / f"{place}.pt2") as archive:
            content = b"".join(archive.read(name) for name in archive.namelist())
        assert root not in content + (folder / f"{place}.onnx").read_bytes()
        assert b"stack_trace" not in content


def test_plain_values_are_those_of_the_model_file():
    from topgb.modelfile.encodings import values
    from topgb.modelfile.export.decoding import kept_parts, traced_values

    tensor = torch.randn(5, 77, generator=torch.Generator().manual_seed(0))
    for scheme in SCHEMES.values():
        entry, parts = encode_plain(tensor, "float32") if scheme is None else encode(tensor, scheme)
        assert torch.equal(traced_values(kept_parts(parts, entry, "x"), entry), values(parts, entry))
