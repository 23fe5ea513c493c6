"""Makes a model directory (int8 ONNX, tokeniser, query table, manifest) from a masked-language checkpoint.

Run as `sparsewell encoders export`. Needs the ``train`` extra; nothing here is imported by a worker.
"""
