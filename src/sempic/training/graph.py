"""Rewrites an exported ONNX graph so that it runs faster and computes the same numbers.

ONNX Runtime spends as much time between 8-bit convolutions as in them. The rewritten graph
concatenates tensors after their quantisation, channels last; computes SiLU in one operator; and
pads channel counts that the runtime's kernels would have to pad at each run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper
from onnxruntime.quantization.onnx_model import ONNXModel

_MULTIPLE = 4
"""Channel counts are padded to multiples of this: a convolution of 95 channels takes three times as
long as one of 96."""
_TO_LAST, _TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
"""Permutations of axes from channels first to channels last, and back."""


def simplify(model: onnx.ModelProto) -> None:
    """Rewrite a model in place; in a model without quantisation only SiLU changes."""
    graph = _Graph(model)
    graph.fuse_silu()
    graph.quantise_before_concat()
    graph.topological_sort()
    graph.set_opset_import("com.microsoft", 1)
    del model.graph.value_info[:]  # its shapes are outdated


class _Graph(ONNXModel):  # type: ignore[misc]
    def named(self, kind: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes() if node.op_type == kind]

    def add(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node; returns `name`, which is also the name of its output."""
        self.add_node(oh.make_node(kind, inputs, [name], name, **attributes))
        return name

    def add_silu(self, x: str, name: str) -> str:
        return self.add("QuickGelu", [x], name, domain="com.microsoft", alpha=1.0)

    def fuse_silu(self) -> None:
        """x · sigmoid(x) in one operator; the runtime's own fusion misses some."""
        users = self.input_name_to_nodes()
        for sigmoid in self.named("Sigmoid"):
            (x,) = sigmoid.input
            after = users[sigmoid.output[0]]
            if [n.op_type for n in after] != ["Mul"] or x not in after[0].input:
                continue
            name = after[0].output[0]
            self.remove_nodes([sigmoid, after[0]])
            self.add_silu(x, name)

    def quantise_before_concat(self) -> None:
        """Concat, (SiLU,) QuantizeLinear → QuantizeLinear of each part, Concat, channels last."""
        users = self.input_name_to_nodes()
        for node in self.named("Concat"):
            after, silu = users[node.output[0]], []
            if [n.op_type for n in after] == ["QuickGelu"]:
                silu, after = after, users[after[0].output[0]]
            if [n.op_type for n in after] != ["QuantizeLinear"]:
                continue
            quantise = after[0]
            scale = quantise.input[1:]
            convs = [c for d in users[quantise.output[0]] for c in users[d.output[0]]]
            if {conv.op_type for conv in convs} != {"Conv"}:
                continue
            self.remove_nodes(silu)
            parts = []
            for number, part in enumerate(node.input):
                name = f"{node.name}/{number}"
                if silu:
                    part = self.add_silu(part, f"{name}/silu")
                part = self.add("QuantizeLinear", [part, *scale], f"{name}/8bit")
                parts.append(self.add("Transpose", [part], f"{name}/last", perm=_TO_LAST))
            # Pad with channels of weight 0, whose values do not matter.
            if more := -int(self._levels(convs[0]).dims[1]) % _MULTIPLE:
                ends = [self._constant(f"{node.name}/{n}", n) for n in (0, more, 3)]
                parts.append(self.add("Slice", [parts[0], *ends], f"{node.name}/more"))
                for conv in convs:
                    self._widen(conv, more)
            parts = [self.add("DequantizeLinear", [p, *scale], f"{p}/float") for p in parts]
            node.input[:] = parts
            next(a for a in node.attribute if a.name == "axis").i = 3
            quantise.input[0] = node.output[0]
            out = quantise.output[0]
            quantise.output[0] = f"{out}/last"
            self.add("Transpose", [f"{out}/last"], out, perm=_TO_FIRST)

    def _widen(self, conv: onnx.NodeProto, more: int) -> None:
        """Give a convolution `more` input channels of weight 0."""
        levels = self._levels(conv)
        values = onnx.numpy_helper.to_array(levels)
        zeros = np.zeros((len(values), more, *values.shape[2:]), values.dtype)
        wider = np.concatenate([values, zeros], 1)
        levels.CopyFrom(onnx.numpy_helper.from_array(wider, levels.name))

    def _levels(self, conv: onnx.NodeProto) -> onnx.TensorProto:
        """The 8-bit weights of a convolution."""
        return self.get_initializer(self.output_name_to_node()[conv.input[1]].input[0])

    def _constant(self, name: str, value: int) -> str:
        self.add_initializer(onnx.numpy_helper.from_array(np.array([value], np.int64), name))
        return name
