"""topgb data inspect."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from topgb import terminal
from topgb.cli.arguments import Data, Json, damage_rows

if TYPE_CHECKING:
    from topgb.records.feature_tallies import FeatureSummary
    from topgb.records.inspect import Inspection


def inspect(data: Data, json: Json = False) -> None:
    """Show what records hold: features, widths, frames, labels, classes; and the recipe section that reads them."""
    from topgb.progress import TerminalProgress, counting
    from topgb.records.inspect import inspect_shards

    found = inspect_shards(data, counting(TerminalProgress(), "reading", "files"))
    if json:
        terminal.show_json({**asdict(replace(found, damaged=[])), "damaged": damage_rows(found.damaged)})
    else:
        terminal.show(*_report(found))


def _report(found: "Inspection") -> list[str]:
    from topgb.records.protobuf_decoding import ID_KEYS

    lines = [f"{found.files:,} files, {found.records:,} records, {found.level} level"]
    if found.max_frames is not None:
        lines.append(f"frames    {found.min_frames} to {found.max_frames}, mean {found.mean_frames:.1f}")
    lines += [f"feature   {_summary(feature, found.records)}" for feature in found.features]
    lines += [f"context   {_summary(feature, found.records)}" for feature in found.other]
    for key, count in found.id_keys.items():
        lines.append(f"ids       {key!r} in {count:,} records")
    empty = f", {found.empty_labels:,} of them empty" if found.empty_labels else ""
    lines.append(f"labels    in {found.labelled:,} of {found.records:,} records{empty}")
    integers = [repr(f.name) for f in (*found.features, *found.other) if f.kind == "int64" and f.name not in ID_KEYS]
    if not found.labelled and not found.bad_labels and integers:
        keys = " and ".join(integers)
        lines.append(
            f"          topgb reads the key 'labels'; integers are here under {keys}: rename it if it holds them"
        )
    if found.label_fault is not None:
        lines.append(f"          unusable in {found.bad_labels or found.labelled:,} records: {found.label_fault}")
    if found.label_max is not None:
        lines.append(
            f"          {found.label_min} to {found.label_max}, {found.distinct_classes:,} different, "
            f"{found.labels_per_video:.2f} a video"
        )
    if found.segments.ratings:
        rated = found.segments
        lines.append(
            f"segments  {rated.segments:,} in {rated.records:,} records, {rated.ratings:,} ratings, "
            f"{rated.positive:,} of them positive"
        )
    elif any(feature.name == "segment_labels" for feature in (*found.features, *found.other)):
        lines.append("segments  labelled under 'segment_labels', but not rated: starts or scores are missing")
    if found.repeated:
        lines.append(f"repeated  {found.repeated.sentence()}")
    if found.damaged:
        lines.append(f"damaged   {len(found.damaged):,} records; topgb data verify says which and why")
    lines += [f"in the way   {obstacle}" for obstacle in found.obstacles]
    if found.suggested_spec is not None:
        lines += ["", _heading(found), *_recipe_section(found)]
    return lines


def _heading(found: "Inspection") -> str:
    skipping = ", with --on-damaged skip," if found.damaged else ""
    return f"a recipe that reads these records{skipping} begins"


def _summary(feature: "FeatureSummary", records: int) -> str:
    width = str(feature.min_width)
    if feature.max_width != feature.min_width:
        width += f" to {feature.max_width}"
    where = "" if feature.records == records else f", in {feature.records:,} records only"
    same = ", the same value in all" if feature.constant else ""
    return f"{feature.name}: {'text' if feature.text else feature.kind}, width {width}{where}{same}"


def _recipe_section(found: "Inspection") -> list[str]:
    spec = found.suggested_spec
    assert spec is not None
    lines = ["data:", f"  level: {spec.level}", "  features:"]
    lines += [f"    - {{name: {f.name}, size: {f.size}, dtype: {f.dtype}}}" for f in spec.features]
    if found.suggested_classes is not None:
        lines.append(f"  classes: {found.suggested_classes}  # at least; the data set may have more")
    else:
        lines.append("  # classes: their number, which no label of these records tells")
    return lines
