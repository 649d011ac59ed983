"""Search for the best mixture within a budget: which members, and at how many bits each."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class QuantisedMember:
    """A member at one number of bits: its `size` in the file in bytes, and its `scores` float32 [N, K]."""

    member: int
    bits: float
    size: int
    scores: torch.Tensor


@dataclass(frozen=True)
class Mixture:
    """A mixture: (member, bits) pairs, their total size in bytes, and GAP@20 with equal weights."""

    bits: tuple[tuple[int, float], ...]
    size: int
    gap: float


QuantisedMembers = Mapping[tuple[int, float], QuantisedMember]
Gap = Callable[[torch.Tensor], float]


def search(members: QuantisedMembers, budget: int, gap: Gap) -> list[Mixture]:
    """Every mixture that the search builds, each of `budget` bytes at most; empty if no member fits.

    For each number of bits the search is greedy: it adds members one by one, always the one that gives the best
    mixture, while one fits. `gap` scores the sum of members' scores, float32 [N, K]. Searching on from the best mixture
    (changing one member's bits, exchanging members) overfits: it was measured to bring nothing on other videos.
    """
    return [choice for bits in sorted({bits for _, bits in members}) for choice in _greedy(members, bits, budget, gap)]


def best(walked: list[Mixture]) -> Mixture:
    """The mixture with the best score, the smaller of equal ones."""
    return max(walked, key=lambda choice: (choice.gap, -choice.size))


def frontier(walked: list[Mixture]) -> list[Mixture]:
    """The mixtures that are better than all smaller ones, by rising size."""
    rising: list[Mixture] = []
    for choice in sorted(walked, key=lambda choice: (choice.size, -choice.gap)):
        if not rising or choice.gap > rising[-1].gap:
            rising.append(choice)
    return rising


def _greedy(members: QuantisedMembers, bits: float, budget: int, gap: Gap) -> Iterator[Mixture]:
    """Yield the greedy mixtures at one number of bits: of one member, of two, and so on."""
    left = [member for member in members.values() if member.bits == bits]
    chosen: list[QuantisedMember] = []
    total: torch.Tensor | float = 0.0
    size = 0
    while True:
        left = [member for member in left if size + member.size <= budget]
        if not left:
            return
        scored = [(gap(total + member.scores), -member.size, place) for place, member in enumerate(left)]
        score, _, place = max(scored)
        member = left.pop(place)
        chosen.append(member)
        total = total + member.scores
        size += member.size
        yield Mixture(tuple(sorted((c.member, c.bits) for c in chosen)), size, score)
