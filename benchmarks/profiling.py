"""Which stages of encoding and decoding take how long, and how near are the networks to the peak?

    python benchmarks/profiling.py PICTURES [--sizes 341x256,1280x720,2048x1024] [--limit 5]

For each size: the median time of each stage of `sempic.encode` and `sempic.decode` in milliseconds,
with models loaded, and its share. The time of a stage excludes other stages that it calls. For the
networks: the slowest operators by ONNX Runtime's profiler, and the operations of their convolutions
(two for each multiplication with addition, in floats or 8-bit integers). The peak is the best of
several large matrix products on all cores, in floats (NumPy's BLAS) and 8-bit integers (ONNX
Runtime). The first lines name the processor and say whether it has instructions for products of
8-bit integers; do not compare figures of different machines.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from timeit import repeat
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnx.helper as oh
from common import (
    add_folder,
    in_one_line,
    listed,
    load_pictures,
    machine,
    new_parser,
    parse_size,
    save,
)

from sempic import api, coarse, codec, halving, receive, segment, simplify, texture
from sempic.labels import payload, trunk
from sempic.labels.primed import coder as primed
from sempic.models import runtime
from sempic.pictures import resized
from sempic.segment import doubt, fit

STAGES = (
    (runtime, "run", "network"),
    (halving, "is_soft", "whether half its size does"),
    (segment, "_resize", "to the network's size and back"),
    (fit, "best", "to the network's size and back"),
    (segment, "_probabilities", "to the network's size and back"),
    (doubt, "void_where_unsure", "void"),
    (simplify, "simplify", "simplification"),
    (texture, "choose", "texture"),
    (texture, "weaken", "texture"),
    (coarse, "downscale", "coarse picture"),
    (coarse, "encode", "coarse picture"),
    (codec.Draft, "planes", "coarse picture"),
    (trunk, "scores", "labels: trunk"),
    (codec.Draft, "with_features", "labels: trunk"),
    (primed, "coarse_features", "labels: trunk"),
    (primed, "evidence", "labels: trunk"),
    (primed, "_code_map", "labels: pixels"),
    (payload, "_code_primed", "labels: pixels"),
    (receive, "_grid", "to the network's size and back"),
    (receive, "_upsample", "to the network's size and back"),
)
"""Module or class, function, stage. What none of them is in is "all else"."""
BESIDE = ", beside"
"""Ends the name of a stage on another thread: its time is not part of the whole."""


class Stopwatch:
    """Own times of the functions of STAGES, while it is worn, and what each network was given."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.fed: dict[Path, dict[str, Any]] = {}
        self._inner: dict[int, list[float]] = defaultdict(list)

    @contextlib.contextmanager
    def worn(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for module, name, stage in STAGES:
                timed = self._timed(getattr(module, name), stage)
                stack.enter_context(mock.patch.object(module, name, timed))
            yield

    def _timed(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def timed(*args: Any, **named: Any) -> Any:
            if stage == "network":
                self.fed[args[0]._path] = args[2]
            thread = threading.current_thread()
            beside = "" if thread is threading.main_thread() else BESIDE
            inner = self._inner[threading.get_ident()]
            inner.append(0)
            start = time.perf_counter()
            try:
                return function(*args, **named)
            finally:
                took = time.perf_counter() - start
                self.spent[stage + beside] += took - inner.pop()
                if inner:
                    inner[-1] += took

        return timed


@in_one_line()
def main() -> None:
    parser = new_parser(__doc__)
    add_folder(parser, scaled=False)
    parser.add_argument(
        "--sizes",
        type=listed(parse_size),
        default=[(341, 256), (1280, 720), (2048, 1024)],
        metavar="WxH,…",
        help="pictures are scaled to each (PIL BICUBIC)",
    )
    args = parser.parse_args()
    found = [picture for _, picture in load_pictures(args)]
    receive.load()  # networks share an arena only if the first comes before onnxruntime's import
    peaks = {"float32": float_peak(), "int8": integer_peak()}
    result: dict[str, Any] = {"machine": machine(), "peaks": peaks, "sizes": {}}
    print(f"{machine()}\n8-bit products: {instructions()}")
    print(
        f"peak: {peaks['float32']:.0f} GFLOP/s of float32, {peaks['int8']:.0f} GOP/s of 8-bit "
        f"integers, on {os.cpu_count()} cores"
    )
    for size in args.sizes:
        watch = Stopwatch()
        scaled = [resized(picture, size) for picture in found]
        result["sizes"]["{}x{}".format(*size)] = both = stages(scaled, watch)
        print("\n{}×{}, median of {}".format(*size, len(scaled)))
        for side, parts in both.items():
            total = whole(parts)
            print(f"  {side:<36}{1000 * total:9.1f} ms")
            for name, seconds in sorted(parts.items(), key=lambda item: -item[1]):
                print(f"    {name:<34}{1000 * seconds:9.1f} ms {100 * seconds / total:4.0f} %")
        for path, feed in watch.fed.items():
            describe(path, feed, peaks)
    save(args, result)


def stages(images: list[Any], watch: Stopwatch) -> dict[str, dict[str, float]]:
    """Median seconds of each part of an encode and of a decode, warm."""
    coder = api.Codec()
    coder.decode(coder.encode(images[0]))  # loads and compiles
    times: dict[str, list[dict[str, float]]] = {"encode": [], "decode": []}
    with watch.worn():
        for image in images:
            given: Any = image
            for side, call in (("encode", coder.encode), ("decode", coder.decode)):
                watch.spent.clear()
                start = time.perf_counter()
                given = call(given)
                took = time.perf_counter() - start
                parts = dict(watch.spent)
                times[side].append(parts | {"all else": took - whole(parts)})
    return {
        side: {
            name: statistics.median(parts.get(name, 0) for parts in found)
            for name in {name for parts in found for name in parts}
        }
        for side, found in times.items()
    }


def whole(parts: dict[str, float]) -> float:
    return sum(seconds for name, seconds in parts.items() if not name.endswith(BESIDE))


def describe(path: Path, feed: dict[str, Any], peaks: dict[str, float]) -> None:
    """Prints the operators of a network that take longest, and its arithmetic."""
    kinds, whole = profile(path, feed)
    total = sum(kinds.values())
    operations = arithmetic(path, feed)
    integers, floats = operations["int8"], operations["float32"]
    at_peak = integers / peaks["int8"] + floats / peaks["float32"]
    shape = "×".join(str(n) for n in next(iter(feed.values())).shape)
    print(f"  {path.stem}, given {shape}: {1000 * whole:.1f} ms")
    for kind, seconds in sorted(kinds.items(), key=lambda item: -item[1])[:6]:
        print(f"    {kind:<34}{1000 * seconds:9.1f} ms {100 * seconds / total:4.0f} %")
    print(
        f"    convolutions: {integers / 1e9:.1f} G of 8 bits, {floats / 1e9:.1f} G of floats; at "
        f"the peak {1000 * at_peak / 1e9:.1f} ms, {100 * at_peak / 1e9 / whole:.0f} % of the whole"
    )


def float_peak() -> float:
    """GFLOP/s of the best of ten products of 2048 × 2048 matrices."""
    a, b = (np.random.default_rng(i).random((2048, 2048), np.float32) for i in (0, 1))
    return 2 * 2048**3 / best(lambda: a @ b) / 1e9


def integer_peak() -> float:
    """The same of 8-bit integers, as the networks have them: 7 bits of weights."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (2048, 2048), np.uint8)
    b = rng.integers(-64, 64, (2048, 2048), np.int8)
    kinds = onnx.TensorProto
    graph = oh.make_graph(
        [oh.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "product",
        [oh.make_tensor_value_info("a", kinds.UINT8, a.shape)],
        [oh.make_tensor_value_info("y", kinds.INT32, a.shape)],
        [onnx.numpy_helper.from_array(b, "b")],
    )
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 18)], ir_version=9)
    import onnxruntime as ort

    network = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return 2 * 2048**3 / best(lambda: network.run(None, {"a": a})) / 1e9


def best(call: Callable[[], object]) -> float:
    """Seconds of the fastest of ten calls."""
    return min(repeat(call, number=1, repeat=10))


def profile(path: Path, feed: dict[str, Any], runs: int = 10) -> tuple[dict[str, float], float]:
    """Median seconds of each kind of operator in a run, and of the run, as the product has it."""
    session = runtime.load(path)[0].inner()
    seconds = repeat(lambda: session.run(None, feed), number=1, repeat=runs + 1)
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.enable_profiling = True
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = f"{folder}/profile"
        profiled = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for _ in range(runs + 1):
            profiled.run(None, feed)
        events = json.loads(Path(profiled.end_profiling()).read_text())
    nodes = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    each: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in nodes[len(nodes) // (runs + 1) :]:  # the first run warms up
        each[event["args"]["op_name"], event["name"]].append(event["dur"] / 1e6)
    kinds: dict[str, float] = defaultdict(float)
    for (kind, _), times in each.items():
        kinds[kind] += statistics.median(times)
    return dict(kinds), statistics.median(seconds[1:])


def arithmetic(path: Path, feed: dict[str, Any]) -> dict[str, float]:
    """Operations of the convolutions of a network, "float32" and "int8"."""
    model = onnx.load(path)
    for given in model.graph.input:
        for side, size in zip(
            given.type.tensor_type.shape.dim, feed[given.name].shape, strict=True
        ):
            side.dim_value = size
    for node in model.graph.node:
        if node.domain:  # of ONNX Runtime alone: as large as what they are given
            node.domain, node.op_type = "", "Identity"
            del node.attribute[:]
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in [*graph.value_info, *graph.output]
    }
    shapes |= {t.name: list(t.dims) for t in graph.initializer}
    makers = {name: node.op_type for node in graph.node for name in node.output}
    found = {"float32": 0.0, "int8": 0.0}
    for node in graph.node:
        if node.op_type == "Conv":
            kind = "int8" if makers.get(node.input[1]) == "DequantizeLinear" else "float32"
            sides = shapes[node.input[1]][1:], shapes[node.output[0]]
            found[kind] += 2 * float(np.prod(sides[0]) * np.prod(sides[1]))
    return found


def instructions() -> str:
    """Which the processor has for products of 8-bit integers, as Linux tells."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return "unknown"
    known = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
    return ", ".join(name for name in known if name in flags) or "none (no VNNI)"


if __name__ == "__main__":
    main()
