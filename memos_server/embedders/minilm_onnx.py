"""all-MiniLM-L6-v2 on onnxruntime, in fp32: the graph is built here from the checkpoint's weights.

Not quantised: with dynamic int8 a text's vector depends on its batch, and an embedding must not. The weights are handed
to the session beside the graph, so that building it copies and serializes none of them.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from memos_server.embedders.base import EmbedderUnavailableError
from memos_server.embedders.minilm_numpy import HEAD_SIZE, HEADS, HIDDEN, LAYERS, MASKED, NORM_EPSILON
from memos_server.embedders.weights import MODEL, Tensors

OPSET: Final = 20
"""The operator set: the first with Gelu."""
_IR_VERSION: Final = 9


class OnnxMiniLm:
    """The encoder as an onnxruntime session, safe to call from several threads."""

    def __init__(self, tensors: Tensors, threads: int) -> None:
        """Builds the session.

        Args:
            tensors: The checkpoint.
            threads: The threads of one call.

        Raises:
            EmbedderUnavailableError: onnxruntime or onnx is not installed or does not load.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise EmbedderUnavailableError(
                f"{MODEL} needs the package onnxruntime ({error}); install memos-mip[server,minilm]"
            ) from error
        model, initializers = build(tensors)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors; they are raised as well
        # Idle threads sleep instead of spinning: the cores belong to the rest of the server between two batches.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # The session refers to this memory instead of copying it.
        self._weights = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in initializers.values()]
        self._arrays = list(initializers.values())
        options.add_external_initializers(list(initializers), self._weights)
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeds a batch of token sequences.

        Args:
            ids: Token ids of shape (batch, length), padded on the right.
            mask: 1 for a token, 0 for padding; the same shape.

        Returns:
            float32 of shape (batch, 384), rows L2-normalised.
        """
        outputs: list[NDArray[np.float32]] = self._session.run(["embedding"], {"ids": ids, "mask": mask})
        return outputs[0]


class _Graph:
    """Collects nodes and initializers; every method returns the name of what it adds."""

    def __init__(self, helper: Any) -> None:
        self._helper = helper
        self.nodes: list[Any] = []
        self.arrays: dict[str, NDArray[Any]] = {}

    def constant(self, value: NDArray[Any] | np.float32) -> str:
        name = f"c{len(self.arrays)}"
        self.arrays[name] = np.ascontiguousarray(value)
        return name

    def node(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        output = name or f"{op}{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def split(self, x: str, parts: int, axis: int) -> list[str]:
        names = [f"Split{len(self.nodes)}_{number}" for number in range(parts)]
        self.nodes.append(self._helper.make_node("Split", [x], names, axis=axis, num_outputs=parts))
        return names

    def dense(self, x: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> str:
        return self.node("Add", self.node("MatMul", x, self.constant(weight.T)), self.constant(bias))

    def norm(self, x: str, tensors: Tensors, prefix: str) -> str:
        weight, bias = (self.constant(tensors[f"{prefix}.{part}"]) for part in ("weight", "bias"))
        return self.node("LayerNormalization", x, weight, bias, axis=-1, epsilon=NORM_EPSILON)


def build(tensors: Tensors) -> tuple[bytes, dict[str, NDArray[Any]]]:
    """Returns the serialized graph and the large initializers that it leaves out, by name.

    Raises:
        EmbedderUnavailableError: onnx is not installed or does not load.
    """
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise EmbedderUnavailableError(
            f"{MODEL} needs the package onnx ({error}); install memos-mip[server,minilm]"
        ) from error
    graph = _Graph(helper)
    hidden = _embeddings(graph, tensors)
    padding = graph.node("Sub", graph.constant(np.float32(1)), graph.node("Cast", "mask", to=TensorProto.FLOAT))
    bias = graph.node("Unsqueeze", graph.node("Mul", padding, graph.constant(MASKED)), graph.constant(np.array([1, 2])))
    for number in range(LAYERS):
        hidden = _layer(graph, tensors, f"encoder.layer.{number}", hidden, bias)
    _pooling(graph, hidden, TensorProto.FLOAT)

    external = {name: array for name, array in graph.arrays.items() if array.nbytes > 1024}
    declared = [
        _external(TensorProto, name, array) if name in external else numpy_helper.from_array(array, name)
        for name, array in graph.arrays.items()
    ]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "minilm",
            [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in ("ids", "mask")],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", HIDDEN])],
            declared,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
    )
    return bytes(model.SerializeToString()), external


def _external(tensor_proto: Any, name: str, array: NDArray[Any]) -> Any:
    """Returns the declaration of an initializer whose data the session is given."""
    declared = tensor_proto(
        name=name, dims=array.shape, data_type=tensor_proto.FLOAT, data_location=tensor_proto.EXTERNAL
    )
    declared.external_data.add(key="location", value="memory")
    return declared


def _embeddings(graph: _Graph, tensors: Tensors) -> str:
    words = graph.node("Gather", graph.constant(tensors["embeddings.word_embeddings.weight"]), "ids")
    table = tensors["embeddings.position_embeddings.weight"] + tensors["embeddings.token_type_embeddings.weight"][0]
    length = graph.node("Slice", graph.node("Shape", "ids"), *(graph.constant(np.array([at])) for at in (1, 2)))
    zero = graph.constant(np.array([0]))
    # A Slice: a Gather of the positions by Range fails in onnxruntime.
    positions = graph.node("Slice", graph.constant(table), zero, length, zero)
    return graph.norm(graph.node("Add", words, positions), tensors, "embeddings.LayerNorm")


def _layer(graph: _Graph, tensors: Tensors, prefix: str, hidden: str, bias: str) -> str:
    def joint(name: str) -> list[NDArray[np.float32]]:
        kinds = [tensors[f"{prefix}.attention.self.{kind}.{name}"] for kind in ("query", "key", "value")]
        return [kinds[0] * np.float32(HEAD_SIZE**-0.5), *kinds[1:]]

    projected = graph.dense(hidden, np.concatenate(joint("weight")), np.concatenate(joint("bias")))
    shape = graph.constant(np.array([0, 0, HEADS, HEAD_SIZE]))
    query, key, value = (graph.node("Reshape", part, shape) for part in graph.split(projected, 3, axis=2))
    # Queries and values as (batch, heads, length, size), keys as (batch, heads, size, length).
    query, value = (graph.node("Transpose", part, perm=[0, 2, 1, 3]) for part in (query, value))
    key = graph.node("Transpose", key, perm=[0, 2, 3, 1])
    shares = graph.node("Softmax", graph.node("Add", graph.node("MatMul", query, key), bias), axis=-1)
    mixed = graph.node("Transpose", graph.node("MatMul", shares, value), perm=[0, 2, 1, 3])
    flat = graph.node("Reshape", mixed, graph.constant(np.array([0, 0, HIDDEN])))

    def dense(x: str, name: str) -> str:
        return graph.dense(x, tensors[f"{prefix}.{name}.weight"], tensors[f"{prefix}.{name}.bias"])

    attended = graph.node("Add", dense(flat, "attention.output.dense"), hidden)
    middle = graph.norm(attended, tensors, f"{prefix}.attention.output.LayerNorm")
    inner = graph.node("Gelu", dense(middle, "intermediate.dense"))
    return graph.norm(graph.node("Add", dense(inner, "output.dense"), middle), tensors, f"{prefix}.output.LayerNorm")


def _pooling(graph: _Graph, hidden: str, float_type: int) -> None:
    """Adds the mean over the attended tokens and its L2 normalisation, as the output `embedding`."""
    weights = graph.node("Unsqueeze", graph.node("Cast", "mask", to=float_type), graph.constant(np.array([2])))
    axis = graph.constant(np.array([1]))
    total = graph.node("ReduceSum", graph.node("Mul", hidden, weights), axis, keepdims=0)
    mean = graph.node("Div", total, graph.node("ReduceSum", weights, axis, keepdims=0))
    length = graph.node("ReduceL2", mean, axis, keepdims=1)
    graph.node("Div", mean, length, name="embedding")
