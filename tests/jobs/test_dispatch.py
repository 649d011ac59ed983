"""Work over pieces in this process, and what needs no cluster of what surrounds a cluster."""

import pickle
import sys

import pytest

from cli.program import topgb
from topgb.errors import InputError, TopgbError
from topgb.jobs.cluster import connected
from topgb.jobs.dispatch import dispatch, in_order
from topgb.jobs.engine import Piece
from topgb.jobs.remote_opening import opened_there
from topgb.progress import Progress

PIECES = [Piece(number, f"shard {number}", 10 + number) for number in (3, 1, 2)]


def test_pieces_are_done_one_after_the_other_and_report_themselves():
    class Counting(Progress):
        advanced = 0

        def advance(self, count, note=""):
            self.advanced += count

    def work(number, progress):
        progress.advance(number)
        return number * number

    found, progress = [], Counting()
    dispatch(work, PIECES, lambda number, square: found.append((number, square)), progress=progress)
    assert found == [(3, 9), (1, 1), (2, 4)]
    assert progress.advanced == 6


def test_results_are_put_in_order():
    found = []
    take = in_order(PIECES, lambda number, result: found.append((number, result)))
    take(2, "c")
    take(1, "b")
    assert found == []
    take(3, "a")
    assert found == [(3, "a"), (1, "b"), (2, "c")]


def test_what_is_opened_there_arrives_open():
    assert pickle.loads(pickle.dumps(opened_there(dict))) == {}


def test_without_ray_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install '.\[ray\]'"):
        connected(None)


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:ray"])
def test_what_is_no_address_is_refused(address):
    pytest.importorskip("ray")
    with pytest.raises(InputError, match="give HOST:PORT"):
        connected(address)


def test_where_no_cluster_answers_the_sentence_comes_soon(monkeypatch):
    pytest.importorskip("ray")
    with pytest.raises(TopgbError, match="no Ray cluster answers at 127.0.0.1:1: Connection refused"):
        connected("127.0.0.1:1")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(TopgbError, match="no Ray cluster answers"):
        connected(None)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--address", "head:6379"), "--address head:6379 names a Ray cluster; add --engine ray"),
        (("--engine", "ray", "--device", "cuda:1"), "--device cuda:1 names a device of this machine"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, sentence):
    done = topgb("predict", tmp_path / "absent", "none", "--out", tmp_path / "p.csv", *options)
    assert done.returncode == 2
    assert sentence in done.stderr
