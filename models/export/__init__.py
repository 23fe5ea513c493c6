"""Makes a model directory (int8 ONNX, tokeniser, query table, manifest) from a masked-language checkpoint.

Run as ``python -m models.export CHECKPOINT OUT_DIR``. Needs the ``train`` extra; nothing here is imported by a worker.
"""
