"""What the tests of deployable folders are about: shapes, images and a run that never was."""

import numpy as np

from branchnets.deploy.preprocess import Preprocessing

SHAPE = (8, 8, 3)
PREPROCESSING = Preprocessing(SHAPE, SHAPE, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
PARENT = {"run": "some_run", "model": "coded_resnext_digits", "step": 7}
CLASSES = (3, 8)
IMAGES = np.random.default_rng(0).integers(0, 256, (5, *SHAPE), np.uint8)
