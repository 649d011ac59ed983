"""Batch to probabilities: the frontend, frame aggregators, classifier heads, and their registry."""

from topgb.models.config import ModelConfig, parse_model
from topgb.models.tagger import Tagger, build_tagger

__all__ = ["ModelConfig", "Tagger", "build_tagger", "parse_model"]
