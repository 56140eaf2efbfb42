"""What happens to an image before the network: a mean by pixel, images that are cut."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from branchnets.data import as_mean
from branchnets.deploy.preprocess import Preprocessing
from branchnets.deploy.program import score_program
from branchnets.errors import DeployError

MEAN = np.random.default_rng(0).uniform(size=(4, 6, 3))
CUT = Preprocessing((4, 6, 3), (8, 6, 3), as_mean(MEAN), (0.2, 0.3, 0.4))


def test_a_mean_image_survives_json():
    assert Preprocessing.from_dict(json.loads(json.dumps(CUT.as_dict()))) == CUT


def test_the_middle_of_a_larger_image_minus_its_mean(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (8, 6, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image, notice = CUT.read(tmp_path / "a.png")
    assert notice == ""
    np.testing.assert_array_equal(image, pixels[2:6])
    model = SimpleNamespace(apply=lambda variables, x, train: SimpleNamespace(logits=x))
    seen = score_program(model, CUT)({}, image[None])
    want = (pixels[2:6] / 255 - MEAN) / np.array(CUT.std)
    np.testing.assert_allclose(seen[0], want, atol=1e-6)


@pytest.mark.parametrize(
    "mean", [MEAN[:3].tolist(), MEAN[..., :1].tolist(), MEAN[0].tolist(), [[[0.1], [0.2, 0.3]]]]
)
def test_a_mean_of_another_shape_is_refused(mean):
    with pytest.raises(DeployError, match="mean of shape|cannot be read"):
        Preprocessing.from_dict({**CUT.as_dict(), "mean": mean})


def test_an_image_is_cut_or_surrounded_and_not_both():
    with pytest.raises(DeployError, match="make no images of"):
        Preprocessing.from_dict({**CUT.as_dict(), "content_shape": [8, 5, 3]})
