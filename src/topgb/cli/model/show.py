"""topgb model show."""

from topgb import terminal
from topgb.cli.arguments import Json, ModelOrRun, Vocabulary, named


def show(
    model: ModelOrRun,
    vocabulary: Vocabulary = None,
    json: Json = False,
) -> None:
    """Print a model file's members, tensors, bytes, origin and class names."""
    from topgb.modelfile.describe import describe, to_json
    from topgb.training.opened import open_stored

    stored = open_stored(model)
    header = named(stored.header, vocabulary)
    if json:
        terminal.show_json(to_json(header, stored.tensors, stored.file_bytes))
    else:
        terminal.show(*describe(header, stored.tensors, stored.file_bytes).split("\n"))
