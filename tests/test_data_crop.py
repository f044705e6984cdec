"""The crop of images that are not square: the middle, whichever side is the longer one."""

import numpy as np
import pytest
from PIL import Image

from vae_jax import data
from vae_jax.data.config import DataConfig


def folder(tmp_path, pixels):
    """Returns a folder of train/ and test/ images, all of them these pixels uint8 [H, W]."""
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        Image.fromarray(pixels, "L").save(tmp_path / split / "one.png")
    return str(tmp_path)


def cropped(tmp_path, pixels, size):
    config = DataConfig("image_folder", source=folder(tmp_path, pixels), image_size=size, batch_size=1)
    source = data.load(config, "train")
    return np.asarray(source.records.rows(np.arange(1))["image"])[0, ..., 0]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("long", [12, 13])
def test_the_middle_of_a_long_gradient_is_kept(tmp_path, turned, long):
    """Four of 12 rows, each of its own gray level: rows 4 to 7. Of 13, half a row is cut off more on either side."""
    gradient = np.repeat(np.arange(long, dtype=np.uint8)[:, None] * 20, 4, axis=1)
    found = cropped(tmp_path, gradient.T if turned else gradient, 4)
    found = found.T if turned else found
    rows = found.mean(1)
    assert np.all(found == found[:, :1])
    assert rows.mean() == pytest.approx(gradient.mean(), abs=0.5)  # the middle of the gradient, in gray levels
    if long == 12:
        assert rows.tolist() == [80, 100, 120, 140]


@pytest.mark.parametrize("turned", [False, True])
def test_the_middle_is_kept_when_the_image_shrinks(tmp_path, turned):
    """A bright band across the middle of a tall image of 8 x 40 is in the middle of the 4 x 4 that is left."""
    band = np.zeros((40, 8), np.uint8)
    band[18:22] = 200
    found = cropped(tmp_path, band.T if turned else band, 4).astype(int)
    found = found.T if turned else found
    assert found[1:3].min() > 150
    assert found[[0, 3]].max() < 50
    np.testing.assert_array_equal(found, found[::-1])
