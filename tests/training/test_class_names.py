"""A run's class names: where they come from, and that they change nothing else."""

import json
from dataclasses import replace

import pytest

from combining.small_models import model_file
from conftest import SMALL_CLASSES
from topgb.errors import InputError
from topgb.modelfile import read_model_file
from topgb.progress import Progress
from topgb.training.build import build_model_file, load_run
from topgb.training.class_names import inherited_names
from topgb.training.loop import TrainingJob, train
from topgb.training.recipe import load_recipe
from topgb.training.run_folder import SETTINGS_FILE

NAMES = tuple(f"class {index}, é" for index in range(SMALL_CLASSES))
OTHERS = tuple(name.upper() for name in NAMES)


@pytest.fixture
def job(small_records, small_recipe, tmp_path) -> TrainingJob:
    recipe = load_recipe(str(small_recipe), ["training.epochs=1"])
    return TrainingJob(recipe, small_records["train"], tmp_path / "run", device="cpu")


def test_a_run_has_the_names_it_was_given(job, tmp_path):
    named, plain = train(replace(job, class_names=NAMES)).model, train(replace(job, out=tmp_path / "plain")).model
    header, weights = read_model_file(named)
    other, others = read_model_file(plain)
    assert (header.class_names, other.class_names) == (NAMES, None)
    assert all((weights[name] == others[name]).all() for name in weights)
    assert load_run(job.out).header.class_names == NAMES
    assert build_model_file(job.out, tmp_path / "a", class_names=OTHERS).class_names == OTHERS
    assert read_model_file(tmp_path / "a")[0].class_names == OTHERS
    with pytest.raises(InputError, match="3 class names were given for 12 classes"):
        build_model_file(job.out, tmp_path / "b", class_names=NAMES[:3])


def test_a_resumed_run_keeps_its_names_or_takes_others(job):
    train(replace(job, class_names=NAMES))
    assert read_model_file(train(replace(job, resume=True)).model)[0].class_names == NAMES
    assert read_model_file(train(replace(job, resume=True, class_names=OTHERS)).model)[0].class_names == OTHERS
    assert load_run(job.out).header.class_names == OTHERS


def test_a_fine_tuned_run_inherits_names_unless_its_head_is_new(job, tmp_path):
    first = train(replace(job, class_names=NAMES)).model
    tuned = replace(job, init_from=first, out=tmp_path / "tuned")
    assert read_model_file(train(tuned).model)[0].class_names == NAMES
    parent = read_model_file(first)[0]
    assert inherited_names(parent, tuned) == NAMES
    assert inherited_names(parent, replace(tuned, new_head=True)) is None
    fewer = model_file(tmp_path / "fewer", classes=3, class_names=("a", "b", "c"))
    assert inherited_names(read_model_file(fewer)[0], tuned) is None


def test_a_head_that_is_kept_for_other_names_is_told(job, tmp_path):
    said, progress = [], Progress()
    progress.say = said.append
    first = train(replace(job, class_names=NAMES)).model
    tuned = replace(job, init_from=first, class_names=(*NAMES[:3], *OTHERS[3:]), out=tmp_path / "renamed")
    assert read_model_file(train(tuned, progress).model)[0].class_names == tuned.class_names
    kept = f"the head of {first} is kept for classes of other names: class 3 is 'CLASS 3, É', and was 'class 3, é'"
    assert f"{kept}; new_head=True starts it anew" in said
    for quiet in (replace(tuned, class_names=NAMES), replace(tuned, new_head=True)):
        said.clear()
        train(replace(quiet, force=True), progress)
        assert not [line for line in said if "names" in line]


def test_names_that_do_not_fit_are_refused_before_a_run_is_made(job):
    with pytest.raises(InputError, match="11 class names were given for 12 classes"):
        train(replace(job, class_names=NAMES[1:]))
    assert not job.out.exists()


@pytest.mark.parametrize("names", ["abc", ["a"], [*NAMES[1:], 3], {}])
def test_a_run_whose_names_are_broken_says_so(job, names):
    train(job)
    path = job.out / SETTINGS_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "class_names": names}))
    with pytest.raises(InputError, match="does not hold 12 class names"):
        load_run(job.out)


def test_a_run_of_before_there_were_names_has_none(job):
    train(job)
    path = job.out / SETTINGS_FILE
    settings = json.loads(path.read_text())
    del settings["class_names"]
    path.write_text(json.dumps(settings))
    assert load_run(job.out).header.class_names is None
    assert read_model_file(train(replace(job, resume=True)).model)[0].class_names is None
