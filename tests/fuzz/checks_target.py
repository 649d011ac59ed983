"""`data verify` and `data inspect` on any bytes: they name what is wrong with a file, and never fail at it."""

from pathlib import Path

from fuzz import records_target, repair
from fuzz.choices import Choices
from fuzz.refusals import unless_refused
from topgb.records.framing import frame_record
from topgb.records.inspect import inspect_shards
from topgb.records.verify import verify_shards

MODES = ["payloads", "sound CRCs", "bytes"]


class Target:
    """`run` checks and inspects a file of the given bytes, which lies in `folder`."""

    tokens = records_target.Target.tokens

    def __init__(self, folder: Path):
        self._path = folder / "fuzzed.tfrecord"
        self._records = records_target.Target(folder)

    def run(self, data: bytes) -> None:
        choices = Choices(data)
        mode = choices.pick(MODES)
        if mode == "payloads":
            payloads = [choices.take(choices.number(2)) for _ in range(choices.number() % 4)]
            content = b"".join(map(frame_record, [*payloads, choices.rest()]))
        else:
            content = choices.rest() if mode == "bytes" else repair.tfrecord_crcs(choices.rest())
        self._path.write_bytes(content)
        verified = unless_refused(lambda: verify_shards(str(self._path)), self._path)
        inspected = unless_refused(lambda: inspect_shards(str(self._path)), self._path)
        if verified is None or inspected is None:
            return
        assert verified.files == inspected.files == 1
        for error in (*verified.damaged, *verified.unusable, *inspected.damaged):
            assert str(self._path) in str(error)
            assert error.reason.isprintable()
        # What is sound has all that a model needs, and so it can be summed up.
        assert verified.sound <= inspected.records

    def seeds(self) -> list[bytes]:
        """Sound records of every spec, alone and in files."""
        seeds = []
        for seed in self._records.seeds():
            mode, body = records_target.MODES[seed[0]], seed[3:]
            if mode == "payload":
                seeds.append(b"\0\0" + body)
            elif mode in ("sound CRCs", "bytes"):
                seeds.append((b"\1" if mode == "sound CRCs" else b"\2") + body)
        return sorted(set(seeds))
