"""Text, tables and subtitles of tagged videos, with names that a terminal or a player might obey."""

import csv
import io
import re

import pytest

import topgb
from cli.program import topgb as program
from tagging.tagged_clips import NAMES, Clips, make_clips
from topgb.tagging.formats import srt_lines, text_lines
from topgb.tagging.tag import Stretch, Tag, TaggedVideo
from topgb.tagging.timeline import Window, windows_of


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Clips:
    return make_clips(tmp_path_factory.mktemp("clips"), "sound", {"a": 3.0, "b\n,": 2.0})


def test_two_formats_are_not_one():
    code, _, err = program("tag", "m", "a.mp4", "--json", "--format", "srt")
    assert (code, err) == (2, "topgb: --json and --format srt ask for two formats; leave one of them out\n")


def test_words_are_escaped(clips):
    done = program("tag", clips.model, *clips.videos.values(), "--timeline", 2)
    assert done.returncode == 0, done
    lines = done.stdout.splitlines()
    assert lines[0] == f"{clips.videos['a']}  0:03"
    assert len(lines) == 2 * (1 + 5) + 2 + 1
    assert "\x1b" not in done.stdout
    assert "\\x1b[2J" in done.stdout
    assert re.fullmatch(r"  0:00 to 0:02  .* 0\.\d\d, .*", lines[6])


def test_a_table_has_a_row_for_each_tag(clips):
    done = program("tag", clips.model, *clips.videos.values(), "--format", "csv", "--top", 5)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["start"] for row in rows] == ["0"] * 10
    assert {row["end"] for row in rows} == {"3", "2"}
    assert {row["name"] for row in rows} == {*NAMES[:4], "\\x1b[2J"}
    table = topgb.tag(clips.model, clips.videos["a"], timeline=1, top=1, progress=False).columns()
    assert list(table) == ["path", "start", "end", "class", "name", "probability"]
    assert list(zip(table["start"], table["end"], strict=True)) == [(0, 1), (1, 2), (2, 3)]


def test_subtitles_are_what_players_read(clips):
    done = program("tag", clips.model, clips.videos["a"], "--format", "srt", "--timeline", 2, "--top", 1)
    assert done.returncode == 0, done
    number, times, text, empty, *rest = done.stdout.split("\n")
    assert (number, times, empty) == ("1", "00:00:00,000 --> 00:00:02,000", "")
    assert re.fullmatch(r".+ \d+%", text)
    assert rest[:2] == ["2", "00:00:02,000 --> 00:00:03,000"]
    done = program("tag", clips.model, *clips.videos.values(), "--format", "srt")
    assert done.returncode == 2
    assert "the subtitles of one video" in done.stderr


def test_subtitles_leave_out_empty_stretches_and_disarm_markup():
    tags = [Tag(number, name, 0.5) for number, name in enumerate(NAMES)]
    timeline = [Stretch(0.0, 2.0, []), Stretch(3599.5, 3661.25, tags), Stretch(3661.25, 3662, tags[:1])]
    lines = list(srt_lines(TaggedVideo("v", 4.0, [], timeline)))
    assert lines[:2] == ["1", "00:59:59,500 --> 01:01:01,250"]
    assert lines[2] == "tone 50%"
    assert lines[3] == "hum <\u2060i> 50%"
    assert lines[4] == "{\u2060\\an8}noise 50%"
    assert lines[6] == "\\x1b[2J 50%"
    assert lines[7:9] == ["", "2"]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (59.96, "1:00"), (61.5, "1:01.5"), (3600, "1:00:00"), (36061, "10:01:01")]
)
def test_times_are_those_of_a_clock(seconds, shown):
    assert next(text_lines(TaggedVideo("v", seconds, []))) == f"v  {shown}"


def test_windows_cover_every_frame_once():
    assert windows_of(7, 3) == [Window(0, 3), Window(3, 6), Window(6, 7)]
    assert windows_of(6, 3) == [Window(0, 3), Window(3, 6)]
    assert windows_of(1, 3) == [Window(0, 1)]
