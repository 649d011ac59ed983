"""The names of a run's classes. No weight depends on them, so a run may be resumed with other names."""

from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

from topgb.errors import InputError, option
from topgb.modelfile import Header, StoredModel
from topgb.progress import Progress
from topgb.training.job import TrainingJob
from topgb.training.run_folder import NAMES, SETTINGS_FILE, read_settings, write_settings


def job_names(job: TrainingJob, parent: StoredModel | None, progress: Progress) -> tuple[str, ...] | None:
    """The class names of a job: its own, or those of the model that it starts from, or None.

    Warns through `progress` where the job keeps a head whose classes had other names.
    """
    inherited = None if parent is None else inherited_names(parent.header, job)
    own = job.class_names and tuple(normalize("NFC", name) for name in job.class_names)
    if parent is None or own is None or inherited is None:
        return own or inherited
    if own != inherited:
        index = next(i for i in range(len(inherited)) if own[i] != inherited[i])
        hint = f"; {option('new_head', True)} starts it anew" if job.init_from else ""
        progress.say(
            f"the head of {parent.path} is kept for classes of other names: "
            f"class {index} is {own[index]!r}, and was {inherited[index]!r}{hint}"
        )
    return own


def inherited_names(parent: Header, job: TrainingJob) -> tuple[str, ...] | None:
    """Class names of the model that a run starts from; None if the head, and so its classes, are new."""
    return parent.class_names if not job.new_head and parent.classes == job.recipe.data.classes else None


def rename_classes(run: Path, names: Sequence[str]) -> None:
    """Give the classes of a run other names. Raises `TopgbError` where they cannot be written."""
    write_settings(run, {**read_settings(run), NAMES: list(names)})


def run_names(run: Path, classes: int) -> tuple[str, ...] | None:
    """The names of a run's classes, or None if the run has none. Raises `InputError` where they are not readable."""
    names = read_settings(run).get(NAMES)
    if names is None:
        return None
    if not isinstance(names, list) or len(names) != classes or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"{run / SETTINGS_FILE} does not hold {classes:,} class names, as topgb train wrote it; put that back, or "
            "train anew"
        )
    return tuple(normalize("NFC", name) for name in names)
