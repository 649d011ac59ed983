"""A model card as model hubs show it: front matter in YAML, and a page in Markdown."""

from collections.abc import Mapping
from typing import Any

import yaml

from topgb.extractor_identity import shown
from topgb.modelfile.header import Header

MOST_CLASSES = 50
TASK = "video-classification"
SHOWN = {"gap": "GAP@20", "hit_at_1": "Hit@1", "perr": "PERR", "map": "MAP", "f1_micro": "F1 micro"}
SHOWN |= {"f1_macro": "F1 macro"}


def model_card(header: Header, name: str, file: str, scores: Mapping[str, Any] | None = None, data: str = "") -> str:
    """The card of the model in `file`, called `name`, with its `scores` on the records `data` if there are any."""
    front: dict[str, Any] = {"library_name": "topgb", "pipeline_tag": TASK, "tags": ["topgb", "multi-label", TASK]}
    lines = [
        f"# {name}",
        "",
        f"A multi-label tagger of videos, made with {header.origin.get('software', 'topgb')}.",
        "",
    ]
    level = header.features.level
    features = ", ".join(f"`{feature.name}` ({feature.size} values)" for feature in header.features.features)
    kinds = ", ".join(str(member.model.to_json()["aggregator"]) for member in header.members)
    lines += [
        f"* **Takes** {level}-level features: {features}; {header.max_frames} frames of a video at most.",
        *([] if header.extractor is None else [f"* **Extractor** of these features: {shown(header.extractor)}."]),
        f"* **Gives** probabilities of {header.classes:,} classes.",
        f"* **Members**: {kinds}.",
        "",
    ]
    if scores is not None:
        found = [{"type": key, "name": shown, "value": round(float(scores[key]), 5)} for key, shown in SHOWN.items()]
        result = {"task": {"type": TASK}, "dataset": {"name": data, "type": "custom"}, "metrics": found}
        front["model-index"] = [{"name": name, "results": [result]}]
        lines += ["## Scores", "", f"On {scores['videos']:,} videos of `{data}`:", "", "| measure | |", "|---|---|"]
        lines += [f"| {metric['name']} | {metric['value']:.4f} |" for metric in found] + [""]
    decide = ', threshold="model"' if header.thresholds is not None else ""
    lines += [
        "## Use", "", "```python", "import topgb", f'model = topgb.load("{file}")',
        f"model.tag(frames{decide})  # frames: [T, {header.features.width}]; [(name, probability), …]", "```", "",
    ]  # fmt: skip
    if header.class_names is not None:
        more = header.classes - MOST_CLASSES
        names = ", ".join(header.class_names[:MOST_CLASSES]) + (f" and {more:,} more" if more > 0 else "")
        lines += ["## Classes", "", names, ""]
    matter = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    return f"---\n{matter}---\n\n" + "\n".join(lines)
