"""The demo of a person's own videos with fewer clips: it leaves what it promises, and its clips are what they say."""

import re
from functools import partial

import numpy as np
import pytest

from cli.program import topgb as program
from topgb import video_demonstration
from topgb.errors import InputError
from topgb.video.extract import extract_video
from topgb.video.extractors import find_extractor
from topgb.video.made_clips import CLASSES, ELSEWHERE, HOME, make_clips, write_labels


def test_the_demo_leaves_what_it_promises(tmp_path, monkeypatch):
    run = partial(video_demonstration.run_video_demo, clips=16)
    monkeypatch.setattr(video_demonstration, "run_video_demo", run)
    out = tmp_path / "demo"
    done = program("demo", "--videos", "--out", out)
    assert done.returncode == 0, done
    assert {path.name for path in out.iterdir()} == {
        *("clips", "clips.csv", "data", "run", "new0000.mp4", "new0000.srt", "report.html")
    }
    for command in ("extract", "train", "eval", "tag", "report"):
        assert f"$ topgb {command} " in done.stderr
    gap, clips = re.match(r"GAP@20 ([01]\.\d+) on (\d+) clips that were held out\n", done.stdout).groups()
    # Probabilities that say nothing have about 0.2, and four held-out clips of few classes wander.
    assert float(gap) > 0.3
    assert 1 <= int(clips) < 10
    assert "and what it really holds:\n  0:00 to 0:0" in done.stdout
    assert "<html" in (out / "report.html").read_text()
    subtitles = (out / "new0000.srt").read_text()
    assert subtitles == "" or " --> " in subtitles
    assert program("demo", "--videos", "--out", out).returncode == 2
    with pytest.raises(InputError, match="force=True"):
        run(out)


@pytest.mark.parametrize("look", [HOME, ELSEWHERE], ids=["home", "elsewhere"])
def test_a_made_clip_holds_its_scenes(look, tmp_path):
    """As long as its scenes, the same for the same seed, and silent where a scene is."""
    one, other = make_clips(tmp_path / "a", 2, 5, look)
    again = make_clips(tmp_path / "b", 2, 5, look)
    assert [clip.scenes for clip in again] == [one.scenes, other.scenes]
    write_labels(tmp_path / "clips.csv", [one, other])
    assert (tmp_path / "clips.csv").read_text().splitlines()[1] == f"{one.path.name},{';'.join(one.labels)}"
    assert set(one.labels) <= set(CLASSES)
    extractor = find_extractor("sound")
    for clip, same in zip((one, other), again, strict=True):
        found = extract_video(str(clip.path), extractor)
        assert found.seconds == pytest.approx(clip.scenes[-1].end, abs=1)
        np.testing.assert_array_equal(extract_video(str(same.path), extractor).arrays["mel"], found.arrays["mel"])
        loudness = {scene.sound: found.arrays["mel"][scene.start : scene.end - 1].mean() for scene in clip.scenes}
        if None in loudness and len(loudness) > 1:
            assert loudness[None] < min(value for sound, value in loudness.items() if sound is not None)
