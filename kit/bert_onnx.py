"""A BERT with mean or first-token pooling, run by ONNX Runtime.

The graph is written here from the model's own weights, operator by operator, so that nothing is exported, cached or
downloaded: attention is a single fused operator, which no export of torch promises. Answers are torch's to 1e-6. On 12
words, one thread of a Xeon with AVX-512 (bench/encoder.py): 3.5 ms, and 8.9 ms in torch; also tried were torch with
prepacked weights (7 to 8 ms) and OpenVINO (4.2 ms).

In int8 the products take half of the time and give other vectors (cosine 0.986 to 0.996): a space of its own, for heads
that were trained in it. States are quantised by the largest number of a run, so each text is run alone, and its vector
never depends on its company. Weights keep to 7 bits, for AVX2 without VNNI adds two products in 16 bits. Biases are
added as a product is scaled back, and attention masks nothing: 4.1 ms for 45 tokens, and 4.5 with operators of their
own. Threads take whole texts, for sharing one costs processor time at each operator.

Between the two lie blocks of 8 bits: 64 numbers of a state or a weight share a scale. That keeps the vectors (cosine
0.9995; that of two texts moves by 0.003) and reads a quarter of the bytes, which tells where other work has driven the
weights out of the cache: 4.2 ms for 6.1. Long texts gain nothing, and padding costs: here too each is run alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from kit.onnx_runtime import onnxruntime as ort
from kit.sentence_model import Precision, SentenceModel

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]

FUSED = "com.microsoft"
# Which versions of the operators the graph is written in, and of its format; the oldest that have all of them.
OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid(FUSED, 1)]
IR_VERSION = 9
INPUTS = ("token_ids", "type_ids", "mask")
PROJECTIONS = ("query", "key", "value")
WEIGHT_MAX = 63
# Sum and normalisation as one operator take 104 us for 43 tokens, as three 23: the fused one is not vectorised.
SLOW_FUSION = "SkipLayerNormFusion"
# Numbers that share a scale: 32 are 7 % slower and 0.0002 nearer to float32, 128 are 10 % faster and 0.0004 farther.
BLOCK = 64
# Largest whole number of a block's weight, and what stands for 0 where they are kept without a sign.
BLOCK_MAX, BLOCK_ZERO = 127, 128
# So that a block of nothing but 0 divides by something.
SCALE_MIN = 1e-30
# The runtime's name for products that are computed in whole numbers, not only kept so.
COMPUTED_IN_INT8 = 4


def runs(model: SentenceModel) -> bool:
    """Tells whether a model is one that the graph can express; others are run by torch."""
    config, steps = model.config, model.steps
    widths = (config.get("hidden_size", 0), config.get("intermediate_size", 0))
    return (
        steps in (("Transformer", "Pooling"), ("Transformer", "Pooling", "Normalize"))
        and model.pooling is not None
        and config.get("model_type") == "bert"
        and config.get("hidden_act") == "gelu"
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("is_decoder")
        and (model.precision != "int8_blocks" or not any(width % BLOCK for width in widths))
        and (model.folder / "model.safetensors").is_file()
        and (model.folder / "tokenizer.json").is_file()
    )


class BertOnnx:
    """A loaded model; several threads may run it at once."""

    def __init__(self, model: SentenceModel, threads: int) -> None:
        self._runs_alone = model.precision != "float32"
        self._pool = ThreadPoolExecutor(threads, "texts") if self._runs_alone and threads > 1 else None
        self.token_max = model.token_max
        self.dimension: int = model.config["hidden_size"]
        self.tokenizer = Tokenizer.from_file(str(model.folder / "tokenizer.json"))
        self._is_mean = model.pooling == "mean"
        self._session, self._weights = _session(model, 1 if self._runs_alone else threads)

    def run(self, token_ids: Sequence[Sequence[int]]) -> tuple[Floats, list[Floats]]:
        """Computes the pooled state of each text, shape (texts, dimension), and the states of its tokens."""
        if self._runs_alone and len(token_ids) > 1:
            each = [[ids] for ids in token_ids]
            alone = list(self._pool.map(self.run, each) if self._pool else map(self.run, each))
            return np.concatenate([vector for vector, _ in alone]), [states for _, (states,) in alone]
        lengths = [len(ids) for ids in token_ids]
        padded = np.zeros((len(lengths), max(lengths)), np.int32)
        mask = np.zeros_like(padded)
        for row, ids in enumerate(token_ids):
            padded[row, : len(ids)] = ids
            mask[row, : len(ids)] = 1
        (states,) = self._session.run(None, dict(zip(INPUTS, (padded, np.zeros_like(padded), mask), strict=True)))
        parts = [states[row, :length] for row, length in enumerate(lengths)]
        return np.stack([part.mean(axis=0) if self._is_mean else part[0] for part in parts]), parts


def _session(model: SentenceModel, threads: int) -> tuple[ort.InferenceSession, list[ort.OrtValue]]:
    """Loads the weights beside the graph, for in it they would be copied twice. They must outlive the session."""
    weights = {
        name.removeprefix("bert."): weight.astype(np.float32, copy=False)
        for name, weight in load_file(model.folder / "model.safetensors").items()
    }
    graph = GRAPHS[model.precision]()
    graph.bert(weights, model.config)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Each result in memory that was freed a moment ago, and not where a plan has put it: the same numbers, of int8 in
    # 3.36 ms for 3.47 (texts of 10 to 50 words, cold caches), and no more memory.
    options.enable_mem_reuse = model.precision != "int8"
    # Threads that wait for work would burn the cores that other services need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The runtime reads bare memory, and would take a transposed view for what it is a view of.
    arrays = [np.ascontiguousarray(weight) for weight in graph.weights.values()]
    values = [ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _type(array)) for array in arrays]
    options.add_external_initializers(list(graph.weights), values)
    session = ort.InferenceSession(
        graph.model().SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=[SLOW_FUSION],
    )
    return session, values


class _Graph:
    """Collects the operators of one network and the weights that they name."""

    def __init__(self) -> None:
        self.weights: dict[str, Array] = {}
        self._nodes: list[NodeProto] = []
        self._output = ""

    def model(self) -> ModelProto:
        """Returns the graph; its weights are to be had elsewhere."""
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, ["text", "token"]) for name in INPUTS]
        output = helper.make_tensor_value_info(self._output, TensorProto.FLOAT, ["text", "token", "dimension"])
        absent = [_absent(name, weight) for name, weight in self.weights.items()]
        graph = helper.make_graph(self._nodes, "bert", inputs, [output], absent)
        return helper.make_model(graph, opset_imports=OPSETS, ir_version=IR_VERSION)

    def bert(self, weights: Mapping[str, Floats], config: Mapping[str, Any]) -> None:
        """Adds the whole encoder, from token ids to the states of the last layer."""
        epsilon = config["layer_norm_eps"]
        names = ("word_embeddings.weight", "position_embeddings.weight", "token_type_embeddings.weight")
        tables = [self._weight(f"embeddings.{name}", weights) for name in (*names, *_norm("LayerNorm"))]
        self._add(
            "EmbedLayerNormalization",
            ["token_ids", "type_ids", *tables, "mask"],
            ["embedded", "lengths"],
            epsilon=epsilon,
        )
        states = "embedded"
        for layer in range(config["num_hidden_layers"]):
            states = self._layer(f"encoder.layer.{layer}.", states, weights, config["num_attention_heads"], epsilon)
        self._output = states

    def _layer(self, at: str, states: str, weights: Mapping[str, Floats], heads: int, epsilon: float) -> str:
        """Adds attention and the feed-forward part of one layer, and returns the name of its result."""
        attended = self._attention(f"{at}attention.self.", states, weights, heads)
        middle = self._projected_sum(f"{at}attention.output.", attended, states, weights, epsilon)
        bent = self._bent(f"{at}intermediate.dense", middle, weights)
        return self._projected_sum(f"{at}output.", bent, middle, weights, epsilon)

    def _attention(self, at: str, states: str, weights: Mapping[str, Floats], heads: int) -> str:
        """Adds self-attention, whose three projections are one product."""
        self.weights[f"{at}weight"], self.weights[f"{at}bias"] = _joint(at, weights)
        self._add("Attention", [states, f"{at}weight", f"{at}bias", "lengths"], [f"{at}out"], num_heads=heads)
        return f"{at}out"

    def _projected_sum(self, at: str, states: str, skipped: str, weights: Mapping[str, Floats], epsilon: float) -> str:
        """Adds a projection, the sum with what skipped it, and the normalisation of the sum."""
        product = self._product(f"{at}dense", states, weights)
        scale, shift = (self._weight(f"{at}{name}", weights) for name in _norm("LayerNorm"))
        self._nodes.append(helper.make_node("Add", [product, skipped], [f"{at}sum"]))
        normal = helper.make_node("LayerNormalization", [f"{at}sum", scale, shift], [f"{at}out"], epsilon=epsilon)
        self._nodes.append(normal)
        return f"{at}out"

    def _bent(self, at: str, states: str, weights: Mapping[str, Floats]) -> str:
        """Adds a projection and the function that bends it."""
        product, bias = self._bare_product(at, states, weights), self._weight(f"{at}.bias", weights)
        self._add("BiasGelu", [product, bias], [f"{at}.bent"])
        return f"{at}.bent"

    def _product(self, at: str, states: str, weights: Mapping[str, Floats]) -> str:
        """Adds a projection: a product and a bias."""
        product, bias = self._bare_product(at, states, weights), self._weight(f"{at}.bias", weights)
        self._nodes.append(helper.make_node("Add", [product, bias], [f"{at}.biased"]))
        return f"{at}.biased"

    def _bare_product(self, at: str, states: str, weights: Mapping[str, Floats]) -> str:
        self.weights[f"{at}.transposed"] = weights[f"{at}.weight"].T
        self._nodes.append(helper.make_node("MatMul", [states, f"{at}.transposed"], [f"{at}.product"]))
        return f"{at}.product"

    def _weight(self, name: str, weights: Mapping[str, Floats]) -> str:
        self.weights[name] = weights[name]
        return name

    def _add(self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        self._nodes.append(helper.make_node(operator, inputs, outputs, domain=FUSED, **attributes))


class _Int8Graph(_Graph):
    """The same network, whose products are of whole numbers; what lies between them stays as it is."""

    def _attention(self, at: str, states: str, weights: Mapping[str, Floats], heads: int) -> str:
        weight, self.weights[f"{at}.bias"] = _joint(at, weights)
        parts = [f"{at}{name}" for name in PROJECTIONS]
        self._nodes.append(helper.make_node("Split", [self._whole_product(at, states, weight)], parts, axis=2))
        # There is one text, so nothing is padded and nothing masked.
        self._add("MultiHeadAttention", parts, [f"{at}out"], num_heads=heads)
        return f"{at}out"

    def _bent(self, at: str, states: str, weights: Mapping[str, Floats]) -> str:
        self._add("Gelu", [self._product(at, states, weights)], [f"{at}.bent"])
        return f"{at}.bent"

    def _product(self, at: str, states: str, weights: Mapping[str, Floats]) -> str:
        self._weight(f"{at}.bias", weights)
        return self._whole_product(at, states, weights[f"{at}.weight"].T)

    def _whole_product(self, at: str, states: str, weight: Floats) -> str:
        """Adds a product with a weight, shape (in, out), that has a scale for each column, and its bias."""
        scales = np.abs(weight).max(axis=0) / WEIGHT_MAX
        self.weights[f"{at}.whole"] = np.round(weight / scales).astype(np.int8)
        self.weights[f"{at}.scales"] = scales
        inputs = [states, f"{at}.whole", f"{at}.scales", "", f"{at}.bias"]
        self._add("DynamicQuantizeMatMul", inputs, [f"{at}.product"])
        return f"{at}.product"


class _BlockGraph(_Int8Graph):
    """The same, with a scale for each block of a weight's columns and of each state."""

    def _whole_product(self, at: str, states: str, weight: Floats) -> str:
        width, count = weight.shape
        blocks = weight.T.reshape(count, width // BLOCK, BLOCK)
        scales = np.abs(blocks).max(axis=2) / BLOCK_MAX
        whole = np.round(blocks / np.maximum(scales, SCALE_MIN)[..., None]) + BLOCK_ZERO
        self.weights[f"{at}.whole"] = whole.astype(np.uint8)
        self.weights[f"{at}.scales"] = scales
        self._add(
            "MatMulNBits",
            [states, f"{at}.whole", f"{at}.scales", "", "", f"{at}.bias"],
            [f"{at}.product"],
            K=width,
            N=count,
            bits=8,
            block_size=BLOCK,
            accuracy_level=COMPUTED_IN_INT8,
        )
        return f"{at}.product"


GRAPHS: Mapping[Precision, type[_Graph]] = {"float32": _Graph, "int8": _Int8Graph, "int8_blocks": _BlockGraph}


def _joint(at: str, weights: Mapping[str, Floats]) -> tuple[Floats, Floats]:
    """The three projections of an attention as one weight, shape (in, out), and one bias."""
    weight = np.concatenate([weights[f"{at}{name}.weight"].T for name in PROJECTIONS], axis=1)
    return weight, np.concatenate([weights[f"{at}{name}.bias"] for name in PROJECTIONS])


def _norm(name: str) -> tuple[str, str]:
    return f"{name}.weight", f"{name}.bias"


def _type(weight: Array) -> int:
    return helper.np_dtype_to_tensor_dtype(weight.dtype)


def _absent(name: str, weight: Array) -> TensorProto:
    """Describes a weight whose numbers the session is handed apart."""
    tensor = TensorProto(name=name, data_type=_type(weight), dims=weight.shape)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="handed over")
    return tensor
