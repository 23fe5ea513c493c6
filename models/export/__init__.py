"""Export of an encoder: a masked-language checkpoint becomes a model directory.

A model directory holds int8 ONNX, tokeniser, query table and manifest. `sparsewell encoders export` runs the export.
This package needs the ``train`` extra, and workers import nothing from it.
"""
