"""Files of other kinds are named for what they are by every reader, and no pickle is ever opened."""

import gzip
import io
import lzma
import os
import pickle
import zipfile

import numpy as np
import pytest

from cli.program import topgb
from topgb.file_kinds import known_kind

CLASSES = "id,labels\nv,cat\n"


class _Marks:
    """A pickle that leaves a folder behind where it is opened."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def _zip(*names: str, content: bytes = b"x") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return file.getvalue()


KINDS = {
    "lfs": (b"version https://git-lfs.github.com/spec/v1\r\noid sha256:4d7a\r\nsize 1\r\n", "git lfs pull"),
    "lfs after a mark": (b"\xef\xbb\xbfversion https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s1--a.npy\n", "git annex get"),
    "page": (b"\n<!doctype html><p>404", "HTML; a server sent it"),
    "error": (b"<Error><Code>NoSuchKey</Code></Error>", "XML; a server sent it"),
    "xz": (lzma.compress(b"abc"), "xz; unpack it first"),
    "lzma": (lzma.compress(b"abc", format=lzma.FORMAT_ALONE), "LZMA; unpack it first"),
    "torch": (_zip("archive/data.pkl"), "PyTorch checkpoint"),
    "keras": (_zip("metadata.json", "model.weights.h5"), "Keras model"),
    "xlsx": (_zip("[Content_Types].xml", "xl/workbook.xml"), "Office document"),
    "xls": (b"\xd0\xcf\x11\xe0" + bytes(99), "Office document"),
    "orc": (b"ORC" + bytes(99), "ORC table"),
    "feather": (b"FEA1" + bytes(99), "Feather table"),
    "arrow": (b"ARROW1\0\0" + bytes(99), "Arrow or Feather table"),
    "gguf": (b"GGUF" + bytes(99), "GGUF"),
    "zeros": (bytes(999), "bytes never arrived"),
}


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".parquet", ".h5", ".safetensors", ".tfrecord", ".csv"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_reader_names_the_kind(kind, suffix, tmp_path):
    content, said = KINDS[kind]
    path = tmp_path / f"v{suffix}"
    path.write_bytes(content)
    (tmp_path / "labels.csv").write_text(CLASSES)
    (tmp_path / "features").mkdir()
    np.save(tmp_path / "features/v.npy", np.zeros((2, 3), np.float32))
    command = {
        ".csv": ("data", "pack", tmp_path / "features", "--labels", path, "--out", tmp_path / "out"),
        ".safetensors": ("model", "show", path),
        ".tfrecord": ("data", "inspect", path),
    }.get(suffix, ("data", "pack", path, "--labels", tmp_path / "labels.csv", "--out", tmp_path / "out"))
    done = topgb(*command)
    assert done.returncode == 2
    if suffix != ".npz" or not content.startswith(b"PK"):
        assert said in done.stderr


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("wrapped", [bytes, gzip.compress, lambda data: _zip("archive/data.pkl", content=data)])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5", ".pt", ".tfrecord"])
def test_no_pickle_is_opened(suffix, wrapped, protocol, tmp_path):
    path = tmp_path / f"v{suffix}"
    path.write_bytes(wrapped(pickle.dumps(_Marks(tmp_path / "opened"), protocol)))
    (tmp_path / "labels.csv").write_text(CLASSES)
    for command in (
        ("model", "show", path),
        ("data", "inspect", path),
        ("model", "import-tf", path, "--out", tmp_path / "m.safetensors"),
        ("data", "pack", path, "--labels", tmp_path / "labels.csv", "--out", tmp_path / "out"),
    ):
        assert topgb(*command).returncode == 2
    assert not (tmp_path / "opened").exists()


def test_a_damaged_record_is_no_other_kind():
    """The length of a first record may begin like many things; none of them takes 93 bytes for LZMA."""
    for length in range(1, 5000):
        kind = known_kind(length.to_bytes(8, "little") + np.random.default_rng(length).bytes(100))
        assert kind is None or "zlib" in kind.like or length in (0x8B1F, 0x9D1F)
