"""The story of a person's own videos on clips that are made for it: extract, train, evaluate, tag, report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topgb.api.extracting import extract
from topgb.api.figures import evaluate
from topgb.api.reporting import report
from topgb.api.tagging import tag
from topgb.api.training import train
from topgb.api.written_calls import written_call
from topgb.errors import InputError, option
from topgb.files import atomic_write
from topgb.progress import SILENT, TerminalProgress
from topgb.tagging.formats import srt_lines
from topgb.tagging.tag import TaggedVideo
from topgb.training.stopping import not_resumed
from topgb.video.made_clips import MadeClip, Scene, make_clips, write_labels

RECIPE = "own-videos-av"
CLIPS, SHARE = 150, 0.2
# Seconds of a stretch of the timeline: as long as the shortest scene.
STRETCH = 2.0
FOUND = 0.5


@dataclass(frozen=True)
class VideoDemoResult:
    """The files that the demo made, and what it found.

    videos, gap  number of held-out clips, and the model's GAP@20 on them
    made         a clip that is in no records, and its true scenes
    tagged       what the model says of it
    subtitles    the timeline for a player, beside the clip
    report       the page about the model
    """

    videos: int
    gap: float
    made: MadeClip
    tagged: TaggedVideo
    subtitles: Path
    report: Path


@not_resumed()
def run_video_demo(out: Path, clips: int = CLIPS, force: bool = False, progress: bool = True) -> VideoDemoResult:
    """Fill `out` with clips, their labels, records, a run, a tagged clip and `report.html`.

    Each step is one public call, shown with the command that does the same. Raises `InputError` if `out` holds
    something and `force` is off, and `TopgbError` where a package of the extra `video` is not installed.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not force)):
        raise InputError(
            f"{out} holds something; overwrite it with {option('force', True)}, or choose another {option('out')}"
        )
    shown = TerminalProgress() if progress else SILENT
    folder, labels, data, run = out / "clips", out / "clips.csv", out / "data", out / "run"
    made = make_clips(folder, clips, seed=1, progress=shown)
    write_labels(labels, made)

    def told(name: str, arguments: list[Any], *options: str) -> None:
        shown.say(f"$ {written_call(name, arguments, *options)}")

    told("extract", [str(folder)], option("labels", str(labels)), option("validate", SHARE), option("out", str(data)))
    extract(folder, data, labels=labels, validate=SHARE, force=force, progress=progress)
    told("train", [RECIPE], option("data", str(data)), option("out", str(run)))
    train(RECIPE, data, run, force=force, progress=progress)
    told("evaluate", [str(run), str(data)])
    scores = evaluate(run, data, progress=progress)
    (new,) = make_clips(out, 1, seed=2, prefix="new", progress=SILENT)
    subtitles = new.path.with_suffix(".srt")
    told("tag", [str(run), str(new.path)], option("threshold", FOUND), option("timeline", STRETCH))
    (tagged,) = tag(run, new.path, threshold=FOUND, timeline=STRETCH, progress=progress).videos
    with atomic_write(subtitles) as file:
        file.write("".join(f"{line}\n" for line in srt_lines(tagged)).encode())
    page = out / "report.html"
    told("report", [[str(run)], str(data)], option("out", str(page)))
    report([run], data, page, title="topgb demo: own videos", force=force, progress=progress)
    return VideoDemoResult(scores.videos, scores.gap, new, tagged, subtitles, page)


def scene_lines(scenes: Sequence[Scene]) -> list[str]:
    """The scenes in words, a line for each."""
    return [
        f"0:{scene.start:02d} to 0:{scene.end:02d}  "
        + (", ".join(kind for kind in (scene.picture, scene.sound) if kind is not None) or "nothing")
        for scene in scenes
    ]
