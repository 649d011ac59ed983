"""Find shards that hold the same records as another shard, by their fingerprints and without reading a record."""

from collections.abc import Iterator

from topgb.records.dataset import Dataset


def copied_shards(training: Dataset, validation: Dataset | None) -> Iterator[str]:
    """Sentences on training shards that are copies of each other, and validation shards copied from training shards."""
    first: dict[tuple, str] = {}
    copies = []
    for path, held in _contents(training):
        original = first.setdefault(held, path)
        if original != path:
            copies.append((path, original))
    if copies:
        copy, original = copies[0]
        several = "1 shard is a copy" if len(copies) == 1 else f"{len(copies):,} shards are copies"
        yield f"of the shards to train on, {several} of another and count twice: {copy} holds the records of {original}"
    shared = (
        [] if validation is None else [(path, first[held]) for path, held in _contents(validation) if held in first]
    )
    if shared:
        path, original = shared[0]
        same = "is trained on, too" if path == original else f"holds the records of {original}, which is trained on"
        yield f"scores on the records to validate on will be too good: {path} {same}"


def _contents(records: Dataset) -> Iterator[tuple[str, tuple]]:
    """The path of each shard that has records, and its row of the fingerprint without the name."""
    for shard, (_, *held) in zip(records.shards, records.fingerprint(), strict=True):
        if held[0]:
            yield shard.path, tuple(held)
