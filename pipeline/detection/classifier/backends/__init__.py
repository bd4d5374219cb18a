"""Where the classifier runs: ONNX Runtime by default, PyTorch with the `torch` extra."""
