"""Multi-branch image classifiers whose branches have a meaning.

The public API.  Importing it loads neither TensorFlow nor the trainer; what works on finished runs
loads it when it is first used.
"""

import importlib
from typing import Any

from branchnets.registry import create_model, default_image_shape, list_models
from branchnets.version import __version__

#: Name -> module that has it.
_LATER = {
    "analyze": "branchnets.tools.analyze",
    "load_run": "branchnets.engine.runs",
    "slim": "branchnets.tools.slim",
    "load_classifier": "branchnets.deploy.classifier",
}

__all__ = [
    "__version__",
    "analyze",
    "create_model",
    "default_image_shape",
    "list_models",
    "load_classifier",
    "load_run",
    "slim",
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
