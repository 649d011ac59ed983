"""Quantised 2018 checkpoints: their codes and float16 values stay, and predict what the 2018 graph made of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import topgb
from from2018 import tf_bundle as bundle
from from2018.checkpoints import (
    CLASSES,
    FRAMES,
    VIDEOS,
    flags_file,
    halved,
    quantised,
    random_tagger,
    restored,
    variables,
    with_variables,
    write_checkpoint,
)
from tolerances import assert_same_predictions
from topgb.errors import InputError
from topgb.from2018.flags import known_models
from topgb.from2018.importing import import_checkpoint
from topgb.from2018.shapes import VIDEO_MODELS
from topgb.modelfile import read_model_file
from topgb.modelfile.encodings import decode
from topgb.models import Tagger

pytestmark = pytest.mark.numeric

FLAGS = {
    "netvlad_cluster_size": 8,
    "netvlad_hidden_size": 16,
    "fv_cluster_size": 8,
    "fv_hidden_size": 16,
    "fv_couple_weights": False,
    "dbof_cluster_size": 16,
    "dbof_hidden_size": 16,
    "lstm_cells": 16,
}
TRANSFORMS = {"codebook": quantised, "float16": halved}


def _predicts(path: Path, tagger: Tagger) -> None:
    model = topgb.load(path)
    random = np.random.default_rng(3)
    spec = model.header.features
    features = random.integers(0, 256, (4, 9, spec.width), np.uint8)
    num_frames = np.array([9, 1, 4, 9], np.int32)
    if spec.level == "video":
        features, num_frames = random.normal(size=(4, 1, spec.width)).astype(np.float32), np.ones(4, np.int32)
    with torch.inference_mode():
        wanted = tagger.predict(torch.from_numpy(features), torch.from_numpy(num_frames))
    assert_same_predictions(model.predict(features, num_frames), wanted.numpy())


# The branched GRU's sizes are fixed and large; once is enough of it.
EVERY = [(m, e) for m in known_models() for e in TRANSFORMS if (m, e) != ("GRUbidirect_branchedBN", "float16")]


@pytest.mark.parametrize(("model", "encoding"), EVERY)
def test_every_class(model, encoding, tmp_path):
    spec = VIDEOS if model in VIDEO_MODELS else FRAMES
    tagger = random_tagger(model, FLAGS, spec, CLASSES)
    stored = TRANSFORMS[encoding](variables(tagger))
    prefix = write_checkpoint(tmp_path / "inference_model", stored, flags_file(model, spec))
    imported = import_checkpoint(prefix, tmp_path / "m.safetensors")
    assert imported.unknown == []
    header, tensors = read_model_file(tmp_path / "m.safetensors")
    suffix = {"codebook": "_quants", "float16": "float16"}[encoding]
    found = [entry.encoding for entry in header.tensors.values()]
    assert found.count(encoding) == sum(name.endswith(suffix) for name in stored) > 0
    assert set(found) == {encoding, "float32"}
    tagger = with_variables(tagger, restored(stored))
    for name, value in tagger.state_dict().items():
        full = f"members.0.{name}"
        assert torch.equal(decode(tensors, header.tensors[full], full), value)
    _predicts(tmp_path / "m.safetensors", tagger)


def test_codes_and_codebook_are_those_of_the_checkpoint(tmp_path):
    stored = quantised(variables(random_tagger("NetVLADModelLF", FLAGS)))
    prefix = write_checkpoint(tmp_path / "m", stored, flags_file("NetVLADModelLF"))
    import_checkpoint(prefix, tmp_path / "out")
    _, tensors = read_model_file(tmp_path / "out")
    name = "members.0.aggregator.hidden.weight"
    np.testing.assert_array_equal(tensors[f"{name}.codes"].numpy(), stored["hidden1_weights_quants"].T)
    np.testing.assert_array_equal(tensors[f"{name}.codebook"].numpy(), stored["hidden1_weights_space"])


def test_codebooks_and_half_precision_side_by_side(tmp_path):
    values = variables(random_tagger("Lstmbidirect", FLAGS))
    kernel = next(name for name in values if name.endswith("fw/multi_rnn_cell/cell_0/basic_lstm_cell/kernel"))
    stored = {**halved({k: v for k, v in values.items() if k != kernel}), **quantised({kernel: values[kernel]})}
    prefix = write_checkpoint(tmp_path / "m", stored, flags_file("Lstmbidirect"))
    header = import_checkpoint(prefix, tmp_path / "out").header
    assert {entry.encoding for entry in header.tensors.values()} == {"codebook", "float16", "float32"}
    _predicts(tmp_path / "out", with_variables(random_tagger("Lstmbidirect", FLAGS), restored(stored)))


@pytest.mark.parametrize("transform", TRANSFORMS.values())
def test_quantised_moving_averages(transform, tmp_path):
    """quantize.py looked only at a variable's size: in a training checkpoint it took averages and moments too."""
    raw, averaged = (variables(random_tagger("NetVLADModelLF", FLAGS, seed=seed)) for seed in (1, 2))
    shadows = {f"{name}/ExponentialMovingAverage": value for name, value in averaged.items()}
    slots = {f"{name}/Adam": np.full_like(value, 7) for name, value in raw.items()}
    stored = transform({**raw, **shadows, **slots})
    others = {"global_step": np.array(31, np.int32), **{f"tower/{name}": value for name, value in stored.items()}}
    prefix = write_checkpoint(tmp_path / "m", {}, flags_file("NetVLADModelLF"), others=others)
    for use_ema, values in ((False, raw), (True, averaged)):
        imported = import_checkpoint(prefix, tmp_path / f"{use_ema}", use_ema)
        assert (imported.unknown, imported.without_averages) == ([], [])
        wanted = restored(transform(values)) if transform is halved else _without_suffix(restored(stored), use_ema)
        _predicts(tmp_path / f"{use_ema}", with_variables(random_tagger("NetVLADModelLF", FLAGS), wanted))


def _without_suffix(values: dict[str, np.ndarray], averages: bool) -> dict[str, np.ndarray]:
    end = "/ExponentialMovingAverage"
    return {name.removesuffix(end): value for name, value in values.items() if name.endswith(end) == averages}


def test_averages_beside_quantised_weights(tmp_path):
    """Which of them is quantised makes no difference to what is taken."""
    raw, averaged = (variables(random_tagger("LstmModel", FLAGS, seed=seed)) for seed in (1, 2))
    prefix = write_checkpoint(tmp_path / "m", quantised(raw), flags_file("LstmModel"), shadows=averaged)
    header = import_checkpoint(prefix, tmp_path / "ema", use_ema=True).header
    assert {entry.encoding for entry in header.tensors.values()} == {"float32"}
    _predicts(tmp_path / "ema", with_variables(random_tagger("LstmModel", FLAGS), averaged))


def test_unknown_quantised_variables_are_listed(tmp_path):
    others = {
        "tower/extra/weights_quants": np.ones((2, 2), np.uint8),
        "tower/extra/weights_space": np.ones(3, np.float32),
        "elsewherefloat16": np.ones(3, np.float16),
    }
    values = variables(random_tagger("LstmModel", FLAGS))
    prefix = write_checkpoint(tmp_path / "m", values, flags_file("LstmModel"), others=others)
    assert import_checkpoint(prefix, tmp_path / "out").unknown == sorted(others)


def _other(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, np.ndarray]], None]:
    def spoil(stored: dict[str, np.ndarray]) -> None:
        stored[name] = change(stored[name])

    return spoil


CODES, BOOK = "hidden1_weights_quants", "hidden1_weights_space"
# What is done to the stored variables, and words of the sentence that says so.
SPOILT: dict[str, tuple[Callable[[dict[str, np.ndarray]], object], str]] = {
    "no codebook": (lambda s: s.pop(BOOK), f"the codes 'tower/{CODES}' have no codebook 'tower/{BOOK}'"),
    "no codes": (lambda s: s.pop(CODES), f"the codebook 'tower/{BOOK}' has no codes 'tower/{CODES}'"),
    "values too": (
        lambda s: s.update(hidden1_weights=np.ones((116, 16), np.float32)),
        "the variable 'tower/hidden1_weights' is stored in several ways, as 'tower/hidden1_weights', ",
    ),
    "float16 too": (
        lambda s: s.update(hidden1_weightsfloat16=np.ones((116, 16), np.float16)),
        f"in several ways, as 'tower/{CODES}', 'tower/{BOOK}', 'tower/hidden1_weightsfloat16'; leave one of them",
    ),
    "codes beyond": (_other(BOOK, lambda a: a[:-50]), f"codebook 'tower/{BOOK}' has 150 values"),
    "an empty codebook": (_other(BOOK, lambda a: a[:0]), "has 0 values"),
    "a long codebook": (
        _other(BOOK, lambda a: np.tile(a, 2)),
        f"'tower/{BOOK}' is float32 [400], not up to 256 floats",
    ),
    "a codebook of rows": (_other(BOOK, lambda a: a[None]), "is float32 [1, 200], not up to 256"),
    "a codebook of a number": (_other(BOOK, lambda a: a[0]), "is float32 [], not up to 256"),
    "a codebook of codes": (_other(BOOK, lambda a: a.astype(np.uint8)), "is uint8 [200], not up to 256"),
    "NaN": (_other(BOOK, lambda a: np.append(a, np.float32(np.nan))), f"'tower/{BOOK}' has values that are not finite"),
    "too large for float32": (_other(BOOK, lambda a: a.astype(np.float64) + 1e300), "values that are not finite"),
    "codes of int32": (_other(CODES, lambda a: a.astype(np.int32)), f"'tower/{CODES}' are int32, not uint8"),
    "codes of int8": (_other(CODES, lambda a: (a % 100).astype(np.int8)), "are int8, not uint8"),
    "codes of float": (_other(CODES, lambda a: a.astype(np.float32)), "are float32, not uint8"),
    "another size": (_other("gates/weights_quants", lambda a: a[:-1]), "is [15, 75], but the model needs [16, 75]"),
    "a single code": (_other("gates/weights_quants", lambda a: a[0, 0]), "'gates/weights' is a single number"),
    "a negative variance": (
        lambda s: s.update(quantised({"input_bn/moving_variance": s.pop("input_bn/moving_variance") - 1}, 1)),
        "'input_bn/moving_variance' has a negative variance",
    ),
    "a float16 of float32": (
        lambda s: s.update({"experts/biasesfloat16": s.pop("experts/biases")}),
        "'tower/experts/biasesfloat16' holds float32 values, but its name says float16",
    ),
    "a float16 of NaN": (
        lambda s: s.update({"experts/biasesfloat16": s.pop("experts/biases").astype(np.float16) * np.float16(np.nan)}),
        "'experts/biases' has values that are not finite",
    ),
    "a variance below 0 in float16": (
        lambda s: s.update(halved({"input_bn/moving_variance": -s.pop("input_bn/moving_variance")}, 1)),
        "'input_bn/moving_variance' has a negative variance",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_variable(case, tmp_path):
    spoil, words = SPOILT[case]
    stored = quantised(variables(random_tagger("NetVLADModelLF", FLAGS)))
    spoil(stored)
    stored = {name: np.asarray(value) for name, value in stored.items()}
    prefix = write_checkpoint(tmp_path / "m", stored, flags_file("NetVLADModelLF"))
    with pytest.raises(InputError) as raised:
        import_checkpoint(prefix, tmp_path / "out")
    message = str(raised.value)
    assert words in message
    assert message.startswith(str(prefix))
    assert message.count(str(prefix)) == 1
    assert "\n" not in message
    assert not (tmp_path / "out").exists()


def test_codes_that_a_codebook_lacks_only_where_no_model_reads_them(tmp_path):
    """A part that the model does not have is not read, so what is wrong with it does no harm."""
    others = {"tower/extra_quants": np.full(3, 9, np.uint8), "tower/extra_space": np.ones(2, np.float32)}
    values = variables(random_tagger("LstmModel", FLAGS))
    prefix = write_checkpoint(tmp_path / "m", values, flags_file("LstmModel"), others=others)
    assert import_checkpoint(prefix, tmp_path / "out").unknown == list(others)


def test_a_damaged_codebook(tmp_path):
    prefix = write_checkpoint(
        tmp_path / "m", quantised(variables(random_tagger("LstmModel", FLAGS))), flags_file("LstmModel")
    )
    data = bundle.data_path(prefix)
    raw = bytearray(data.read_bytes())
    for position in range(0, len(raw), 100):
        raw[position] ^= 1
    data.write_bytes(raw)
    with pytest.raises(InputError, match="does not match its CRC"):
        import_checkpoint(prefix, tmp_path / "out")
