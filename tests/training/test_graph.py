"""Simplified graphs: the same output with fewer slow operators."""

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest
from streets import TINY, trained

from sempic.training import onnx as exported
from sempic.training.graph import simplify


def feed(seed):
    rng = np.random.default_rng(seed)
    return {
        "noisy": rng.standard_normal((1, 3, 32, 48), np.float32),
        "coarse": rng.uniform(-1, 1, (1, 3, 8, 12)).astype(np.float32),
        "labels": rng.integers(0, 12, (1, 32, 48), np.uint8),
        "sigma": np.array([TINY.sigma_max], np.float32),
        "fidelity": np.zeros(1, np.float32),
    }


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """A receiver in 8 bits as the exporter and the quantiser leave it."""
    monkeypatch.setattr(exported, "simplify", lambda model: None)
    path = tmp_path / "plain.onnx"
    exported.export_receiver(trained(), path, feeds=[feed(1), feed(2)])
    return onnx.load(path)


def run(model):
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed(3))[0]


def test_a_simplified_graph_gives_the_same_numbers(plain):
    before = run(plain)
    simplify(plain)
    onnx.checker.check_model(plain)
    assert np.array_equal(run(plain), before)


def test_concatenations_are_in_eight_bits_and_silu_is_one_operator(plain):
    simplify(plain)
    makers = {name: node.op_type for node in plain.graph.node for name in node.output}
    users = {name: node.op_type for node in plain.graph.node for name in node.input}
    joined = [
        node
        for node in plain.graph.node
        if node.op_type == "Concat" and users[node.output[0]] == "QuantizeLinear"
    ]
    assert len(joined) == 8  # the map, the stem, four skips, narrow, tail
    assert {makers[name] for node in joined for name in node.input} == {"DequantizeLinear"}
    assert "Sigmoid" not in makers.values()
    widths = [t.dims[1] for t in plain.graph.initializer if t.name.endswith("weight_quantized")]
    assert sum(width % 4 > 0 for width in widths) == 0
