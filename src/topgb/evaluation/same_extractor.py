"""Whether records hold features of the extractor that a model was trained on."""

from collections.abc import Callable, Sequence

from topgb.errors import InputError
from topgb.extractor_identity import Identity, difference, shown
from topgb.records.description import Description

# Features of any extractor will do, as when a new model is trained.
ANY: Identity = {}


def extractor_of_records(described: Sequence[Description | None]) -> Identity | None:
    """The extractor that the descriptions `described` of several folders name, or None if none names one.

    Raises `InputError` where two folders name different ones.
    """
    saying = [found for found in described if found is not None and found.extractor is not None]
    for other in saying[1:]:
        _refuse_other(
            saying[0].extractor or ANY,
            other,
            f"those of {saying[0].path.parent} by",
            "name folders with features of one extractor",
        )
    return saying[0].extractor if saying else None


def check_extractor(
    wanted: Identity | None,
    described: Sequence[Description | None],
    pattern: str | Sequence[str],
    tell: Callable[[str], None],
) -> None:
    """Check that records hold features of the extractor `wanted`: a model's, None if the model names none, or `ANY`.

    `described` are the descriptions beside the records of `pattern`. If only the model or only the records name an
    extractor, `tell` gets a sentence. Raises `InputError` where two extractors differ.
    """
    found = extractor_of_records(described)
    if wanted == ANY or (wanted is None and found is None):
        return
    if wanted is None:
        assert found is not None
        tell(
            f"the features of these records were made by the extractor {shown(found)}, and the model does not say "
            "which made those it was trained on; whether they are the same is not checked"
        )
        return
    for folder in described:
        if folder is not None and folder.extractor is not None:
            _refuse_other(
                wanted,
                folder,
                "those that the model was trained on by",
                "extract the videos anew by that one, or use a model that was trained on these features",
            )
    if found is None or any(folder is None or folder.extractor is None for folder in described):
        records = pattern if isinstance(pattern, str) else pattern[0] + (" …" if len(pattern) > 1 else "")
        tell(
            f"the model was trained on features of the extractor {shown(wanted)}, and nothing beside {records} says "
            "which made the features there; whether they are the same is not checked"
        )


def _refuse_other(wanted: Identity, found: Description, whose: str, remedy: str) -> None:
    theirs = found.extractor or ANY
    how = difference(theirs, wanted)
    if how is not None:
        raise InputError(
            f"{found.path}: its features were made by the extractor {shown(theirs)}, {whose} {shown(wanted)}: {how}; "
            f"{remedy}"
        )
