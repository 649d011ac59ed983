"""What a teacher is worth on real records: the tables of docs/distilling.md.

    .venv/bin/python benchmarks/distill.py [yt8m|audioset] [--seeds 3] [--jobs 2]

Everything is trained on all of `train` and scored on `validate`, which is looked at here alone: settings were chosen on
shards held out of `train`. A benchmark that was interrupted goes on where it was.
"""

import argparse
import os
import platform
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
from commands import TRAIN, VALIDATE, Training, in_parallel, require_records, score, threads_of, topgb, train_all

OUT = Path("runs/distill")
# The nets of facts.md: batch norm, ReLU and little dropout; and the shipped recipe, which is regularised better.
PLAIN = ["model.head.activation=relu", "model.head.dropout=0.3", "model.head.input_dropout=0"]
WEIGHTS = (0.5, 1.0)
TOP_K = (5, 20, 100)


@dataclass(frozen=True)
class Study:
    """A teacher's members (recipe, overrides, seed), students by name (recipe, overrides), who tries top-k out."""

    teacher: list[tuple[str, list[str], int]]
    students: dict[str, tuple[str, list[str]]]
    top_k_student: str | None = None


STUDIES = {
    "yt8m": Study(
        [("yt8m-video", [], 100 + seed) for seed in range(3)],
        {"plain": ("yt8m-video", PLAIN), "regularised": ("yt8m-video", [])},
        "plain",
    ),
    "audioset": Study(
        [("audioset-netvlad", [], 100), ("audioset-soft-dbof", [], 100), ("audioset-mix-nextvlad", [], 100)],
        {"bag of frames": ("audioset-dbof", [])},
    ),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("records", nargs="?", choices=STUDIES, default="yt8m")
    arguments.add_argument("--seeds", type=int, default=3, help="students of each kind (default 3)")
    arguments.add_argument("--jobs", type=int, default=2, help="trainings side by side (default 2)")
    chosen = arguments.parse_args()
    require_records()
    study, folder, data = STUDIES[chosen.records], OUT / chosen.records, TRAIN[chosen.records]
    members = [
        Training(folder / f"teacher-{recipe}-{seed}", recipe, data, [*settings, f"training.seed={seed}"])
        for recipe, settings, seed in study.teacher
    ]
    train_all(members, chosen.jobs)
    teacher = folder / "teacher.safetensors"
    if not teacher.exists():
        topgb("model", "ensemble", *(member.model for member in members), "--out", teacher)
    scores, bytes_a_video = folder / "scores", {}
    for top_k in (None, *(TOP_K if study.top_k_student else ())):
        command = ["distill", teacher, data, "--out", _scores(scores, top_k)]
        said = topgb(*command, *([] if top_k is None else ["--top-k", str(top_k)]))
        bytes_a_video[top_k] = said.rsplit(", ", 1)[1].split()[0]
    rows = {
        (student, weight, top_k): [
            _student(study, folder, data, student, weight, top_k, seed) for seed in range(chosen.seeds)
        ]
        for student, weight, top_k in _wanted(study)
    }
    train_all([one for row in rows.values() for one in row], chosen.jobs)
    validate = VALIDATE[chosen.records]
    everything = [teacher, *(one.model for row in rows.values() for one in row), *(member.model for member in members)]
    in_parallel(lambda model: score(model, validate, chosen.jobs), everything, chosen.jobs)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    print(f"{threads_of(chosen.jobs)} threads each, {chosen.seeds} seeds\n")
    of_members = ", ".join(f"{score(member.model, validate)['gap']:.4f}" for member in members)
    print(f"teacher: GAP {score(teacher, validate)['gap']:.4f}, its members {of_members}\n")
    print("| student | teacher's share | classes kept | bytes a video | GAP@20 | to share 0 | MAP |")
    print("|---|---|---|---|---|---|---|")
    for (student, weight, top_k), row in rows.items():
        found = [score(one.model, validate) for one in row]
        base = [score(one.model, validate)["gap"] for one in rows[student, 0.0, None]]
        gaps = [figures["gap"] for figures in found]
        gain = statistics.mean(gaps) - statistics.mean(base)
        kept = "–" if weight == 0 else "all" if top_k is None else str(top_k)
        size = "–" if weight == 0 else bytes_a_video[top_k]
        figure = f"{statistics.mean(gaps):.4f} ± {statistics.stdev(gaps) if len(gaps) > 1 else 0:.4f}"
        mean_map = statistics.mean(figures["map"] for figures in found)
        print(f"| {student} | {weight:g} | {kept} | {size} | {figure} | {gain:+.4f} | {mean_map:.4f} |")


def _wanted(study: Study) -> list[tuple[str, float, int | None]]:
    plan: list[tuple[str, float, int | None]] = []
    for student in study.students:
        plan += [(student, weight, None) for weight in (0.0, *WEIGHTS)]
        if student == study.top_k_student:
            plan += [(student, 1.0, top_k) for top_k in TOP_K]
    return plan


def _student(
    study: Study, folder: Path, data: str, student: str, weight: float, top_k: int | None, seed: int
) -> Training:
    recipe, settings = study.students[student]
    options = ["--teacher", str(_scores(folder / "scores", top_k)), "--distill-weight", str(weight)] if weight else []
    name = f"{student.replace(' ', '-')}-{weight:g}-{top_k or 'all'}-{seed}"
    return Training(folder / name, recipe, data, [*settings, f"training.seed={seed}"], options)


def _scores(folder: Path, top_k: int | None) -> Path:
    return folder / ("all" if top_k is None else f"top-{top_k}")


if __name__ == "__main__":
    main()
