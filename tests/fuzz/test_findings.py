"""What the fuzzers found that is no matter of lengths (test_hostile_*.py), each as the smallest input that shows it."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec
from topgb.packing.parquet_sizes import column_sizes
from topgb.records import wire
from topgb.records.codec import decode_record
from topgb.records.framing import Place
from topgb.records.layout import Layout
from topgb.tensors import load_tensors

ESCAPE = "\x1b[2J\n"
ID = b"\x0a\x0f\x0a\x02id\x12\x09\x0a\x07\x0a\x05video"


def test_a_feature_named_by_a_terminals_command_is_quoted_escaped():
    spec = FeatureSpec("video", (Feature("mean_rgb", 4),))
    other = wire.field(0x0A, wire.field(0x0A, ESCAPE.encode()), wire.field(0x12, b""))
    payload = wire.field(0x0A, ID, other)
    with pytest.raises(InputError, match=r"no feature 'mean_rgb'; it has: \\x1b\[2J\\n;") as raised:
        decode_record(memoryview(payload), Layout(spec, None), Place("a", 0, 0))
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("odd", ["\x7f8", ESCAPE])
def test_a_dtype_named_by_a_terminals_command_is_quoted_escaped(odd, tmp_path):
    text = json.dumps({"a": {"dtype": odd, "shape": [], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "odd.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(InputError, match="not a safetensors file") as raised:
        load_tensors(path)
    assert str(raised.value).isprintable()


def test_an_empty_tensor_with_a_dimension_beyond_64_bits_is_refused(tmp_path: Path):
    """safetensors lets it through, as it has no values; torch does not take the number."""
    text = json.dumps({"a": {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]}}).encode()
    path = tmp_path / "odd.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(InputError, match="odd.safetensors has a tensor of an impossible shape; name another file"):
        load_tensors(path)


@pytest.mark.parametrize(
    ("struct", "as_list"),
    [(b"\x2c\x15\x04", b"\x29\x15\x04"), (b"\x26\x00\x1c\x15", b"\x26\x00\x19\x15")],
    ids=["page", "column"],
)
def test_a_list_where_parquet_has_a_struct_is_refused(struct, as_list, tmp_path: Path):
    """Field 5 of a list of one number was asked for."""
    path = tmp_path / "odd.parquet"
    pq.write_table(pa.table({"id": [1, 2]}), path, compression="none", use_dictionary=False)
    content = path.read_bytes()
    assert struct in content
    path.write_bytes(content.replace(struct, as_list, 1))
    # Read as a list, the numbers of the fields behind it are others: one stands for encryption.
    with pytest.raises(
        ValueError, match="the header of a page lacks the sizes of its columns|its columns are encrypted"
    ):
        list(column_sizes(str(path)))
