"""The model-file loader on any bytes: safetensors' header, topgb's, every encoding, and one prediction."""

from pathlib import Path
from unittest import mock

import numpy as np

import topgb
from fuzz import repair
from fuzz.bombs import zlib_bomb
from fuzz.choices import Choices
from fuzz.modelfile_bases import file_bytes, joined, make_bases
from fuzz.modelfile_edits import edited
from fuzz.modelfile_parts import decode_parts, seeds_of_parts
from fuzz.refusals import unless_refused
from topgb.modelfile import packed_linear as packed
from topgb.modelfile.describe import describe
from topgb.modelfile.store import read_model_file
from topgb.models import registry

MODES = ["edits", "header", "parts", "file", "bytes"]
RESIDENT = [None, "full", "half"]
# A stranger's model may be of any width; what is predicted from is made here, not read.
MOST_WIDTH = 1 << 12


class Target:
    """`run` loads a model file of the given bytes, which lies in `folder`."""

    tokens = (b'"shape":[', b'"encoding":"', b'"data_offsets":[', b'"dtype":"F32"', b'"tensors":{', b'"members":[')

    def __init__(self, folder: Path):
        self._path = folder / "fuzzed.safetensors"
        self._bases = make_bases(folder)
        self._bombs = [zlib_bomb(size) for size in (0, 1, 16, 64, 1 << 12, 1 << 20, 1 << 24, 1 << 28)]

    def run(self, data: bytes) -> None:
        choices = Choices(data)
        mode = choices.pick(MODES)
        if mode == "parts":
            decode_parts(choices, self._bombs)
            return
        resident, predicts = choices.pick(RESIDENT), choices.number() % 2 == 0
        if mode == "bytes":
            raw = choices.rest()
        elif mode == "file":
            header, _, rest = choices.rest().partition(b"\0")
            raw = repair.safetensors(header, rest)
        else:
            base = choices.pick(self._bases)
            if mode == "edits":
                raw = repair.safetensors(*edited(base, choices, self._bombs))
            else:
                raw = repair.safetensors(*joined(choices.rest().decode("latin-1"), base.tensors))
        self._path.write_bytes(raw)
        # No layer here is large enough to be packed otherwise. Every architecture was imported with the bases; to look
        # for more takes longer than all else.
        with mock.patch.object(packed, "LEAST_WEIGHTS", 1), mock.patch.object(registry, "_import_all", tuple):
            self._load(resident, predicts)

    def _load(self, resident: str | None, predicts: bool) -> None:
        read = unless_refused(lambda: read_model_file(self._path), self._path)
        if read is None:
            return
        assert all(line.isprintable() for line in describe(*read, len(self._path.name)).split("\n"))
        model = unless_refused(lambda: topgb.load(self._path, resident=resident), self._path)
        if model is None:
            return
        assert isinstance(model, topgb.Model)
        assert model.weights >= 0
        assert model.max_frames >= 1
        if predicts and model.header.features.width <= MOST_WIDTH:
            kind = np.uint8 if model.header.features.all_bytes else np.float32
            frames = 1 if model.header.features.level == "video" else 2
            features = np.ones((frames, model.header.features.width), kind)
            assert model.predict(features).shape == (model.header.classes,)

    def seeds(self) -> list[bytes]:
        """Sound inputs of every mode."""
        seeds = seeds_of_parts()
        for number, base in enumerate(self._bases):
            header, data = joined(base.header, base.tensors)
            seeds.append(bytes((0, number % 3, 0, number, 0, 9, 0)))
            seeds.append(bytes((0, number % 3, 0, number, 1, 0, number * 5, 4, 3, 7, 1, 4, 1, 9)))
            seeds.append(bytes((1, number % 3, 0, number)) + base.header.encode())
            if len(header) + len(data) < 4000:
                seeds.append(bytes((3, number % 3, 0)) + header + b"\0" + data)
                seeds.append(bytes((4, number % 3, 0)) + file_bytes(base))
        return seeds
