"""A dense encoder's directory whose model is a small BERT, as PyTorch's exporter names its tensors."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from services.encoders.manifest import WEIGHTS_ROOT, DenseForm, describe_file

VOCABULARY, WIDTH, HEADS, LAYERS, POSITIONS = 30522, 64, 2, 2, 64


class BertGraph:
    """Writes the nodes of BERT one by one; an oracle for graphs that the product writes."""

    def __init__(self, seed: int, broken: str = "") -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.tensors: dict[str, Any] = {}
        self.broken = broken

    def tensor(self, name: str, *shape: int, scale: float = 0.3, value: Any = None) -> str:
        from onnx import numpy_helper

        array = self.random.standard_normal(shape).astype(np.float32) * np.float32(scale) if value is None else value
        if name == self.broken:
            array = np.full_like(array, np.nan)
        self.tensors[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        name = f"/{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def linear(self, x: str, name: str, size: int, out: int) -> str:
        matrix = self.tensor(f"onnx::MatMul_{len(self.nodes) + 800}", size, out)
        return self.op("Add", self.tensor(f"{name}.bias", out), self.op("MatMul", x, matrix))

    def norm(self, x: str, name: str) -> str:
        scale = self.tensor(
            f"{name}.weight", WIDTH, value=1 + self.random.standard_normal(WIDTH).astype(np.float32) / 9
        )
        return self.op("LayerNormalization", x, scale, self.tensor(f"{name}.bias", WIDTH), axis=-1, epsilon=1e-12)

    def heads(self, x: str) -> str:
        shape = self.tensor("shape_heads", value=np.array([0, 0, HEADS, WIDTH // HEADS]))
        return self.op("Transpose", self.op("Reshape", x, shape), perm=[0, 2, 1, 3])

    def layer(self, x: str, prefix: str, bias: str) -> str:
        query, key, value = (
            self.heads(self.linear(x, f"{prefix}.attention.self.{part}", WIDTH, WIDTH))
            for part in ("query", "key", "value")
        )
        scores = self.op("MatMul", query, self.op("Transpose", key, perm=[0, 1, 3, 2]))
        root = self.tensor("root", value=np.array((WIDTH / HEADS) ** 0.5, np.float32))
        mixed = self.op(
            "MatMul", self.op("Softmax", self.op("Add", self.op("Div", scores, root), bias), axis=-1), value
        )
        joined = self.tensor("shape_joined", value=np.array([0, 0, WIDTH]))
        mixed = self.op("Reshape", self.op("Transpose", mixed, perm=[0, 2, 1, 3]), joined)
        mixed = self.linear(mixed, f"{prefix}.attention.output.dense", WIDTH, WIDTH)
        x = self.norm(self.op("Add", x, mixed), f"{prefix}.attention.output.LayerNorm")
        inner = self.op("Gelu", self.linear(x, f"{prefix}.intermediate.dense", WIDTH, 2 * WIDTH))
        outer = self.linear(inner, f"{prefix}.output.dense", 2 * WIDTH, WIDTH)
        return self.norm(self.op("Add", x, outer), f"{prefix}.output.LayerNorm")

    def states(self) -> str:
        words = self.op("Gather", self.tensor("embeddings.word_embeddings.weight", VOCABULARY, WIDTH), "input_ids")
        types = self.op("Gather", self.tensor("embeddings.token_type_embeddings.weight", 2, WIDTH), "token_type_ids")
        length = self.op("Shape", "input_ids", start=1, end=2)
        table = self.tensor("embeddings.position_embeddings.weight", POSITIONS, WIDTH)
        zero = self.tensor("zero", value=np.array([0]))
        positions = self.op("Slice", table, zero, length, zero)
        x = self.norm(self.op("Add", self.op("Add", words, types), positions), "embeddings.LayerNorm")
        real = self.op("Cast", "attention_mask", to=1)
        absent = self.op("Sub", self.tensor("one", value=np.array(1, np.float32)), real)
        bias = self.op("Mul", absent, self.tensor("far", value=np.array(-1e9, np.float32)))
        bias = self.op("Unsqueeze", bias, self.tensor("axes", value=np.array([1, 2])))
        for index in range(LAYERS):
            x = self.layer(x, f"encoder.layer.{index}", bias)
        return x


def write_bert(directory: Path, form: DenseForm | None = None, *, seed: int = 0, broken: str = "") -> Path:
    """Write model.onnx, tokenizer.json and dense.json. `broken` names a tensor of NaN."""
    import onnx
    from onnx import TensorProto, helper

    graph = BertGraph(seed, broken)
    output = graph.op("Identity", graph.states())
    names = ("input_ids", "attention_mask", "token_type_ids")
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "bert",
            [helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "pieces"]) for name in names],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["rows", "pieces", WIDTH])],
            list(graph.tensors.values()),
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    directory.mkdir(parents=True, exist_ok=True)
    onnx.save(model, directory / "model.onnx")
    shutil.copy(WEIGHTS_ROOT / "standin" / "tokenizer.json", directory / "tokenizer.json")
    manifest = {
        "format": "sparsewell-dense/1",
        "name": "tiny-bert",
        "width": WIDTH,
        "form": (form or DenseForm(max_pieces=POSITIONS)).model_dump(mode="json"),
        "window": {"pieces": 32, "overlap": 4},
        "licence": "MIT",
        "files": {name: describe_file(directory / name).sha256 for name in ("model.onnx", "tokenizer.json")},
    }
    (directory / "dense.json").write_text(json.dumps(manifest))
    return directory
