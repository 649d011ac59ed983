"""The model file: one safetensors file that every stage after training reads and writes."""

from topgb.modelfile.header import Header, Member, TensorEncoding
from topgb.modelfile.loaded import LoadedModel, load
from topgb.modelfile.store import StoredModel, read_model_file, stored_model, write_model_file

__all__ = [
    "Header",
    "LoadedModel",
    "Member",
    "StoredModel",
    "TensorEncoding",
    "load",
    "read_model_file",
    "stored_model",
    "write_model_file",
]
