"""Tests of arithmetic bear the mark `numeric`, by which `make test-portable` finds them."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
# By what a file of each kind imports or calls.
KINDS = {
    "golden": r"^from golden\.\w+ import",
    "gradient": r"\.backward\(|torch\.autograd",
    "packed layer": r"^from topgb\.modelfile(\.packed_linear import| import .*\bpacked_linear\b)",
    "import": r"^from topgb\.from2018\.importing import",
    "k-means": r"^from topgb\.quantizing\.(kmeans|codebooks|rounding|quantize) import",
    "metric": r"^from topgb\.evaluation\.metrics import",
    "export": r"^from topgb\.modelfile\.export import",
}
# Files that import one of these for something else.
OF_BYTES = {"from2018/test_checkpoints_of_2018.py"}
OF_WORDS = {
    "from2018/test_merged_errors.py",
    "modelfile/test_extras.py",
    "test_messages.py",
    "test_moved.py",
}
OF_WHOLE_RUNS = {"training/test_parents.py", "training/test_memory.py", "test_demonstration.py"}
OTHERS = OF_BYTES | OF_WORDS | OF_WHOLE_RUNS
# On the whole file, or on those of its tests that are of the kind.
MARK = re.compile(r"^(pytestmark = (\[\s*)?|@)pytest\.mark\.numeric", re.MULTILINE)


def _files(kind: str) -> set[str]:
    pattern = re.compile(KINDS[kind], re.MULTILINE)
    paths = {path.relative_to(FOLDER).as_posix(): path.read_text() for path in FOLDER.rglob("test_*.py")}
    return {name for name, text in paths.items() if pattern.search(text)} - {Path(__file__).name}


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_of_a_kind_bears_the_mark(kind):
    found = _files(kind)
    unmarked = {name for name in found - OTHERS if not MARK.search((FOLDER / name).read_text())}
    assert not unmarked, f"give them pytestmark = pytest.mark.numeric: {sorted(unmarked)}"
    assert found - OTHERS, f"no file is of the kind {kind!r} any more: mend its pattern"


def test_the_exceptions_are_files_of_a_kind_without_the_mark():
    every = set().union(*map(_files, KINDS))
    assert every >= OTHERS
    assert not [name for name in OTHERS if MARK.search((FOLDER / name).read_text())]
