"""A dense encoder's directory whose model is one table over our vocabulary."""

import shutil
from pathlib import Path

import numpy as np

from services.encoders.manifest import WEIGHTS_ROOT

VOCABULARY, WIDTH = 30522, 8


def write_model(directory: Path, *, pools: bool = False, scale: float = 1.0, inputs: tuple[str, ...] = ()) -> Path:
    """Write a model that returns the table's rows for all positions, or their mean with `pools`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    table = (np.random.default_rng(0).standard_normal((VOCABULARY, WIDTH)) * scale).astype(np.float32)
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["positions"])]
    shape: list[str | int] = ["rows", "pieces", WIDTH]
    if pools:
        nodes.append(helper.make_node("ReduceMean", ["positions", "axes"], ["mean"], keepdims=0))
        shape = ["rows", WIDTH]
    names = inputs or ("input_ids", "attention_mask", "token_type_ids")
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "pieces"]) for name in names],
        [helper.make_tensor_value_info("mean" if pools else "positions", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1], dtype=np.int64), "axes")],
    )
    directory.mkdir(exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, directory / "model.onnx")
    shutil.copy(WEIGHTS_ROOT / "standin" / "tokenizer.json", directory / "tokenizer.json")
    (directory / "1_Pooling").mkdir(exist_ok=True)
    (directory / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    return directory
