"""The reader of JSON on any bytes, and every file that it reads: headers, settings, flags, teachers, plans, curves."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fuzz.choices import Choices
from fuzz.refusals import unless_malformed, unless_refused
from topgb.from2018.settings import FLAGS_FILE, flags_beside
from topgb.json_reading import parse_json
from topgb.modelfile.header import Header
from topgb.records.teacher import DESCRIPTION_FILE, TeacherDescription
from topgb.training.curves import METRICS_FILE, read_metrics
from topgb.training.run_folder import SETTINGS_FILE, read_settings

_TEACHER = (
    b'{"version": 1, "model": {"sha256": "ab", "name": "m"}, "records": [["a.tfrecord", 3, 99, 1234]],'
    b' "classes": 5, "top_k": null, "format": "scores"}'
)
_HEADER = (
    b'{"version": 1, "features": {"level": "frame", "features": [{"name": "rgb", "size": 4, "dtype": "uint8",'
    b' "range": [-2.0, 2.0]}]}, "classes": 3, "class_names": ["a", "b", "c"], "members": [{"weight": 1.0, "model":'
    b' {"aggregator": "average", "features": ["rgb"], "head": {"name": "logistic"}}}], "tensors":'
    b' {"members.0.head.linear.weight": {"encoding": "float32", "shape": [3, 4]}}, "origin": {"note": "\\u00e9"}}'
)
_PLAIN = (
    b'{"step": 7, "loss": 0.5, "deep": [[[{"a": [1e5, -2, true, null]}]]]}',
    b'{"model": "NetVLADModelLF", "netvlad_cluster_size": 64, "feature_names": "rgb, audio"}',
    b'{"gap": 0.8}\n{"gap": 0.9}\n',
)


class Target:
    """`run` reads the given bytes as one of the files of JSON that there are, which lies in `folder`."""

    tokens = (b"[[[[", b'{"a":', b"]]", b"}}", b"1e400", b"NaN", b"\\ud800", b'"version"', b'"classes"', b'"tensors"')

    def __init__(self, folder: Path):
        self._folder = folder
        self._readers: list[Callable[[bytes], object]] = [
            self._read_header,
            lambda data: self._read_file(data, SETTINGS_FILE, read_settings),
            lambda data: self._read_file(data, DESCRIPTION_FILE, TeacherDescription.read),
            lambda data: self._read_file(data, FLAGS_FILE, lambda folder: flags_beside(folder / "model.ckpt")),
            lambda data: self._read_file(data, METRICS_FILE, read_metrics),
        ]

    def run(self, data: bytes) -> None:
        choices = Choices(data)
        read = choices.pick(self._readers)
        text = choices.rest()
        unless_malformed(lambda: parse_json(text))
        read(text)

    def _read_header(self, data: bytes) -> None:
        with suppress(UnicodeDecodeError):
            text = data.decode()
            header = unless_refused(lambda: Header.loads(text, "fuzzed"), "fuzzed")
            if header is not None:
                assert Header.loads(header.dumps(), "fuzzed") == header

    def _read_file(self, data: bytes, name: str, read: Callable[[Path], object]) -> None:
        path = self._folder / name
        path.write_bytes(data)
        try:
            unless_refused(lambda: read(self._folder), path)
        finally:
            path.unlink()

    def seeds(self) -> list[bytes]:
        """Sound inputs of every kind of file."""
        texts = (_HEADER, *_PLAIN[:1], _TEACHER, *_PLAIN[1:])
        return [bytes((number,)) + text for number, text in enumerate(texts)] + [b"\1" + _HEADER]
