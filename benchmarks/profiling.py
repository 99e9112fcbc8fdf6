"""Where the time of a decode and of an encode goes, and how far convolutions are from the peak.

    python benchmarks/profiling.py PICTURES [--size 341x256] [--limit 5] [--steps 1] [--json OUT]

Peak: the best of several float32 matrix products (NumPy's BLAS) on all cores. Each network is timed
by ONNX Runtime's own profiler; a convolution's arithmetic is counted from its shapes, two for each
multiply-add, be they floats or (the bundled receiver's) 8-bit integers. Where OpenVINO is
installed, the networks are timed there, too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from common import add_folder, load_pictures

from sempic import api, coarse, codec, models
from sempic.options import DEFAULT_QUALITY, QUALITY


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_folder(parser)
    parser.add_argument("--steps", type=int, default=1)
    args = parser.parse_args()
    found = load_pictures(args)
    if not found:
        raise SystemExit(f"{args.folder}: no pictures")
    images = [picture for _, picture in found]
    peak = measured_peak()
    print(f"peak of a float32 matrix product on {os.cpu_count()} cores: {peak:.0f} GFLOP/s\n")
    result: dict[str, Any] = {"peak_gflops": peak, "stages": stages(images, args.steps)}
    for side, parts in result["stages"].items():
        total = sum(parts.values())
        print(f"{side:<34}{1000 * total:8.1f} ms")
        for name, seconds in parts.items():
            print(f"  {name:<32}{1000 * seconds:8.1f} ms {100 * seconds / total:5.0f} %")
    result["networks"] = {}
    height, width = images[0].shape[:2]
    for name, model in ((models.RECEIVER, "receiver"), (models.SEGMENTER, "segmenter")):
        path = models.find(name)
        feed = example(path, height, width)
        kinds, flops = profile(path, feed)
        total = sum(kinds.values())
        speed = flops / kinds["Conv"] / 1e9
        print(f"\n{model}: {1000 * total:.1f} ms in its operators, {flops / 1e9:.1f} GFLOP")
        for kind, seconds in sorted(kinds.items(), key=lambda item: -item[1])[:6]:
            print(f"  {kind:<32}{1000 * seconds:8.1f} ms {100 * seconds / total:5.0f} %")
        print(f"  convolutions at {speed:.0f} GFLOP/s, {100 * speed / peak:.0f} % of the peak")
        other = openvino(path, feed)
        if other is not None:
            mine = timed(session(path), feed)
            print(f"  onnxruntime {1000 * mine:.1f} ms, OpenVINO {1000 * other:.1f} ms")
        result["networks"][model] = {"seconds": kinds, "gflop": flops / 1e9, "openvino": other}
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def measured_peak() -> float:
    """GFLOP/s of the best of ten products of 2048 × 2048 matrices."""
    a, b = (np.random.default_rng(i).random((2048, 2048), np.float32) for i in (0, 1))
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(seconds) / 1e9


def stages(images: list[Any], steps: int) -> dict[str, dict[str, float]]:
    """Median seconds of each part, warm."""
    coder = api.Codec()
    quality = QUALITY[DEFAULT_QUALITY]
    spent: dict[str, dict[str, list[float]]] = {
        "encode": defaultdict(list),
        f"decode, {steps} step{'s' * (steps > 1)}": defaultdict(list),
    }
    encode, decode = spent.values()
    for index, image in enumerate([images[0], *images]):
        clock = time.perf_counter()

        def took(parts: dict[str, list[float]], name: str, first: bool = index == 0) -> None:
            nonlocal clock
            now = time.perf_counter()
            if not first:  # the first picture loads and compiles
                parts[name].append(now - clock)
            clock = time.perf_counter()

        map_ = coder.segmenter(image)
        took(encode, "segmenter")
        small = coarse.encode(coarse.downscale(image, quality.factor), quality=quality.qp)
        took(encode, "coarse")
        stream = codec.pack(
            width=image.shape[1], height=image.shape[0], labels=map_, coarse=small, palette=1
        )
        took(encode, "labels, container")
        codec.unpack(stream, only="coarse")
        took(decode, "container, coarse")
        scene = codec.unpack(stream)
        took(decode, "labels")
        coder.synthesize(scene, steps=steps)
        took(decode, "receiver")
    decode["labels"] = [
        both - alone
        for both, alone in zip(decode["labels"], decode["container, coarse"], strict=True)
    ]
    return {
        side: {name: statistics.median(times) for name, times in parts.items()}
        for side, parts in spent.items()
    }


def example(path: Path, height: int, width: int) -> dict[str, Any]:
    """Inputs of a network for a picture of that size."""
    rng = np.random.default_rng(0)
    rows, columns = -(-height // 16) * 16, -(-width // 16) * 16
    known: dict[str, Any] = {
        "noisy": rng.standard_normal((1, 3, rows, columns), np.float32),
        "coarse": rng.standard_normal((1, 3, rows // 4, columns // 4), np.float32),
        "labels": rng.integers(0, 11, (1, rows, columns), np.uint8),
        "sigma": np.ones(1, np.float32),
        "fidelity": np.zeros(1, np.float32),
        # the working size of the segmenter, which enlarges small pictures
        "image": rng.integers(
            0, 256, (1, rows * 3 // 64 * 32, columns * 3 // 64 * 32, 3), np.uint8
        ),
    }
    return {i.name: known[i.name] for i in session(path).get_inputs()}


def session(path: Path, folder: str | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if folder is not None:
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def profile(path: Path, feed: dict[str, Any], runs: int = 10) -> tuple[dict[str, float], float]:
    """Seconds of one run by kind of operator, and the arithmetic of its convolutions."""
    with tempfile.TemporaryDirectory() as folder:
        network = session(path, folder)
        for _ in range(runs + 1):
            network.run(None, feed)
        events = json.loads(Path(network.end_profiling()).read_text())
    nodes = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    nodes = nodes[len(nodes) // (runs + 1) :]  # the first run warms up
    kinds: dict[str, float] = defaultdict(float)
    flops, quantised = 0.0, False
    for event in nodes:
        kind = event["args"]["op_name"]
        quantised |= kind == "QLinearConv"
        kind = "Conv" if kind in ("FusedConv", "NhwcFusedConv", "QLinearConv") else kind
        kinds[kind] += event["dur"] / 1e6 / runs
        if kind == "Conv" and not quantised:
            weight = next(iter(event["args"]["input_type_shape"][1].values()))
            out = next(iter(event["args"]["output_type_shape"][0].values()))
            flops += 2 * np.prod(weight[1:]) * np.prod(out) / runs
    return dict(kinds), arithmetic(path, feed) if quantised else flops


def arithmetic(path: Path, feed: dict[str, Any]) -> float:
    """Of the convolutions of a quantised network, whose profile does not show their weights."""
    model = onnx.load(path)
    for given in model.graph.input:
        for side, size in zip(
            given.type.tensor_type.shape.dim, feed[given.name].shape, strict=True
        ):
            side.dim_value = size
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in [*graph.value_info, *graph.output]
    }
    shapes |= {t.name: list(t.dims) for t in graph.initializer}
    return sum(
        2 * float(np.prod(shapes[node.input[1]][1:]) * np.prod(shapes[node.output[0]]))
        for node in graph.node
        if node.op_type == "Conv"
    )


def timed(network: ort.InferenceSession, feed: dict[str, Any]) -> float:
    return _median(lambda: network.run(None, feed))


def openvino(path: Path, feed: dict[str, Any]) -> float | None:
    """Median seconds of one run under OpenVINO, None where it is not installed."""
    try:
        from openvino import Core
    except ModuleNotFoundError:
        return None
    request = Core().compile_model(path, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    return _median(lambda: request(feed))


def _median(call: Callable[[], object], runs: int = 10) -> float:
    call()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
