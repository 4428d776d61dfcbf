"""What machine and software a run used."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

import torch

PACKAGES = ("limbeck", "torch", "numpy", "safetensors", "scikit-learn", "pydantic")


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, processor and threads, JSON-ready."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "device": str(device),
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "ranks": int(os.environ.get("WORLD_SIZE", "1")),
    }
