"""The extractor that makes the features a model takes."""

from topgb.errors import InputError
from topgb.features import YOUTUBE8M_FRAMES, YOUTUBE8M_VIDEOS
from topgb.modelfile import Header
from topgb.video.extractors import Extractor, extractor_of

YOUTUBE8M = {(f.name, f.size) for spec in (YOUTUBE8M_FRAMES, YOUTUBE8M_VIDEOS) for f in spec.features}
ELSEWHERE = (
    "make them where the model's own were made and use topgb data pack and topgb predict, or tag with a model that was "
    "trained on what topgb extract writes"
)


def needed_extractor(header: Header) -> Extractor:
    """The extractor of the features that the model was trained on.

    Raises `InputError` if the model does not name one, if this topgb does not have it or has another version of it, or
    if the model takes one vector per video; `TopgbError` where a package is not installed.
    """
    taken = {(feature.name, feature.size) for feature in header.features.features}
    takes = ", ".join(f"{feature.name} {feature.size}" for feature in header.features.features)
    if header.extractor is None and taken <= YOUTUBE8M:
        raise InputError(f"the model takes YouTube-8M's features ({takes}), which no extractor here makes; {ELSEWHERE}")
    if header.extractor is None:
        raise InputError(
            f"the model takes the features {takes}, and does not say which extractor makes them; {ELSEWHERE}"
        )
    extractor = extractor_of(header.extractor)
    made = {(feature.name, feature.size) for feature in extractor.features}
    if header.features.level != "frame" or taken != made:
        raise InputError(
            f"the model takes {header.features.level}-level features {takes}, and the extractor {extractor.name!r} "
            f"that it names makes others, a vector for each moment; {ELSEWHERE}"
        )
    return extractor
