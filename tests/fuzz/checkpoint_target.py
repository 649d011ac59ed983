"""The reader of TensorFlow checkpoints on any bytes: the index's table, its messages, the data."""

import struct
from pathlib import Path

import numpy as np

from from2018 import tf_bundle as bundle
from fuzz import repair
from fuzz.choices import Choices
from fuzz.refusals import unless_refused
from topgb.checksums import masked_crc
from topgb.from2018.checkpoint import open_checkpoint

MODES = ["sound CRCs", "entries", "messages", "blocks", "bytes"]
_LENGTH = struct.Struct("<H")


class Target:
    """`run` reads a checkpoint of the given bytes, which lies in `folder`."""

    tokens = (b"a", b"tower/weights", b"\0\1a", bundle.header(), bundle.entry(shape=(2, 3), size=24))

    def __init__(self, folder: Path):
        self._prefix = folder / "fuzzed"

    def run(self, data: bytes) -> None:
        choices = Choices(data)
        mode = choices.pick(MODES)
        if mode in ("bytes", "sound CRCs"):
            index = choices.take(choices.number(2))
            values = choices.rest()
            index = index if mode == "bytes" else repair.table_crcs(index)
        elif mode == "blocks":
            blocks = [choices.take(choices.number(2)) for _ in range(choices.number() % 4)]
            index, values = bundle.file(blocks, choices.pick((0, 0, 0, 1, 2))), choices.rest()
        else:
            read = _entries if mode == "entries" else _messages
            values = choices.take(choices.number(2))
            index = bundle.table({b"": bundle.header(), **read(choices, values)})
        bundle.index_path(self._prefix).write_bytes(index)
        bundle.data_path(self._prefix).write_bytes(values)
        self._read(len(values))

    def _read(self, data_bytes: int) -> None:
        checkpoint = unless_refused(lambda: open_checkpoint(self._prefix), self._prefix)
        if checkpoint is None:
            return
        for name in checkpoint.names():
            shape = checkpoint.shape(name)
            values = unless_refused(lambda name=name: checkpoint.read(name), self._prefix)
            if values is not None:
                assert values.shape == shape
                assert values.dtype == checkpoint.entries[name].dtype
                assert values.nbytes <= data_bytes

    def seeds(self) -> list[bytes]:
        """Sound inputs of every mode."""
        variables = {f"tower/{kind}": np.ones((2, 3), kind) for kind in bundle.TYPES}
        variables |= {"global_step": np.array(47, np.int64), "none": np.zeros((0, 5), np.float32)}
        items = bundle.write(self._prefix, variables)
        index = bundle.index_path(self._prefix).read_bytes()
        values = bundle.data_path(self._prefix).read_bytes()
        sized = _LENGTH.pack(len(values)) + values
        pairs = sorted(items.items())
        content = bundle.block(pairs, 4)
        small = bundle.table({b"": bundle.header(), b"a": items[b"tower/float32"]})
        messages = b"".join(
            bytes((len(key),)) + key + bytes((len(value) % 256,)) + value[: len(value) % 256]
            for key, value in pairs[:4]
        )
        return [
            *(bytes((mode,)) + _LENGTH.pack(len(index)) + index + values for mode in (0, 4)),
            *(bytes((mode,)) + _LENGTH.pack(len(small)) + small + values for mode in (0, 4)),
            # Each entry: length of the name, name, flags, type, offset, rank, shape; or the size too, with flag 2.
            bytes((1,)) + sized + b"\1a\0\1\0\2\2\3" + b"\1b\0\4\1\1\5" + b"\3w/a\0\11\4\0",
            bytes((1,)) + sized + b"\1a\2\3\0\1\2\10" + b"\1b\200\1\0\0",
            bytes((2,)) + sized + messages,
            bytes((3, 1)) + _LENGTH.pack(len(content)) + content + b"\0" + values,
            bytes((3, 2)) + 2 * (_LENGTH.pack(len(content)) + content) + b"\0" + values,
        ]


def _messages(choices: Choices, _: bytes) -> dict[bytes, bytes]:
    """Names and any bytes as their entries; the empty name is the header's."""
    items = {}
    while choices and len(items) < 50:
        name = choices.blob()
        items[name] = choices.blob()
    return items


def _entries(choices: Choices, values: bytes) -> dict[bytes, bytes]:
    """Names and entries of chosen numbers, the CRC right where they lie inside the data."""
    items = {}
    while choices and len(items) < 50:
        name, flags = choices.blob(), choices.number()
        kind, offset = choices.number(), choices.size()
        shape = [choices.size() for _ in range(choices.number() % 5)]
        size = choices.size() if flags & 2 else _bytes_of(kind, shape)
        items[name] = bundle.entry(
            kind=kind,
            shape=shape,
            shard=choices.size() if flags & 4 else 0,
            offset=offset,
            size=size,
            crc=masked_crc(values[offset : offset + size]),
            slices=flags >> 7,
        )
    return items


def _bytes_of(kind: int, shape: list[int]) -> int:
    names = {number: name for name, number in bundle.TYPES.items()}
    return int(np.prod(np.array(shape, object))) * np.dtype(names.get(kind, "u1")).itemsize
