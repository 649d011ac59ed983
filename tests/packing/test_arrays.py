"""NumPy files that cannot be packed: each is one sentence that names the file."""

import io
import zipfile

import numpy as np
import pytest

from topgb.errors import InputError
from topgb.packing.arrays import read_arrays
from topgb.packing.pack import pack


def _frames(number: int, width: int = 6) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(2 + number % 5, width)).astype(np.float32)


def _array(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def _archive(*entries: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return file.getvalue()


def _header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


SOUND = _array(_frames(1))


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("b.npy", _array(_frames(1, 5)), "'embedding' is 5 wide, in .*a.npy it is 6"),
        ("b.npy", _array(_frames(1)[0]), "features of the whole video, .*a.npy those of the frames"),
        ("b.npy", _array(_frames(1)[:0]), "no frames"),
        ("b.npy", _array(_frames(1)[:, :0]), "no values"),
        ("b.npy", _array(np.zeros((2, 6), np.uint8)), "holds uint8, in .*a.npy it holds floats"),
        ("b.npy", _array(np.full((2, 6), np.nan)), "not finite"),
        ("b.npy", _array(np.full((2, 6), 1e300)), "not finite"),
        ("b.npy", _array(np.full((2, 6), 1e20)), "beyond 1e\\+15"),
        ("b.npy", _array(np.zeros((2, 6), np.int64)), "holds int64; save it as float32"),
        ("b.npy", _array(np.zeros((2, 6), bool)), "holds bool"),
        ("b.npy", _array(np.zeros((2, 6), complex)), "holds complex128"),
        ("b.npy", _array(np.zeros((2, 6), "U3")), "holds <U3"),
        ("b.npy", _array(np.zeros(2, [("x", "f4"), ("y", "f4")])), "holds \\[\\('x'"),
        ("b.npy", _array(np.zeros((2, 6, 1), np.float32)), "shape \\(2, 6, 1\\)"),
        ("b.npy", _array(np.float32(3)), "the shape \\(\\)"),
        ("b.npy", _array(np.array([{}], object)), "holds object"),
        ("b.npy", b"", "cut off in the header"),
        ("b.npy", b"id,labels\n", "not a NumPy array"),
        ("b.npy", SOUND[:-1], "cut off"),
        ("b.npy", SOUND[:40], "cut off in the header"),
        ("b.npy", b"\x93NUMPY\x09\x00" + SOUND[8:], "not a NumPy array"),
        ("b.npy", _header("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 6)}\n"), "too many"),
        ("b.npy", _header("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -6)}\n"), "shape \\(-2, -6\\)"),
        ("b.npy", _header("{'descr': '<f4', 'fortran_order': False, 'shape': (20000, 6)}\n"), "cut off"),
        ("b.npy", _header("(" * 5000), "not a NumPy array"),
        ("b.npz", _archive(("embedding.npy", SOUND), ("x.npy", SOUND)), "has the features embedding, x, .*a.npy has"),
        ("b.npz", _archive(("embedding.npy", SOUND), ("x.npy", _array(_frames(2)))), "unequal numbers of frames"),
        ("b.npz", _archive(("embedding.npy", SOUND), ("x.npy", _array(_frames(2)[0]))), "mixes features of frames"),
        ("b.npz", _archive(("labels.npy", SOUND)), "no feature can be called 'labels'"),
        ("b.npz", _archive(("a.b.npy", SOUND)), "no dot"),
        ("b.npz", _archive(("\x1b.npy", SOUND)), "printable"),
        ("b.npz", _archive(("x.txt", b"hello")), "no dot"),
        ("b.npz", _archive(("folder/", b"")), "not a NumPy array"),
        ("b.npz", _archive(), "holds no feature"),
        ("b.npz", _archive(("embedding.npy", SOUND))[:-30], "not a .npz file: it is cut off"),
        ("b.npz", b"PK\x03\x04", "not a .npz file: it is cut off"),
        ("b.npz", b"", "not a .npz file"),
        ("a.npz", _archive(("embedding.npy", SOUND)), "the id 'a' occurs twice"),
    ],
    ids=lambda value: repr(value)[-40:] if isinstance(value, bytes) else "",
)
def test_what_does_not_fit_is_one_sentence_that_names_the_file(tmp_path, name, data, words):
    (tmp_path / "f").mkdir()
    np.save(tmp_path / "f/a.npy", _frames(0))
    (tmp_path / "f" / name).write_bytes(data)
    with pytest.raises(InputError, match=words) as raised:
        pack(str(tmp_path / "f"), tmp_path / "p")
    assert str(tmp_path / "f" / name) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "\x1b" not in str(raised.value)
    assert not (tmp_path / "p").exists()


def test_flipped_bytes_never_raise_anything_else(tmp_path):
    (tmp_path / "f").mkdir()
    np.savez_compressed(tmp_path / "f/a.npz", x=_frames(1), y=_frames(1))
    np.save(tmp_path / "f/b.npy", _frames(1))
    generator, sentences = np.random.default_rng(0), []
    for name in ("a.npz", "b.npy"):
        sound = (tmp_path / "f" / name).read_bytes()
        for _ in range(200):
            data = bytearray(sound)
            for place in generator.integers(0, len(data), generator.integers(1, 4)):
                data[place] = generator.integers(0, 256)
            (tmp_path / "f" / name).write_bytes(data)
            try:
                pack(str(tmp_path / "f" / name), tmp_path / "p", force=True)
            except InputError as error:
                sentences.append(str(error))
    assert len(sentences) > 100
    assert not any("\n" in sentence for sentence in sentences)


def _npy(shape: str, values: bytes = bytes(96)) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header.encode() + values


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("shape", ["(True, 8)", "(99999999999999999999, 0)", "(3, True)", "(-1, 8)"])
def test_a_shape_that_no_array_has(shape, suffix, tmp_path):
    path = tmp_path / f"v{suffix}"
    path.write_bytes(_npy(shape))
    if suffix == ".npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", _npy(shape))
    with pytest.raises(InputError, match=r"has the shape .*; it must be \[T, D\], or \[D\]"):
        read_arrays(str(path), "x")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".npz, deflated"])
def test_values_behind_an_array_are_not_lost(suffix, tmp_path):
    path = tmp_path / f"v{suffix[:4]}"
    two = _npy("(3, 8)") * 2
    path.write_bytes(two)
    if suffix != ".npy":
        method = zipfile.ZIP_DEFLATED if "deflated" in suffix else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("a.npy", two)
    with pytest.raises(InputError, match="'[ax]' holds more behind its array"):
        read_arrays(str(path), "x")


def test_a_changed_byte_of_an_archive_is_noticed(tmp_path):
    path = tmp_path / "v.npz"
    np.savez(path, a=np.full((3, 8), 2, np.float32))
    data = bytearray(path.read_bytes())
    data[data.index(np.full(24, 2, np.float32).tobytes()) + 40] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="Bad CRC-32"):
        read_arrays(str(path), "x")


def test_an_encrypted_archive_is_called_so(tmp_path):
    path = tmp_path / "v.npz"
    np.savez(path, a=np.zeros((3, 8), np.float32))
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="its arrays are encrypted"):
        read_arrays(str(path), "x")


def test_more_features_than_a_video_can_have(tmp_path):
    """Each takes half a megabyte and more while it is measured: 2 MB of file took 10 GB."""
    np.savez(tmp_path / "v.npz", **{f"a{number}": np.zeros((1, 2), np.uint8) for number in range(101)})
    with pytest.raises(InputError, match="holds 101 features, and a video can have 100"):
        read_arrays(str(tmp_path / "v.npz"), "x")
