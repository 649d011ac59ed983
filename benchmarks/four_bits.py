"""Ways to write a 4-bit matrix into an ONNX file: bytes, memory, processor time and error, in ONNX Runtime.

    .venv/bin/python benchmarks/four_bits.py

One layer 16,384 → 1,024 with random weights in groups of 128, as `topgb model quantize --method int4` stores them. Each
row is a fresh process with one thread and a plain session. Times are the least processor time of eight calls. Errors
are relative to the greatest output of the same weights in float32.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from serving import memory

INPUTS, OUTPUTS, GROUP = 16384, 1024, 128
BLOCKS = INPUTS // GROUP
WAYS = {
    "float32": "MatMul by float32",
    "shifts": "bytes, decoded by shifts and masks (what topgb writes)",
    "uint4": "UINT4, DequantizeLinear in blocks, Add of the minima, Reshape",
    "uint4, fused": "UINT4, DequantizeLinear and MatMul, minima in a product of their own",
    "own node": "MatMulNBits with accuracy_level 0, minima in a product of their own",
}


def nibbles(codes: np.ndarray) -> np.ndarray:
    """Codes below 16, two a byte, the first in the lower half."""
    flat = codes.reshape(-1)
    return flat[::2] | flat[1::2] << 4


def model(way: str, codes: np.ndarray, scales: np.ndarray, minima: np.ndarray) -> onnx.ModelProto:
    """The layer of codes uint8 [OUTPUTS · BLOCKS, GROUP], scales and minima float16 [OUTPUTS · BLOCKS, 1]."""
    tensors, nodes = [], []

    def stored(name: str, array: np.ndarray) -> str:
        tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def stored_uint4(name: str, array: np.ndarray) -> str:
        raw = nibbles(array).tobytes()
        tensors.append(TensorProto(name=name, data_type=TensorProto.UINT4, dims=array.shape, raw_data=raw))
        return name

    def node(kind: str, *inputs: str, out: str | None = None, **options) -> str:
        nodes.append(helper.make_node(kind, inputs, [out or f"v{len(nodes)}"], **options))
        return nodes[-1].output[0]

    def floats(name: str, array: np.ndarray) -> str:
        return node("Cast", stored(name, array), to=TensorProto.FLOAT)

    def by_minima(product: str) -> None:
        """Add the groups' sums of inputs times their minima: x · (code · scale + minimum)."""
        grouped = node("Reshape", "x", stored("grouping", np.array([0, BLOCKS, GROUP])))
        sums = node("ReduceSum", grouped, stored("axis", np.array([2])), keepdims=0)
        own = node("MatMul", sums, floats("minima", minima.reshape(OUTPUTS, BLOCKS).T))
        node("Add", product, own, out="y")

    if way == "float32":
        weight = codes * scales.astype(np.float32) + minima.astype(np.float32)
        node("MatMul", "x", stored("weight", weight.reshape(OUTPUTS, INPUTS).T), out="y")
    elif way in ("shifts", "uint4"):
        groups, shape = stored("groups", np.array([-1, GROUP])), stored("shape", np.array([OUTPUTS, INPUTS]))
        if way == "shifts":
            packed = stored("codes", nibbles(codes).reshape(-1, GROUP // 2, 1))
            shifted = node("BitShift", packed, stored("places", np.array([0, 4], np.uint8)), direction="RIGHT")
            masked = node("Reshape", node("BitwiseAnd", shifted, stored("mask", np.array(15, np.uint8))), groups)
            scaled = node("Mul", node("Cast", masked, to=TensorProto.FLOAT), floats("scales", scales))
        else:
            flat = stored_uint4("codes", codes.reshape(-1))
            dequantised = node("DequantizeLinear", flat, floats("scales", scales[:, 0]), axis=0, block_size=GROUP)
            scaled = node("Reshape", dequantised, groups)
        weight = node("Reshape", node("Add", scaled, floats("minima", minima)), shape)
        node("MatMul", "x", node("Transpose", weight, perm=[1, 0]), out="y")
    elif way == "uint4, fused":
        turned = stored_uint4("codes", np.ascontiguousarray(codes.reshape(OUTPUTS, INPUTS).T))
        scale = stored("scales", scales.reshape(OUTPUTS, BLOCKS).T.astype(np.float32))
        by_minima(node("MatMul", "x", node("DequantizeLinear", turned, scale, axis=0, block_size=GROUP)))
    else:
        inputs = [
            "x",
            stored("codes", nibbles(codes).reshape(OUTPUTS, BLOCKS, GROUP // 2)),
            stored("scales", scales[:, 0].astype(np.float32)),
            stored("zeros", np.zeros(OUTPUTS * (BLOCKS // 2), np.uint8)),
        ]
        options = {"K": INPUTS, "N": OUTPUTS, "bits": 4, "block_size": GROUP, "accuracy_level": 0}
        by_minima(node("MatMulNBits", *inputs, domain="com.microsoft", **options))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["videos", INPUTS])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["videos", OUTPUTS])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(helper.make_graph(nodes, "layer", [x], [y], tensors), opset_imports=opsets, ir_version=10)


def measure(way: str, path: Path) -> str:
    """A row of the table."""
    numbers = np.random.default_rng(0)
    groups = numbers.normal(scale=0.02, size=(OUTPUTS * BLOCKS, GROUP)).astype(np.float32)
    minima = groups.min(1, keepdims=True).astype(np.float16)
    scales = ((groups.max(1, keepdims=True) - minima) / 15).astype(np.float16)
    codes = np.clip(np.rint((groups - minima) / scales), 0, 15).astype(np.uint8)
    path.write_bytes(model(way, codes, scales, minima).SerializeToString())
    videos = numbers.normal(size=(32, INPUTS)).astype(np.float32)
    weight = codes * scales.astype(np.float32) + minima.astype(np.float32)
    expected = videos @ weight.reshape(OUTPUTS, INPUTS).T
    del groups, codes, weight
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    before, began = memory(), time.process_time()
    session = onnxruntime.InferenceSession(path, options)
    opened, times = time.process_time() - began, []
    for count in (1, 32):
        least = float("inf")
        for _ in range(8):
            start = time.process_time()
            (found,) = session.run(None, {"x": videos[:count]})
            least = min(least, time.process_time() - start)
        times.append(1000 * least / count)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    cells = (f"{path.stat().st_size:,}", f"{opened:.2f}", f"{(memory() - before) / 1e6:.0f}")
    return "| " + " | ".join((WAYS[way], *cells, *(f"{each:.2f}" for each in times), f"{error:.0e}")) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--way", choices=WAYS, help="Measure one way in this process.")
    way = parser.parse_args().way
    if way is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(way, Path(folder) / "layer.onnx"))
        return
    print("| the file holds | bytes | opened in, s | resident, MB | ms a video, batch 1 | batch 32 | error |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for way in WAYS:
        subprocess.run([sys.executable, __file__, "--way", way], check=True)


if __name__ == "__main__":
    main()
