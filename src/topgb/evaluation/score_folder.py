"""The folder that a teacher's scores are written to: one file per shard, or copies of its records."""

import time
from itertools import count, takewhile
from pathlib import Path

from topgb.errors import InputError, option
from topgb.files import partials_of, write_failure
from topgb.records.dataset import Dataset
from topgb.records.teacher import DESCRIPTION_FILE, ScoreFormat, TeacherDescription, scores_path

# Videos per file, as in 2018's prepare_distill_dataset.py.
VIDEOS_PER_FILE = 512
# NFS may take half a minute to show what another machine has written.
_SETTLING_SECONDS = 60.0


def prepare_folder(out: Path, description: TeacherDescription, force: bool) -> None:
    """Make `out` a folder for scores of this description. Raises `InputError` if it holds anything else."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; a teacher's scores need a folder")
    if (out / DESCRIPTION_FILE).exists():
        before = TeacherDescription.read(out)
        if not force:
            changed = before.differs_from(description)
            if changed is None:
                return
            raise InputError(
                f"{out} holds scores of {changed}; give back what there was, replace them with "
                f"{option('force', True)}, or choose another {option('out')}"
            )
        for row in before.records:
            for path in files_of(out, row[0], before.format):
                _remove(path)
    elif out.exists() and set(out.iterdir()) - set(partials_of(out / DESCRIPTION_FILE)):
        raise InputError(f"{out} holds files that topgb distill did not write; choose another {option('out')}")
    description.write(out)


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


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise write_failure(path, error) from error


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
