"""The folder that a teacher's scores are written to: one file per shard, or copies of its records."""

import shutil
import time
from contextlib import suppress
from itertools import count, takewhile
from pathlib import Path

from topgb.errors import InputError, option
from topgb.file_sets import finish_earlier, replace_files, replacement_folder
from topgb.files import GROWING, IN_USE, partials_of
from topgb.records.dataset import Dataset
from topgb.records.teacher import DESCRIPTION_FILE, ScoreFormat, TeacherDescription, scores_path

# Videos per file, as in 2018's prepare_distill_dataset.py.
VIDEOS_PER_FILE = 512
# NFS may take half a minute to show what another machine has written.
_SETTLING_SECONDS = 60.0


def prepare_folder(out: Path, description: TeacherDescription, force: bool) -> Path:
    """The folder to fill with scores of this description: `out`, or, if `force` replaces scores there, one beside them.

    Raises `InputError` if `out` holds anything else.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; a teacher's scores need a folder")
    finish_earlier(out)
    if (out / DESCRIPTION_FILE).exists():
        changed = TeacherDescription.read(out).differs_from(description)
        if force:
            return _prepare_beside(out, description)
        if changed is None:
            return out
        raise InputError(
            f"{out} holds scores of {changed}; give back what there was, replace them with "
            f"{option('force', True)}, or choose another {option('out')}"
        )
    if out.exists() and set(out.iterdir()) - {out / IN_USE, *partials_of(out / DESCRIPTION_FILE)}:
        raise InputError(f"{out} holds files that topgb distill did not write; choose another {option('out')}")
    description.write(out)
    return out


def _prepare_beside(out: Path, description: TeacherDescription) -> Path:
    """The folder for scores that will replace those in `out`; a stopped call's scores of this description are kept."""
    beside = replacement_folder(out)
    same = False
    with suppress(InputError):
        same = TeacherDescription.read(beside).differs_from(description) is None
    if not same:
        shutil.rmtree(beside)
        replacement_folder(out)
        description.write(beside)
    return beside


def put_in_place(out: Path) -> None:
    """Replace the scores in `out` by those that were written beside them, all or none."""
    before = TeacherDescription.read(out)
    scores = (path for row in before.records for path in files_of(out, row[0], before.format))
    replace_files(out, [*scores, out / GROWING])


def is_finished(out: Path, dataset: Dataset, shard: int, score_format: ScoreFormat) -> bool:
    """Whether all files of shard number `shard` are there."""
    name = dataset.shards[shard].name
    if score_format == "safetensors":
        return scores_path(out, name).is_file()
    files = -(-int(dataset.counts[shard]) // VIDEOS_PER_FILE)
    return all(copy_path(out, name, number).is_file() for number in range(files))


def files_of(out: Path, name: str, score_format: ScoreFormat) -> list[Path]:
    """The existing files of the shard `name`."""
    if score_format == "safetensors":
        return [path for path in [scores_path(out, name)] if path.is_file()]
    return list(takewhile(Path.is_file, (copy_path(out, name, number) for number in count())))


def copy_path(out: Path, name: str, number: int) -> Path:
    """The file with copies of 512 records of the shard `name`, from record `number` · 512 on."""
    return out / f"{shard_label(name, 'tfrecord')}-{number:04d}.tfrecord"


def shard_label(name: str, score_format: ScoreFormat) -> str:
    """The name of the shard `name` in the names of its files."""
    return name if score_format == "safetensors" else name.removesuffix(".gz").removesuffix(".tfrecord")


def wait_for(written: list[Path]) -> None:
    """Wait until this machine sees the files that workers wrote. Raises `InputError` after a minute without them."""
    until = time.monotonic() + _SETTLING_SECONDS
    for path in written:
        while not path.is_file():
            if time.monotonic() > until:
                raise InputError(
                    f"{path} was written on another node and is not here: its folder is not on a file system that "
                    f"every node shares; choose an {option('out')} that is"
                )
            time.sleep(1.0)
