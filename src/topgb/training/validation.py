"""Score the model during training, by all ranks together."""

from lightning_fabric import Fabric

from topgb.evaluation.metrics import Metrics
from topgb.evaluation.predictions import check_found
from topgb.evaluation.score import PURPOSE, evaluate_shard
from topgb.models import Tagger
from topgb.progress import Progress
from topgb.records.dataset import Dataset
from topgb.training.ema import Shadows
from topgb.training.ranks import gather, together


def validate(tagger: Tagger, shadows: Shadows | None, dataset: Dataset, fabric: Fabric, progress: Progress) -> Metrics:
    """The metrics of the averaged weights (the raw weights without an average) on `dataset`, bit-equal on every rank.

    Raises as `topgb.evaluation.score.evaluate`.
    """
    raw = {name: value.clone() for name, value in tagger.state_dict().items()}
    if shadows is not None:
        tagger.load_state_dict(shadows.values)
    tagger.eval()
    parts: dict[int, Metrics] = {}
    try:
        with together(fabric):
            progress.begin("evaluating", dataset.num_records, "videos")
            for shard in range(fabric.global_rank, len(dataset.shards), fabric.world_size):
                parts[shard] = evaluate_shard(tagger, dataset, shard, fabric.device, progress)
            progress.end()
    finally:
        tagger.load_state_dict(raw)
        tagger.train()
    found = {shard: part for of_rank in gather(fabric, parts) for shard, part in of_rank.items()}
    metrics = Metrics(dataset.classes)
    for shard in sorted(found):
        metrics.merge(found[shard])
    check_found(metrics.positives, metrics.videos, PURPOSE)
    return metrics
