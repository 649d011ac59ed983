"""The call `card`: a page about a model for a model hub."""

import os
from typing import TYPE_CHECKING

from topgb.api.arguments import Data, PathLike, Size, to_path, unpacking
from topgb.api.figures import evaluate
from topgb.api.results import WrittenFile

if TYPE_CHECKING:
    from topgb.records.on_damaged import OnDamaged


@unpacking
def card(
    model: PathLike,
    out: PathLike,
    *,
    data: Data | None = None,
    force: bool = False,
    on_damaged: "OnDamaged" = "stop",
    device: str = "auto",
    max_unpacked: Size | None = None,
    progress: bool = True,
) -> WrittenFile:
    """Write a model card in the Hugging Face hub's format: front matter, use and classes (`topgb model card`).

    `model` is a model file or a run's folder, `out` a Markdown file, such as README.md. With labelled records `data`
    the card has the model's scores. Raises `InputError` as `evaluate` does, and if `out` exists and `force` is off.

    >>> print(topgb.card("model.safetensors", "card.md").path)
    card.md
    """
    from topgb.files import atomic_write, refuse_existing
    from topgb.modelfile.card import model_card
    from topgb.training.opened import open_stored

    source, path = to_path(model), to_path(out)
    refuse_existing(path, force)
    header = open_stored(source).header
    scores, where = None, ""
    if data is not None:
        found = evaluate(source, data, on_damaged=on_damaged, device=device, progress=progress)
        scores = found.to_dict()
        where = ", ".join(map(str, [data] if isinstance(data, str | os.PathLike) else data))
    # A run calls its model `model.safetensors`, as others do.
    name = source.stem if source.stem != "model" else source.resolve().parent.name
    text = model_card(header, name, source.name, scores, where)
    with atomic_write(path) as file:
        file.write(text.encode())
    return WrittenFile(path)
