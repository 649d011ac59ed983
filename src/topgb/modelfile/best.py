"""The best classes of a video by its probabilities."""

import numpy as np

from topgb.modelfile.header import Header


def least_probabilities(header: Header, threshold: float | str | None) -> np.ndarray | None:
    """The least probability at which each class is given, float32 [V]; None where all are given.

    `threshold` is a probability, "model" for the file's own, or None. Raises `InputError` as `Header.thresholds_for`.
    """
    return None if threshold is None else header.thresholds_for(threshold)[0].astype(np.float32)


def best_classes(probabilities: np.ndarray, top: int | None, least: np.ndarray | None) -> list[int]:
    """The numbers of the `top` best classes (None: all) by probabilities [V], best first, equal ones by number.

    Classes below `least`, float32 [V], are left out.
    """
    among = np.arange(len(probabilities)) if least is None else np.flatnonzero(probabilities >= least)
    if top is not None and top < len(among):
        # Sorting only the classes that reach the last of the best takes a fifth of the time of sorting all.
        last = np.partition(probabilities[among], -top)[-top]
        among = among[probabilities[among] >= last]
    return among[np.argsort(-probabilities[among], kind="stable")][:top].tolist()
