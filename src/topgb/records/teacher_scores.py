"""One shard's teacher scores in a safetensors file: video ids, and probabilities of all classes or of the K best.

ids, id_ends     uint8 [bytes], all ids in UTF-8, joined; int64 [N], the byte where each id ends
probabilities    float16 [N, V]                                          every class
classes, scores  int16 (int32 above 32,768 classes) and float16 [N, K]   the best K classes, best first
rest             float32 [N], sum of the probabilities of all other classes
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from topgb.errors import InputError, printable
from topgb.records.labels import first_improbable
from topgb.tensors import load_tensors, save_tensors

MOST_INT16 = 1 << 15


@dataclass(frozen=True)
class ShardScores:
    """The scores of a shard's videos, numbered from 0 in the shard's order."""

    classes: int
    _ids: bytes
    _id_ends: np.ndarray
    _tensors: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self._id_ends)

    def id(self, row: int) -> bytes:
        """The id, in UTF-8, of video number `row`."""
        return self._ids[self._id_ends[row - 1] if row else 0 : self._id_ends[row]]

    def check(self, path: Path) -> None:
        """Read all scores. Raises `InputError` naming the file's `path` if one is not a probability."""
        for name, values in self._tensors.items():
            if name == "classes":
                ordered = np.sort(values, axis=1)
                if (ordered[:, 1:] == ordered[:, :-1]).any():
                    raise _wrong_contents_error(path)
                continue
            most = 1.0
            if name == "rest":
                # All other classes share it; it is a rounded sum.
                most = (self.classes - self._tensors["classes"].shape[1]) * (1 + 1e-6) + 1e-3
            wrong = first_improbable(values, most)
            if wrong is not None:
                video = self.id(wrong // (values.size // len(self))).decode(errors="replace")
                raise InputError(
                    f"{path} holds scores that are no probabilities ({values.reshape(-1)[wrong]:g} for video "
                    f"{printable(video)!r}); remove that file and run the same topgb distill again, which makes it anew"
                )

    def write_row(self, row: int, destination: np.ndarray) -> None:
        """Fill `destination` float16 [V] with the probabilities of video number `row`.

        If only the best classes were kept, the other classes share the rest equally.
        """
        if "probabilities" in self._tensors:
            destination[:] = self._tensors["probabilities"][row]
            return
        best = self._tensors["classes"][row]
        destination[:] = self._tensors["rest"][row] / max(1, self.classes - len(best))
        destination[best] = self._tensors["scores"][row]


def write_scores(
    path: Path, scores: Iterable[tuple[list[str], torch.Tensor]], classes: int, top_k: int | None = None
) -> None:
    """Write a shard's scores: batches of ids with their probabilities, float [B, V] on the CPU.

    Raises `TopgbError` if the file cannot be written.
    """
    ids: list[bytes] = []
    parts = [_stored_tensors(torch.empty(0, classes), top_k)]
    for videos, probabilities in scores:
        ids += [video.encode() for video in videos]
        parts.append(_stored_tensors(probabilities, top_k))
    tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    tensors["ids"] = torch.frombuffer(bytearray(b"".join(ids)), dtype=torch.uint8) if ids else torch.empty(0).byte()
    tensors["id_ends"] = torch.tensor([len(one) for one in ids], dtype=torch.int64).cumsum(0)
    save_tensors(path, tensors)


def _stored_tensors(probabilities: torch.Tensor, top_k: int | None) -> dict[str, torch.Tensor]:
    """The tensors that the file stores for `probabilities`, float [B, V]."""
    if top_k is None:
        return {"probabilities": probabilities.half()}
    best, order = probabilities.topk(top_k, dim=1)
    rest = probabilities.double().sum(1) - best.double().sum(1)
    classes = torch.int16 if probabilities.shape[1] <= MOST_INT16 else torch.int32
    return {"classes": order.to(classes), "scores": best.half(), "rest": rest.clamp_min(0).float()}


def read_scores(path: Path, classes: int, top_k: int | None, checked: bool = False) -> ShardScores:
    """Read a shard's scores.

    Raises `InputError` if the file is missing, damaged, or holds something else, and, unless they were `checked` before
    (which reads all of them), for scores that are not probabilities.
    """
    tensors = load_tensors(path)[0]
    expected = {"ids": torch.uint8, "id_ends": torch.int64}
    if top_k is None:
        expected |= {"probabilities": torch.float16}
    else:
        small = torch.int16 if classes <= MOST_INT16 else torch.int32
        expected |= {"classes": small, "scores": torch.float16, "rest": torch.float32}
    if {name: tensor.dtype for name, tensor in tensors.items()} != expected:
        raise _wrong_contents_error(path)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    ends = arrays.pop("id_ends")
    joined = arrays.pop("ids").tobytes()
    widths = {"probabilities": (classes,), "rest": ()}
    if (
        ends.ndim != 1
        or (np.diff(ends, prepend=0) < 0).any()
        or (ends[-1] if len(ends) else 0) != len(joined)
        or any(a.shape != (len(ends), *widths.get(name, (top_k,))) for name, a in arrays.items())
        or ("classes" in arrays and ((arrays["classes"] < 0) | (arrays["classes"] >= classes)).any())
    ):
        raise _wrong_contents_error(path)
    found = ShardScores(classes, joined, ends, arrays)
    if not checked:
        found.check(path)
    return found


def _wrong_contents_error(path: Path) -> InputError:
    return InputError(
        f"{path} does not hold the scores that its folder promises; remove that file and run the same topgb distill "
        "again, which makes it anew"
    )
