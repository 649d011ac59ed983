"""The program of a process that extracts videos for another one, by lines of JSON in both directions.

The first line names the extractor, the others the files to look at and to extract. The process ends when its input
ends, whatever it is doing, because then the process that it works for has ended.
"""

import json
import os
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from topgb.errors import TopgbError, printable
from topgb.files import file_sha256
from topgb.video.extract import DamagedVideoError, extract_video
from topgb.video.extractors import Extractor, find_extractor
from topgb.video.opening import UnreadableVideoError, media_seconds
from topgb.video.orders import orders
from topgb.video.stored import Key, read_summary, write_features

_REPORT_SECONDS = 0.5


def main() -> None:
    """Do what is asked until the input ends."""
    # Other text that a library prints must not come between the lines.
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")

    extractor: Extractor | None = None
    for order in orders():
        try:
            if "extractor" in order:
                extractor = find_extractor(order["extractor"], order["fps"])
                answer(ready=extractor.digest)
            elif "look" in order:
                answer(done=_look(**order["look"]))
            else:
                assert extractor is not None
                answer(done=_extract(extractor, answer, **order["extract"]))
        except Exception as error:
            answer(failed=_failure(error))


def _look(path: str, target: str, digest: str, on_damaged: str, max_seconds: float | None) -> dict[str, Any]:
    """The hash of a video and its length as its file says it, or the summary of its features if they are there."""
    content = _content(path)
    kept = read_summary(Path(target), Key(content, digest, max_seconds))
    # Damage in frames that were passed over has not been looked for.
    if kept is not None and not (kept.notes.passed and on_damaged != "keep"):
        return {"content": content, "seconds": kept.seconds, "kept": asdict(kept.notes)}
    seconds = media_seconds(path)
    return {"content": content, "seconds": seconds if max_seconds is None else min(seconds, max_seconds)}


def _content(path: str) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise UnreadableVideoError(path, error.strerror or str(error)) from None


def _extract(
    extractor: Extractor, answer: Any, path: str, target: str, content: str, on_damaged: Any, max_seconds: float | None
) -> dict[str, Any]:
    readings = bool(extractor.picture_names) + bool(extractor.sound_names)
    waiting, reported = 0.0, time.monotonic()

    def progress(seconds: float) -> None:
        nonlocal waiting, reported
        waiting += seconds / readings
        if time.monotonic() - reported > _REPORT_SECONDS:
            answer(progress=waiting)
            waiting, reported = 0.0, time.monotonic()

    features = extract_video(path, extractor, max_seconds=max_seconds, on_damaged=on_damaged, progress=progress)
    write_features(Path(target), features, Key(content, extractor.digest, max_seconds), extractor.identity)
    return {"seconds": features.seconds, "notes": asdict(features.notes)}


def _failure(error: Exception) -> dict[str, Any]:
    if isinstance(error, UnreadableVideoError | DamagedVideoError):
        kind = "unreadable" if isinstance(error, UnreadableVideoError) else "damaged"
        return {"kind": kind, "message": str(error), "reason": error.reason}
    if isinstance(error, TopgbError):
        # An error of input, such as a FIFO, concerns one file; a full disk concerns all.
        kind = "input" if error.exit_code == 2 else "failure"
        return {"kind": kind, "message": str(error), "reason": str(error)}
    if isinstance(error, MemoryError):
        return {"kind": "unreadable", "message": "", "reason": "there is not enough memory for it"}
    lines = "".join(traceback.format_exception(error))
    return {"kind": "defect", "message": "\n".join(map(printable, lines.splitlines()))}


if __name__ == "__main__":
    main()
