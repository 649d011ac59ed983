"""The search over mixtures: what fits, what is best, and that it is always the same."""

import itertools

import pytest
import torch

from topgb.combining.search import QuantisedMember, best, frontier, search
from topgb.combining.shortlist import Shortlist

MEMBERS, VIDEOS, LISTED = 5, 300, 30
BITS = (2.0, 4.0)


@pytest.fixture(scope="module")
def candidates():
    """Members that see the same truth through noises of their own; at fewer bits through more noise."""
    random = torch.Generator().manual_seed(3)
    truth = torch.randn(VIDEOS, LISTED, generator=random)
    hits = truth > 1.2
    shortlist = Shortlist(torch.arange(LISTED).expand(VIDEOS, -1), hits, hits.sum(1))
    found = {}
    for member in range(MEMBERS):
        own = torch.randn(VIDEOS, LISTED, generator=random) * (0.8 + 0.1 * member)
        for bits in BITS:
            noise = torch.randn(VIDEOS, LISTED, generator=random) / bits
            found[member, bits] = QuantisedMember(member, bits, int(100 * bits), (truth + own + noise).sigmoid())
    return found, shortlist.gap


def _best_of_all(candidates, budget, gap):
    """The best mixture of members at one number of bits, by trying all."""
    found = 0.0
    for bits, count in itertools.product(BITS, range(1, MEMBERS + 1)):
        for members in itertools.combinations(range(MEMBERS), count):
            chosen = [candidates[member, bits] for member in members]
            if sum(c.size for c in chosen) <= budget:
                found = max(found, gap(torch.stack([c.scores for c in chosen]).sum(0)))
    return found


@pytest.mark.parametrize("budget", [200, 399, 400, 600, 1000, 1400, 2000])
def test_the_best_mixture_is_found_nearly(candidates, budget):
    candidates, gap = candidates
    walked = search(candidates, budget, gap)
    choice = best(walked)
    assert choice.size <= budget
    assert choice.size == sum(candidates[item].size for item in choice.bits)
    assert choice.gap == pytest.approx(gap(torch.stack([candidates[item].scores for item in choice.bits]).sum(0)))
    assert max(c.gap for c in walked) == choice.gap
    assert all(c.size <= budget for c in walked)
    assert choice.gap <= _best_of_all(candidates, budget, gap) + 1e-12
    # Members added one by one need not end in the best set.
    assert choice.gap >= _best_of_all(candidates, budget, gap) - 0.002
    assert search(candidates, budget, gap) == walked


def test_nothing_fits(candidates):
    assert search(candidates[0], 199, candidates[1]) == []


def test_the_frontier_rises_with_size(candidates):
    walked = search(candidates[0], 2000, candidates[1])
    shown = frontier(walked)
    assert [c.size for c in shown] == sorted({c.size for c in shown})
    assert [c.gap for c in shown] == sorted({c.gap for c in shown})
    assert all(any(kept.size <= c.size and kept.gap >= c.gap for kept in shown) for c in walked)
