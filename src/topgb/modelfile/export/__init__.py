"""Export model files to files that run without topgb: ONNX, or a program of plain PyTorch."""

from topgb.modelfile.export.exporting import FORMATS, export_model

__all__ = ["FORMATS", "export_model"]
