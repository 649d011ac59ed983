"""Waiting requests are computed together, in order, and each gets its own answer."""

import threading
import time
from concurrent.futures import CancelledError, wait
from typing import Any

import numpy as np
import pytest

from conftest import SMALL_SPEC
from topgb.errors import InputError
from topgb.modelfile import Header, Member
from topgb.models import parse_model
from topgb.serving.batching import Batcher, FullError
from topgb.serving.served import ServedModel

HEADER = Header(SMALL_SPEC, 1, (Member(1.0, parse_model({"aggregator": "average", "head": "logistic"})),), {})
PATIENCE = 30


class Held:
    """A model whose probability is its video's first byte; its first call lasts until it is let go."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def predict(self, features: np.ndarray, num_frames: np.ndarray) -> np.ndarray:
        self.calls.append(features[:, 0, 0].tolist())
        self.begun.set()
        assert self.go.wait(PATIENCE)
        if 99 in self.calls[-1]:
            raise InputError("99 is wrong")
        assert all((row[count:] == 0).all() for row, count in zip(features, num_frames, strict=True))
        return features[:, :1, 0].astype(np.float32)

    def served(self, name: str = "m") -> ServedModel:
        return ServedModel(name, HEADER, 0, self.predict)


def _video(number: int, frames: int = 2) -> np.ndarray:
    return np.full((frames, SMALL_SPEC.width), number, np.uint8)


def _numbers(answers: list[Any]) -> list[list[int]]:
    return [answer.result(PATIENCE).probabilities[:, 0].astype(int).tolist() for answer in answers]


def test_requests_that_wait_are_computed_together_and_in_order():
    model = Held()
    batcher, served = Batcher(0.0, 6, 100), model.served()
    first = batcher.submit(served, [_video(1)])
    assert model.begun.wait(PATIENCE)
    # Of other lengths and numbers, while the model is busy.
    others = [batcher.submit(served, [_video(10 * i + j, frames=1 + j) for j in range(i)]) for i in (1, 3, 2, 4)]
    assert batcher.waiting == 10
    model.go.set()
    assert _numbers([first, *others]) == [[1], [10], [30, 31, 32], [20, 21], [40, 41, 42, 43]]
    assert model.calls == [[1], [10, 30, 31, 32, 20, 21], [40, 41, 42, 43]]
    assert batcher.waiting == 0
    batcher.close()


def test_the_window_waits_for_others():
    model = Held()
    model.go.set()
    # It ends as soon as a batch is full.
    batcher = Batcher(PATIENCE, 3, 100)
    began = time.monotonic()
    served = model.served()
    answers = [batcher.submit(served, [_video(i)]) for i in range(3)]
    wait(answers, PATIENCE)
    assert time.monotonic() - began < PATIENCE / 2
    assert model.calls == [[0, 1, 2]]
    batcher.close()


def test_models_are_not_mixed():
    a, b = Held(), Held()
    b.go.set()
    batcher, one, two = Batcher(0.0, 8, 100), a.served("a"), b.served("b")
    answers = [batcher.submit(one, [_video(1)])]
    assert a.begun.wait(PATIENCE)
    answers += [batcher.submit(model, [_video(i)]) for i, model in ((2, two), (3, one), (4, two))]
    a.go.set()
    assert _numbers(answers) == [[1], [2], [3], [4]]
    assert (a.calls, b.calls) == ([[1], [3]], [[2, 4]])
    batcher.close()


def test_a_request_that_fails_fails_alone():
    model = Held()
    batcher, served = Batcher(0.0, 8, 100), model.served()
    first = batcher.submit(served, [_video(1)])
    assert model.begun.wait(PATIENCE)
    others = [batcher.submit(served, [_video(i)]) for i in (2, 99, 3)]
    model.go.set()
    assert _numbers([first, others[0], others[2]]) == [[1], [2], [3]]
    with pytest.raises(InputError, match="99 is wrong"):
        others[1].result(PATIENCE)
    batcher.close()


def test_values_that_are_not_finite_are_refused_to_their_own_request():
    def predict(features: np.ndarray, num_frames: np.ndarray) -> np.ndarray:
        return np.where(features[:, :1, 0] == 7, np.nan, 0.5).astype(np.float32)

    batcher, served = Batcher(0.5, 2, 100), ServedModel("m", HEADER, 0, predict)
    good, bad = (batcher.submit(served, [_video(i)]) for i in (1, 7))
    assert good.result(PATIENCE).probabilities.tolist() == [[0.5]]
    with pytest.raises(InputError, match="no finite probabilities"):
        bad.result(PATIENCE)
    batcher.close()


def test_a_full_queue_refuses_and_says_when_to_come_again():
    model = Held()
    batcher, served = Batcher(0.0, 2, 4), model.served()
    # A request that is larger than the queue is taken by an empty one: nobody could ever ask it otherwise.
    first = batcher.submit(served, [_video(i) for i in range(6)])
    assert model.begun.wait(PATIENCE)
    others = [batcher.submit(served, [_video(i)]) for i in range(4)]
    with pytest.raises(FullError) as full:
        batcher.submit(served, [_video(5)])
    assert 1 <= full.value.retry_after <= 30
    model.go.set()
    assert _numbers([first, *others]) == [[0, 1, 2, 3, 4, 5], [0], [1], [2], [3]]
    assert model.calls[:3] == [[0, 1], [2, 3], [4, 5]]
    batcher.close()


def test_a_request_whose_client_has_gone_is_not_computed():
    model = Held()
    batcher, served = Batcher(0.0, 8, 100), model.served()
    first = batcher.submit(served, [_video(1)])
    assert model.begun.wait(PATIENCE)
    gone, stays = (batcher.submit(served, [_video(i)]) for i in (2, 3))
    gone.cancel()
    model.go.set()
    assert _numbers([first, stays]) == [[1], [3]]
    assert model.calls == [[1], [3]]
    with pytest.raises(CancelledError):
        gone.result(PATIENCE)
    batcher.close()


def test_closing_answers_what_waits():
    model = Held()
    batcher, served = Batcher(PATIENCE, 8, 100), model.served()
    answers = [batcher.submit(served, [_video(i)]) for i in range(3)]
    model.go.set()
    batcher.close()
    assert all(answer.done() for answer in answers)
    assert _numbers(answers) == [[0], [1], [2]]
