"""Probabilities as answers name them."""

from typing import Any

import numpy as np

from topgb.modelfile import Header
from topgb.modelfile.best import best_classes, least_probabilities


def best_of(header: Header, probabilities: np.ndarray, top: int | None, threshold: float | str | None) -> list[Any]:
    """The best classes of each video, float32 [B, V], best first: a list of `{"class", "name", "probability"}` each.

    `top` is how many to give at most (None: all), `threshold` as for `topgb.Model.tag`. Raises `InputError` as that.
    """
    least = least_probabilities(header, threshold)
    return [tags_of(header, row, top, least) for row in probabilities]


def tags_of(header: Header, probabilities: np.ndarray, top: int | None, least: np.ndarray | None) -> list[Any]:
    """The best classes of one video, float32 [V]."""
    return [
        {"class": index, "name": header.class_name(index), "probability": float(probabilities[index])}
        for index in best_classes(probabilities, top, least)
    ]
