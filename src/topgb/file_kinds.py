"""Recognise kinds of files by how they begin, so that a reader of another kind can say what it was given."""

import re
import zlib
from typing import NamedTuple

# How much of a file is looked at.
HEAD = 1024

_PACK = "topgb data pack makes records of features in such files"
_UNPACK = "unpack it first"
_MEDIA = "topgb reads features of videos, not the videos"
_SERVED = "a server sent it in place of the file, so look at what it says and download the file again"
_CONVERT = "write it as Parquet, which topgb data pack reads"
_MODEL = "name the files of records"
_TABLE = "save its table as a CSV, and features apart"
_SAVE = "save its arrays with numpy.save, and topgb data pack them"
# An entry's name in a ZIP archive stands behind so many bytes, and two of them hold its length.
_ZIP_NAME, _ZIP_LENGTH = 30, slice(26, 28)


class FileKind(NamedTuple):
    """A kind of file: what it is, the remedy where records are wanted, and whether that holds whatever is wanted."""

    like: str
    remedy: str
    anywhere: bool = False


_MAGIC: tuple[tuple[int, bytes, FileKind], ...] = (
    (0, b"version https://git-lfs", FileKind("a Git LFS pointer", "fetch the file it stands for: git lfs pull", True)),
    (0, b"/annex/objects/", FileKind("a git-annex pointer", "fetch the file it stands for: git annex get", True)),
    (0, b"\x93NUMPY", FileKind("a NumPy array (.npy)", _PACK)),
    (0, b"PAR1", FileKind("a Parquet table", _PACK)),
    (0, b"PARE", FileKind("an encrypted Parquet table", "write it anew without encryption", True)),
    (0, b"\x89HDF\r\n\x1a\n", FileKind("an HDF5 file", _PACK)),
    (0, b"MATLAB 7.3 MAT-file", FileKind("a MATLAB file", _SAVE)),
    (0, b"MATLAB 5.0 MAT-file", FileKind("a MATLAB file", _SAVE)),
    (0, b"CDF\x01", FileKind("a netCDF file", _SAVE)),
    (0, b"CDF\x02", FileKind("a netCDF file", _SAVE)),
    (0, b"PK\x05\x06", FileKind("an empty ZIP archive", "write it anew", True)),
    (0, b"PK\x07\x08", FileKind("a part of a ZIP archive", _UNPACK)),
    (0, b"BZh", FileKind("bzip2", _UNPACK, True)),
    (0, b"\xfd7zXZ\0", FileKind("xz", _UNPACK, True)),
    (0, b"\x5d\0\0\x80\0", FileKind("LZMA", _UNPACK, True)),
    (0, b"LZIP", FileKind("lzip", _UNPACK, True)),
    (0, b"\x89LZO\0", FileKind("LZO", _UNPACK, True)),
    (0, b"\x1f\x9d", FileKind("compress (.Z)", _UNPACK, True)),
    (0, b"\x28\xb5\x2f\xfd", FileKind("zstd", _UNPACK, True)),
    (1, b"\x2a\x4d\x18", FileKind("zstd or LZ4", _UNPACK, True)),
    (0, b"\x1f\x8b", FileKind("gzip", "unpack it once", True)),
    (0, b"\x04\x22\x4d\x18", FileKind("LZ4", _UNPACK, True)),
    (0, b"\x02\x21\x4c\x18", FileKind("LZ4", _UNPACK, True)),
    (0, b"\xff\x06\0\0sNaPpY", FileKind("snappy", _UNPACK, True)),
    (0, b"Rar!", FileKind("a RAR archive", _UNPACK, True)),
    (0, b"7z\xbc\xaf\x27\x1c", FileKind("a 7z archive", _UNPACK, True)),
    (257, b"ustar", FileKind("a tar archive", _UNPACK, True)),
    (0, b"ARROW1", FileKind("an Arrow or Feather table", _CONVERT)),
    (0, b"FEA1", FileKind("a Feather table", _CONVERT)),
    (8, b"\x10\0\0\0\0\0\x0a\0", FileKind("a stream of Arrow tables", _CONVERT)),
    (0, b"ORC", FileKind("an ORC table", _CONVERT)),
    (0, b"Obj\x01", FileKind("an Avro file", _CONVERT)),
    (0, b"SQLite format 3\0", FileKind("an SQLite database", "write its features with numpy.save or as Parquet")),
    (
        0,
        b"\xd0\xcf\x11\xe0",
        FileKind("an Office document, such as .xls", _TABLE),
    ),
    (0, b"\x0a\x23\xd7\xce", FileKind("MXNet's RecordIO", _SAVE)),
    (0, b"\x83\xaf\x70\xd1", FileKind("Riegeli's records", "write them anew as TFRecords")),
    (0, b"GGUF", FileKind("a model in GGUF", _MODEL)),
    (4, b"TFL3", FileKind("a TensorFlow Lite model", _MODEL)),
    (4, b"ftyp", FileKind("an MP4 video", _MEDIA)),
    (4, b"wide", FileKind("a QuickTime video", _MEDIA)),
    (4, b"mdat", FileKind("a QuickTime video", _MEDIA)),
    (0, b"\x1aE\xdf\xa3", FileKind("a Matroska or WebM video", _MEDIA)),
    (0, b"\0\0\x01\xba", FileKind("an MPEG video", _MEDIA)),
    (0, b"FLV\x01", FileKind("a Flash video", _MEDIA)),
    (0, b"\x30\x26\xb2\x75", FileKind("a Windows Media file", _MEDIA)),
    (0, b"RIFF", FileKind("an AVI, WAV or WebP file", _MEDIA)),
    (0, b"OggS", FileKind("an Ogg file", _MEDIA)),
    (0, b"fLaC", FileKind("a FLAC sound", _MEDIA)),
    (0, b"ID3\x03", FileKind("an MP3 sound", _MEDIA)),
    (0, b"ID3\x04", FileKind("an MP3 sound", _MEDIA)),
    (0, b"\xff\xd8\xff", FileKind("a JPEG picture", _MEDIA)),
    (0, b"\x89PNG\r\n", FileKind("a PNG picture", _MEDIA)),
    (0, b"GIF8", FileKind("a GIF picture", _MEDIA)),
    (0, b"II*\0", FileKind("a TIFF picture", _MEDIA)),
    (0, b"MM\0*", FileKind("a TIFF picture", _MEDIA)),
    (0, b"\x7fELF", FileKind("a program", _MODEL)),
    (0, b"%PDF-", FileKind("a PDF", _MODEL)),
)
# Encodings of text by their byte order marks; UTF-32's begins with UTF-16's.
_MARKS = ((b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
# First entries of ZIP archives that hold something particular.
_IN_ZIP = (
    ("/data.pkl", FileKind("a PyTorch checkpoint (.pt), whose pickle topgb never opens", _MODEL)),
    ("metadata.json", FileKind("a Keras model (.keras)", _MODEL)),
    (
        "[Content_Types].xml",
        FileKind("an Office document, such as .xlsx", _TABLE),
    ),
)


def known_kind(head: bytes) -> FileKind | None:
    """The kind of a file that begins with the bytes `head`, `HEAD` of them if there are as many; None if not known."""
    head = head.removeprefix(b"\xef\xbb\xbf") or head
    for offset, magic, kind in _MAGIC:
        if head[offset:].startswith(magic):
            return kind
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return FileKind(f"text in {encoding}", _MODEL)
    if len(head) > 16 and not head.strip(b"\0"):
        return FileKind("a file whose bytes never arrived (zeros alone)", "copy or download it again", True)
    return _zip(head) or _zlib(head) or _pickle(head) or _markup(head)


def instead(path: str, remedy: str, wanted: str | None = None) -> str | None:
    """Say what the file `path` is, if it is known, and what to do: `remedy`, unless its kind has one of its own.

    A file that cannot be read although it begins like the kind that is `wanted`, words of its `like`, lacks its end.
    """
    with open(path, "rb") as file:
        kind = known_kind(file.read(HEAD))
    if kind is not None and wanted is not None and wanted in kind.like:
        return f"it is cut off, as it begins like {kind.like} and does not end like one; copy or write it again"
    return None if kind is None else f"it begins like {kind.like}; {kind.remedy if kind.anywhere else remedy}"


def _zip(head: bytes) -> FileKind | None:
    if not head.startswith(b"PK\x03\x04"):
        return None
    name = head[_ZIP_NAME : _ZIP_NAME + int.from_bytes(head[_ZIP_LENGTH], "little")].decode(errors="replace")
    other = FileKind("a ZIP archive, such as NumPy's .npz", f"{_PACK}; unpack any other archive first")
    return next((kind for end, kind in _IN_ZIP if name.endswith(end)), other)


def _zlib(head: bytes) -> FileKind | None:
    # Text may begin like this, too.
    if len(head) < 3 or head.isascii() or head[0] & 0x0F != 8 or int.from_bytes(head[:2]) % 31:
        return None
    try:
        zlib.decompressobj().decompress(head, 64)
    except zlib.error:
        return None
    return FileKind("zlib", "write the records again without compression, or with GZIP, which topgb reads")


def _pickle(head: bytes) -> FileKind | None:
    # A zero would be in the length of a record.
    if head[:1] != b"\x80" or head[1:2] not in (b"\2", b"\3", b"\4", b"\5") or not any(head[2:3]):
        return None
    return FileKind("a pickle, which topgb never opens", _SAVE)


def _markup(head: bytes) -> FileKind | None:
    if not re.match(rb"\s*<[!?A-Za-z]", head):
        return None
    return FileKind("HTML" if b"html" in head[:200].lower() else "XML", _SERVED, True)
