"""Which members, at how many bits each: a search over mixtures whose members' scores are known."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Candidate:
    """A member at some number of bits: what it takes in the file, and its scores float32 [N, K]."""

    member: int
    bits: float
    size: int
    scores: torch.Tensor


@dataclass(frozen=True)
class Choice:
    """Some members, each at a number of bits: their total size, and the score of their equal mixture."""

    bits: tuple[tuple[int, float], ...]
    size: int
    gap: float


Candidates = Mapping[tuple[int, float], Candidate]
Gap = Callable[[torch.Tensor], float]


def search(candidates: Candidates, budget: int, gap: Gap) -> list[Choice]:
    """All mixtures looked at; the sizes of each sum to `budget` at most. Empty where no candidate fits.

    For each number of bits, members are added one by one, the one with the best mixture first, while they fit. `gap`
    scores mixed scores [N, K]. Going on from the best of these by changing one member's bits, or exchanging members,
    fits the videos that it looks at: on others it was measured to bring nothing.
    """
    return [
        choice
        for bits in sorted({bits for _, bits in candidates})
        for choice in _forward(candidates, bits, budget, gap)
    ]


def best(walked: list[Choice]) -> Choice:
    """The mixture with the best score, the smaller of equal ones."""
    return max(walked, key=lambda choice: (choice.gap, -choice.size))


def frontier(walked: list[Choice]) -> list[Choice]:
    """Those that no smaller one reaches, by size."""
    rising: list[Choice] = []
    for choice in sorted(walked, key=lambda choice: (choice.size, -choice.gap)):
        if not rising or choice.gap > rising[-1].gap:
            rising.append(choice)
    return rising


def _forward(candidates: Candidates, bits: float, budget: int, gap: Gap) -> Iterator[Choice]:
    left = [candidate for candidate in candidates.values() if candidate.bits == bits]
    chosen: list[Candidate] = []
    total: torch.Tensor | float = 0.0
    size = 0
    while True:
        left = [candidate for candidate in left if size + candidate.size <= budget]
        if not left:
            return
        scored = [(gap(total + candidate.scores), -candidate.size, place) for place, candidate in enumerate(left)]
        score, _, place = max(scored)
        candidate = left.pop(place)
        chosen.append(candidate)
        total = total + candidate.scores
        size += candidate.size
        yield Choice(tuple(sorted((c.member, c.bits) for c in chosen)), size, score)
