"""Multi-branch image classifiers whose branches have a meaning.

The public API.  Importing it loads neither TensorFlow nor the trainer.
"""

from branchnets.registry import create_model, default_image_shape, list_models
from branchnets.version import __version__

__all__ = ["__version__", "create_model", "default_image_shape", "list_models"]
