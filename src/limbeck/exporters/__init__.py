"""The student leaves the house: safetensors, torch.export, ONNX, int8, each checked."""
