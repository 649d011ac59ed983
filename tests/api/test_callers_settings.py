"""What a caller has set for itself neither changes what a call does nor is changed by it, in any thread."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import topgb
from api.conftest import RECIPE
from topgb.unpacked_size import max_unpacked


@pytest.mark.parametrize("chosen", [torch.float64, torch.bfloat16, "meta"])
def test_the_callers_defaults_for_tensors_are_its_own(place, tmp_path, monkeypatch, chosen):
    """Nothing is computed in another dtype or elsewhere, whatever a notebook has set for its own tensors."""
    # Choices by timing make tensors, too, and are made anew here.
    monkeypatch.delenv("TOPGB_MATMUL", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    videos = np.random.default_rng(0).integers(0, 256, (40, 7, 40), dtype=np.uint8)
    given = "records/validate*.tfrecord"

    def worked(out: Path) -> list:
        trained = topgb.train(RECIPE, "records/train*.tfrecord", out / "run", progress=False).model
        topgb.quantize(trained, out / "small", method="int8", min_elements=10, progress=False)
        topgb.average(["a.safetensors", "b.safetensors"], out / "mean")
        topgb.ensemble(["a.safetensors", "b.safetensors"], out / "both", fit_weights=given, progress=False)
        opened = [topgb.load(path) for path in (trained, out / "small", out / "mean", out / "both")]
        found = [model.predict(videos[:count]).tolist() for model in opened for count in (1, 9, 40)]
        exported = topgb.export(trained, out / "model.pt2", to="pt2").path.stat().st_size
        return [*found, opened[0].tag(videos[0]), topgb.evaluate(trained, given, progress=False).to_dict(), exported]

    expected = worked(tmp_path / "plain")
    if isinstance(chosen, str):
        with torch.device(chosen):
            assert worked(tmp_path / "chosen") == expected
            assert torch.empty(0).device.type == chosen
        return
    torch.set_default_dtype(chosen)
    try:
        assert worked(tmp_path / "chosen") == expected
        assert torch.get_default_dtype() == chosen
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_bound_of_a_call_is_not_that_of_another_thread(place, monkeypatch):
    """Two calls that ended in the order in which they began left the first one's bound behind."""
    both, first_ended, seen = threading.Barrier(2), threading.Event(), []

    def waiting(*arguments: object) -> None:
        seen.append(max_unpacked())
        both.wait()
        if threading.current_thread() is second:
            first_ended.wait()

    monkeypatch.setattr("topgb.records.inspect.inspect_shards", waiting)
    first, second = (
        threading.Thread(target=topgb.inspect, args=["records"], kwargs={"max_unpacked": size}) for size in ("1G", "2G")
    )
    first.start()
    second.start()
    first.join()
    first_ended.set()
    second.join()
    assert sorted(seen) == [1 << 30, 2 << 30]
    assert max_unpacked() is None
