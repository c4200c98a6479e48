"""Opens an exported folder to embed texts with it: `load`, which needs ONNX Runtime and tokenizers alone."""
