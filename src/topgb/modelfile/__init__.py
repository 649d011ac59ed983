"""The model file: one safetensors file that every stage after training reads and writes."""

from topgb.modelfile.header import Header, Member, TensorEncoding
from topgb.modelfile.loaded import LoadedModel, load
from topgb.modelfile.store import read_model_file, write_model_file

__all__ = ["Header", "LoadedModel", "Member", "TensorEncoding", "load", "read_model_file", "write_model_file"]
