"""Videos to features in a process of its own, which can be ended whatever a stranger's file does to it.

Run as a program, this module is that process: each line of its input is a JSON object that names a file, and each line
of its output is the result. The features go to a `.npz` file.
"""

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from topgb.errors import InputError, TopgbError
from topgb.terminal import show_json
from topgb.video.orders import orders


class Extracting:
    """A process that makes features of one video at a time; it is started when it is needed."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._process: subprocess.Popen[str] | None = None
        self._turn, self._ending = threading.Lock(), threading.Lock()

    def extract(self, path: Path, out: Path, identity: dict[str, Any], max_seconds: float) -> dict[str, Any]:
        """Make the features of a video with the extractor that `identity` describes, and write them to `out`.

        Returns `seconds`, `fps` and `remarks`. Raises `InputError` where the file cannot be read, or takes longer than
        the server gives it, and `TopgbError` where the extractor is not here.
        """
        with self._turn:
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            killer = threading.Timer(self._seconds, process.kill)
            killer.start()
            asked = {"path": str(path), "out": str(out), "identity": identity, "max_seconds": max_seconds}
            try:
                process.stdin.write(json.dumps(asked) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except BrokenPipeError:
                line = ""
            finally:
                killer.cancel()
            if not line:
                self.stop()
                raise InputError(
                    f"the file could not be read within {self._seconds:g} seconds; send a shorter or smaller one"
                )
            answer = json.loads(line)
            if "error" in answer:
                raise (InputError if answer["input"] else TopgbError)(answer["error"])
            return answer

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        with self._ending:
            process, self._process = self._process, None
            if process is not None:
                process.kill()
                process.wait()
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdout.close()
                # Its buffer may hold a line that could not be sent.
                with suppress(BrokenPipeError):
                    process.stdin.close()

    def _started(self) -> "subprocess.Popen[str]":
        if self._process is None or self._process.poll() is not None:
            self.stop()
            # No file in the folder that the server was started in can take the place of a module.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __spec__.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                # Ctrl-C is meant for the server, which finishes its requests.
                start_new_session=True,
            )
        return self._process


def main() -> None:
    """Answer each line of the standard input until it ends, as it does when the server is killed."""
    extractors: dict[str, Any] = {}
    for asked in orders():
        try:
            answer = _extracted(asked, extractors)
        except TopgbError as error:
            answer = {"error": str(error), "input": isinstance(error, InputError)}
        show_json(answer)


def _extracted(asked: dict[str, Any], extractors: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    from topgb.extractor_identity import digest
    from topgb.tagging.remarks import remarks_on
    from topgb.video.extract import extract_video
    from topgb.video.extractors import extractor_of

    key = digest(asked["identity"])
    if key not in extractors:
        extractors[key] = extractor_of(asked["identity"])
    extractor = extractors[key]
    found = extract_video(asked["path"], extractor, max_seconds=asked["max_seconds"])
    vectors = len(next(iter(found.arrays.values())))
    arrays: dict[str, Any] = dict(found.arrays)
    np.savez(asked["out"], **arrays)
    return {"seconds": found.seconds, "fps": extractor.fps, "remarks": remarks_on(found.notes, vectors)}


if __name__ == "__main__":
    main()
