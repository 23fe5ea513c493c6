"""Dense encoders: one vector a window, for reranking and as teachers. ONNX Runtime only."""
