"""Videos through a model: the same features and probabilities as by way of records, and a timeline."""

import json
from dataclasses import replace

import numpy as np
import pytest

import topgb
from cli.program import topgb as program
from combining.small_models import model_file
from conftest import SMALL_SPEC
from tagging.tagged_clips import NAMES, Clips, assert_as_predicted, make_clips
from topgb.errors import InputError, TopgbWarning
from topgb.evaluation.opening import open_for
from topgb.evaluation.predictions import batches
from topgb.features import YOUTUBE8M_FRAMES
from topgb.modelfile import load, read_model_file, write_model_file
from topgb.tagging.tag import TagOptions, VideoTagger
from topgb.video.extract import extract_video
from video.clips import write_clip


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Clips:
    """Clips of 3, 5 and 2 seconds, and a model that looks at 4 seconds."""
    seconds = {"a": 3.0, "b": 5.0, "c": 2.0}
    return make_clips(tmp_path_factory.mktemp("clips"), "sound", seconds, max_frames=4)


def test_features_are_those_of_the_records_to_the_byte(clips):
    model = load(clips.model)
    tagger = VideoTagger(model, TagOptions())
    for batch in batches(open_for(model, str(clips.records), with_labels=False, every_frame=True)):
        for name, features, frames in zip(batch.ids, batch.features, batch.num_frames.tolist(), strict=True):
            stored = tagger.stored(extract_video(str(clips.videos[name]), tagger.extractor))
            assert stored.dtype == np.uint8
            np.testing.assert_array_equal(stored, features[:frames].numpy())


@pytest.mark.numeric
@pytest.mark.parametrize("kind", ["default", "image"])
def test_pictures_and_sound_are_tagged_as_their_records_are_predicted(kind, tmp_path):
    clips = make_clips(tmp_path, kind, {"a": 2.0})
    assert_as_predicted(clips)


@pytest.mark.numeric
def test_probabilities_are_those_of_predict(clips):
    with pytest.warns(UserWarning, match="look"):
        assert_as_predicted(clips)


@pytest.mark.numeric
def test_a_timeline_scores_each_stretch(clips):
    """Of the whole video, beyond what the model looks at for its tags; the last stretch is what is left."""
    model = topgb.load(clips.model)
    found = model.tag_video(clips.videos["b"], top=None, timeline=2)
    assert [(each.start, each.end) for each in found.timeline] == [(0, 2), (2, 4), (4, 5)]
    assert found.seconds == 5
    tagger = VideoTagger(model.loaded, TagOptions())
    stored = tagger.stored(extract_video(str(clips.videos["b"]), tagger.extractor))
    for stretch in found.timeline:
        expected = model.loaded.predict(stored[int(stretch.start) : int(stretch.end)])
        given = {tag.number: tag.probability for tag in stretch.tags}
        np.testing.assert_allclose([given[number] for number in range(5)], expected, atol=1e-6)
    whole = model.loaded.predict(stored[:4])
    assert [tag.number for tag in found.tags] == np.argsort(-whole, kind="stable").tolist()


@pytest.mark.numeric
def test_a_model_of_segments_sees_its_context(clips, tmp_path):
    header, tensors = read_model_file(clips.model)
    (member,) = header.members
    wider = replace(member, model=replace(member.model, max_frames=11))
    extras = {**header.extras, "segments": {"frames": 5, "context": 1, "whole": 4}}
    path = tmp_path / "segments.safetensors"
    write_model_file(path, replace(header, members=(wider,), extras=extras), tensors)
    video = write_clip(tmp_path / "long.mp4", 8.0, seed=7, hertz=500)
    model = topgb.load(path)
    found = model.tag_video(video, top=None, timeline=5)
    assert [(each.start, each.end) for each in found.timeline] == [(0, 5), (5, 8)]
    tagger = VideoTagger(model.loaded, TagOptions())
    stored = tagger.stored(extract_video(str(video), tagger.extractor))
    for stretch, rows in zip(found.timeline, ([0, 1, 2, 3, 4, 0, 5], [5, 6, 7, 7, 7, 4, 7]), strict=True):
        expected = model.loaded.predict(stored[[*rows, 1, 3, 5, 7]])
        given = {tag.number: tag.probability for tag in stretch.tags}
        np.testing.assert_allclose([given[number] for number in range(5)], expected, atol=1e-6)
    with pytest.raises(InputError, match="timeline=5"):
        model.tag_video(video, timeline=2)


def test_no_more_is_read_than_the_model_looks_at(clips, monkeypatch):
    asked = []

    def noted(path, extractor, **options):
        asked.append(options["max_seconds"])
        return extract_video(path, extractor, **options)

    monkeypatch.setattr("topgb.tagging.tag.extract_video", noted)
    model = topgb.load(clips.model)
    found = model.tag_video(clips.videos["b"])
    assert found.seconds == 4
    assert found.remarks[-1] == (
        "its tags are those of the first 4 seconds, as many as the model looks at; timeline=5 looks at every part"
    )
    short = model.tag_video(clips.videos["a"])
    assert short.seconds == 3
    assert not any("first" in remark for remark in short.remarks)
    model.tag_video(clips.videos["b"], timeline=1)
    assert asked == [5.0, 5.0, None]


def test_one_unreadable_file_does_not_stop_the_rest(clips, tmp_path):
    broken, absent = tmp_path / "broken.mp4", tmp_path / "absent.mp4"
    broken.write_bytes(clips.videos["a"].read_bytes()[:100])
    files = [broken, clips.videos["a"], absent, clips.videos["c"]]
    done = program("tag", clips.model, *files, "--json")
    assert done.returncode == 1, done
    value = json.loads(done.stdout)
    assert [video["path"] for video in value["videos"]] == [str(clips.videos["a"]), str(clips.videos["c"])]
    assert [each["path"] for each in value["unreadable"]] == [str(broken), str(absent)]
    assert f"cannot read {broken}" in done.stderr
    with pytest.warns(TopgbWarning, match="cannot read .*broken"):
        found = topgb.tag(clips.model, files[:2], progress=False)
    assert [video.path for video in found.videos] == [str(clips.videos["a"])]
    with pytest.raises(InputError, match="cannot read .*absent"):
        topgb.load(clips.model).tag_video(absent)


def test_a_folder_stands_for_the_videos_in_it(clips, tmp_path):
    found = topgb.tag(clips.model, clips.videos["a"].parent, progress=False)
    assert [video.path for video in found.videos] == [str(clips.videos[name]) for name in "abc"]
    with pytest.raises(InputError, match="holds no video, sound or picture"):
        topgb.tag(clips.model, [clips.videos["a"], tmp_path], progress=False)


def test_json_has_these_keys(clips):
    done = program("tag", clips.model, clips.videos["c"], "--format", "json", "--timeline", 1, "--top", 2)
    (video,) = json.loads(done.stdout).pop("videos")
    assert list(video) == ["path", "seconds", "tags", "timeline"]
    assert video["seconds"] == 2
    assert [list(each) for each in video["timeline"]] == [["start", "end", "tags"]] * 2
    for tags in (video["tags"], *(each["tags"] for each in video["timeline"])):
        assert [list(tag) for tag in tags] == [["class", "name", "probability"]] * 2
        assert all(tag["name"] == NAMES[tag["class"]] for tag in tags)
    assert "unreadable" not in json.loads(done.stdout)


def test_tags_reach_their_threshold(clips, tmp_path):
    header, tensors = read_model_file(clips.model)
    least = {"goal": "f1", "common": 0.5, "values": [0.0, 1.0, 0.0, 1.0, 1.0]}
    own = tmp_path / "m.safetensors"
    write_model_file(own, replace(header, extras={**header.extras, "thresholds": least}), tensors)
    found = topgb.tag(own, clips.videos["a"], threshold="model", timeline=3, progress=False)
    assert {tag.number for tag in found.videos[0].tags} == {0, 2}
    assert {tag.number for tag in found.videos[0].timeline[0].tags} == {0, 2}
    found = topgb.tag(own, [clips.videos["a"]], threshold=1.0, progress=False)
    assert found.videos[0].tags == []
    done = program("tag", own, clips.videos["a"], "--threshold", "1")
    assert "no class reaches its threshold" in done.stdout
    with pytest.raises(InputError, match="has no thresholds"):
        topgb.tag(clips.model, clips.videos["a"], threshold="model", progress=False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"top": 0}, "top=0 gives no class"),
        ({"timeline": 0}, "timeline=0 is no length of a stretch; this model takes 1 to 4 seconds"),
        ({"timeline": 5}, "this model takes 1 to 4 seconds"),
        ({"timeline": float("nan")}, "this model takes 1 to 4 seconds"),
        ({"timeline": "much"}, "timeline='much' is no length"),
        ({"threshold": 2}, "threshold=2 is no probability"),
    ],
)
def test_senseless_options_are_refused(clips, options, said):
    with pytest.raises(InputError, match=said):
        topgb.tag(clips.model, clips.videos["a"], progress=False, **options)
    with pytest.raises(InputError, match="names no videos"):
        topgb.tag(clips.model, [], progress=False)


def test_a_model_whose_features_came_from_elsewhere_says_so(clips, tmp_path):
    header, tensors = read_model_file(clips.model)
    unknown = tmp_path / "unknown.safetensors"
    write_model_file(unknown, replace(header, extras={}), tensors)
    with pytest.raises(InputError, match="takes the features .*, and does not say which extractor makes them"):
        topgb.tag(unknown, clips.videos["a"], progress=False)
    section = {"aggregator": "average", "head": {"name": "logistic"}}
    model = model_file(tmp_path / "yt8m.safetensors", section, features=YOUTUBE8M_FRAMES)
    done = program("tag", model, clips.videos["a"])
    assert done.returncode == 2
    assert "YouTube-8M's features (rgb 1024, audio 128), which no extractor here makes" in done.stderr
    identity = {**header.extractor, "version": 999}
    write_model_file(unknown, replace(header, extras={"extractor": identity}), tensors, force=True)
    with pytest.raises(InputError, match="is not the one of this topgb, .*version is 1, not 999"):
        topgb.tag(unknown, clips.videos["a"], progress=False)
    small = model_file(tmp_path / "small.safetensors", section, features=SMALL_SPEC, extras=header.extras)
    with pytest.raises(
        InputError, match="features rgb 32, audio 8, and the extractor 'sound' that it names makes others"
    ):
        topgb.tag(small, clips.videos["a"], progress=False)


def test_what_is_missing_is_said(clips, tmp_path):
    silent = write_clip(tmp_path / "silent.mp4", 2.0, sound=None)
    whole = make_clips(tmp_path / "made", "default", {"a": 1.0})
    done = program("tag", whole.model, silent)
    assert done.returncode == 0, done
    assert f"{silent}: it has no sound" in done.stderr
