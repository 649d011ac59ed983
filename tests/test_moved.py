"""Imports that docs/api.md showed before the rooms were divided, and before there were public calls, go on working."""

import subprocess
import sys

import pytest

BEFORE = """
from topgb.compress.average import average
from topgb.compress.ensemble import ensemble
from topgb.compress.parents import open_for_parents, open_parents
from topgb.compress.quantize import Settings, quantize_file
from topgb.compress.remember import remember
from topgb.compress.rerank import rerank
from topgb.compress.shrink import shrink
from topgb.compress.weights import fit_models
from topgb.devices import flush_subnormals, keep_freed_memory
from topgb.evaluation.compare import compare
from topgb.evaluation.distill import distill, open_records, open_teacher
from topgb.evaluation.metrics import Metrics
from topgb.evaluation.predict import write_predictions
from topgb.evaluation.score import evaluate, evaluate_rounds, open_for
from topgb.evaluation.submission import check
from topgb.features import YOUTUBE8M_FRAMES, Feature, FeatureSpec
from topgb.modelfile import Header, Member, read_model_file, write_model_file
from topgb.modelfile.export import export_model
from topgb.matmul import cache_folder, choose
from topgb.modelfile.from_2018 import config_from_flags
from topgb.modelfile.import_2018 import import_checkpoint
from topgb.modelfile.inputs import to_stored
from topgb.modelfile.packed import PackedLinear
from topgb.modelfile.tf1_checkpoint import open_checkpoint
from topgb.modelfile.variables_2018 import state_from_variables
from topgb.models import build_tagger, parse_model
from topgb.models.reranker import RerankerOptions
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.described import describe
from topgb.records.download import download
from topgb.records.fakes import drop_fakes
from topgb.records.ids import video_ids
from topgb.records.inspect import inspect_shards
from topgb.records.pack import pack
from topgb.records.sampling import parse_sampling
from topgb.records.synth import write_synthetic
from topgb.records.verify import verify_shards
from topgb.training.build import build_model_file, load_run
from topgb.training.ema import continued_recipe
from topgb.training.loop import TrainingJob, train
from topgb.training.memory import estimate_memory
from topgb.training.recipe import load_recipe
from topgb.vocabulary import read_vocabulary
from topgb.combining.average import average
from topgb.combining.ensemble import ensemble
from topgb.combining.parents import open_parents
from topgb.combining.remember import remember
from topgb.combining.rerank import rerank
from topgb.combining.shrink import shrink
from topgb.combining.weights import fit_models
from topgb.evaluation.distill import DistillOptions, distill, open_records, open_teacher
from topgb.evaluation.opening import open_for
from topgb.evaluation.predictions import FrameDraw
from topgb.features import Feature, FeatureSpec, YOUTUBE8M_FRAMES
from topgb.from2018.checkpoint import open_checkpoint
from topgb.from2018.flags import config_from_flags
from topgb.from2018.importing import import_checkpoint
from topgb.from2018.variables import state_from_variables
from topgb.modelfile.loaded import assemble_stored
from topgb.packing.pack import PackOptions, pack
from topgb.quantizing.quantize import QuantizeOptions, quantize_file
from topgb.records.description import find_description
from topgb.records.synth import SynthOptions, write_synthetic
from topgb.youtube8m.download import DownloadOptions, download
from topgb.youtube8m.fakes import FakeCriterion, drop_fakes
from topgb.youtube8m.submission import check
""".strip().splitlines()


@pytest.mark.parametrize("line", BEFORE)
def test_an_import_of_before_works(line):
    exec(line, {})


def test_import_topgb_imports_no_library():
    code = "import sys, topgb; print(*(name for name in ('torch', 'numpy', 'yaml') if name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_a_module_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError, match="topgb.compress.zip"):
        exec("import topgb.compress.zip", {})
    with pytest.raises(ImportError, match="cannot import name 'unpack'"):
        exec("from topgb.records.pack import unpack", {})
