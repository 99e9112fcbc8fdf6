"""Rewrites an exported ONNX graph so that it runs faster and computes the same numbers.

ONNX Runtime spends as much time between 8-bit convolutions as in them. The rewritten graph
concatenates tensors after their quantisation, channels last; computes SiLU in one operator; and
pads channel counts that the runtime's kernels would have to pad at each run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper

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
    graph.write_back()


class _Graph:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.graph = model, model.graph
        self.nodes = list(model.graph.node)
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def users(self) -> dict[str, list[onnx.NodeProto]]:
        found = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                found[name].append(node)
        return found

    def add(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node; returns `name`, which is also the name of its output."""
        self.nodes.append(oh.make_node(kind, inputs, [name], name, **attributes))
        return name

    def add_silu(self, x: str, name: str) -> str:
        return self.add("QuickGelu", [x], name, domain="com.microsoft", alpha=1.0)

    def fuse_silu(self) -> None:
        """x · sigmoid(x) in one operator; the runtime's own fusion misses some."""
        users = self.users()
        for sigmoid in [node for node in self.nodes if node.op_type == "Sigmoid"]:
            (x,) = sigmoid.input
            after = users[sigmoid.output[0]]
            if [n.op_type for n in after] != ["Mul"] or x not in after[0].input:
                continue
            self.nodes.remove(sigmoid)
            self.nodes.remove(after[0])
            self.add_silu(x, after[0].output[0])

    def quantise_before_concat(self) -> None:
        """Concat, (SiLU,) QuantizeLinear → QuantizeLinear of each part, Concat, channels last."""
        users = self.users()
        for node in [node for node in self.nodes if node.op_type == "Concat"]:
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
            for replaced in silu:
                self.nodes.remove(replaced)
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

    def write_back(self) -> None:
        """Put the nodes into the model in topological order."""
        known = {"", *self.constants, *(value.name for value in self.graph.input)}
        del self.graph.node[:], self.graph.value_info[:]  # value_info has outdated shapes
        while self.nodes:
            ready = [node for node in self.nodes if known.issuperset(node.input)]
            assert ready
            for node in ready:
                self.nodes.remove(node)
                known.update(node.output)
            self.graph.node.extend(ready)
        if all(opset.domain != "com.microsoft" for opset in self.model.opset_import):
            self.model.opset_import.append(oh.make_opsetid("com.microsoft", 1))

    def _widen(self, conv: onnx.NodeProto, more: int) -> None:
        """Give a convolution `more` input channels of weight 0."""
        levels = self._levels(conv)
        values = onnx.numpy_helper.to_array(levels)
        zeros = np.zeros((len(values), more, *values.shape[2:]), values.dtype)
        wider = np.concatenate([values, zeros], 1)
        levels.CopyFrom(onnx.numpy_helper.from_array(wider, levels.name))

    def _levels(self, conv: onnx.NodeProto) -> onnx.TensorProto:
        """The 8-bit weights of a convolution."""
        (dequantise,) = (node for node in self.nodes if conv.input[1] in node.output)
        return self.constants[dequantise.input[0]]

    def _constant(self, name: str, value: int) -> str:
        tensor = onnx.numpy_helper.from_array(np.array([value], np.int64), name)
        self.graph.initializer.append(tensor)
        self.constants[name] = tensor
        return name
