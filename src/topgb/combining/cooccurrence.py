"""Vectors of classes that show which occur together: factors of the classes' pointwise mutual information."""

from collections import Counter
from collections.abc import Sequence
from itertools import product

import torch

# Smoothing, as shares of the videos. LEAST_TOGETHER is added to the probability of every pair, so that one chance
# co-occurrence of rare classes counts little; LEAST_ALONE is added to the probability of every class.
LEAST_TOGETHER = 1e-5
LEAST_ALONE = 1e-4
# Standard deviation of the vectors' values.
SPREAD = 0.3
POWER_ITERATIONS = 4


def class_vectors(labels: Sequence[Sequence[int]], classes: int, width: int) -> torch.Tensor:
    """A vector of each of V classes, float32 [V, width], from each video's labels (class numbers, without repeats).

    The matrix [V, V] with the positive part of log p(a, b) / (p(a) p(b)) is factored by a truncated SVD, U · S · Vᵀ
    (Levy and Goldberg 2014, "Neural Word Embedding as Implicit Matrix Factorization"). The vectors are the rows of
    U · √S, scaled; columns beyond the number of classes are 0.
    """
    # Videos by ordered pair of classes that they have; the pair (a, a) counts the videos with class a.
    pairs = Counter(pair for own in labels for pair in product(own, repeat=2))
    vectors = torch.zeros(classes, width)
    if not pairs:
        return vectors
    # The P pairs that occur: classes int64 [2, P], and shares of the videos [P]; and each class's share of them [V].
    places = torch.tensor(sorted(pairs)).T
    together = torch.tensor([pairs[pair] for pair in sorted(pairs)], dtype=torch.float32) / len(labels)
    alone = torch.full((classes,), LEAST_ALONE)
    same = places[0] == places[1]
    alone[places[0][same]] += together[same]
    chance = alone[places[0]] * alone[places[1]]
    information = ((together + LEAST_TOGETHER) / (chance + LEAST_TOGETHER)).log().clamp_min(0)
    matrix = torch.sparse_coo_tensor(places, information, (classes, classes), check_invariants=True).coalesce()
    rank = min(width, classes)
    left, sizes, _ = torch.svd_lowrank(matrix, q=rank, niter=POWER_ITERATIONS)
    vectors[:, :rank] = left * sizes.sqrt()
    return vectors * (SPREAD / vectors.std().clamp_min(1e-12))
