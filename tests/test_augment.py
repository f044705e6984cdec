"""Augmentation: what is drawn, that it is keyed by the visit, and that evaluation never sees it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_training import SMALL, put

from vae_jax import data, prng
from vae_jax.data import augment
from vae_jax.data.augment import Augment
from vae_jax.data.config import DataConfig
from vae_jax.data.pipeline import eval_batches, make_batch_fn
from vae_jax.data.source import Info, from_arrays
from vae_jax.errors import InputError, on_command_line
from vae_jax.tasks import training

N, H, W = 400, 6, 7
KEYS = jax.vmap(jax.random.key)(jnp.arange(N))
IMAGE = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
IMAGES = np.broadcast_to(IMAGE, (N, H, W, 3))


def changed(images=IMAGES, keys=KEYS, **options):
    out = augment.augmented(Augment(**options), keys, jnp.asarray(images))
    assert out.dtype == images.dtype
    return np.asarray(out)


@pytest.mark.parametrize(
    ("flip", "axes"), [("horizontal", [(), (1,)]), ("vertical", [(), (0,)]), ("both", [(), (0,), (1,), (0, 1)])]
)
def test_flips_are_equally_frequent(flip, axes):
    out, forms = changed(flip=flip), [np.flip(IMAGE, axis) for axis in axes]
    counts = np.array([sum(np.array_equal(o, form) for o in out) for form in forms])
    assert counts.sum() == N
    # Five standard deviations of a binomial count.
    share = 1 / len(forms)
    assert np.all(np.abs(counts - N * share) < 5 * np.sqrt(N * share * (1 - share)))


def test_shifts_are_whole_moves_that_repeat_the_edge():
    padded = np.pad(IMAGE, ((2, 2), (2, 2), (0, 0)), "edge")
    forms = {(i, j): padded[i : i + H, j : j + W] for i in range(5) for j in range(5)}
    counts = dict.fromkeys(forms, 0)
    for out in changed(shift=2):
        (found,) = [move for move, form in forms.items() if np.array_equal(out, form)]
        counts[found] += 1
    seen = np.array(list(counts.values()))
    assert np.all(seen > 0)
    assert np.sum((seen - N / 25) ** 2 / (N / 25)) < 60, "chi-square with 24 degrees of freedom"


def test_crops_are_windows_of_the_image():
    """Of a ramp along each axis a window is a ramp: its slope is the window's side, its middle the window's place."""
    size = 32
    ramp = (np.arange(size, dtype=np.float32) + 0.5) / size
    image = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :]), -1)
    out = changed(np.broadcast_to(image, (N, size, size, 2)), crop=0.4)
    # The outermost pixels of a window at the border have no neighbor beyond it.
    rows, columns = out[:, 2:-2, size // 2, 0], out[:, size // 2, 2:-2, 1]
    sides = [(line[:, -1] - line[:, 0]) / (ramp[-3] - ramp[2]) for line in (rows, columns)]
    np.testing.assert_allclose(sides[0], sides[1], atol=1e-4)
    assert 0.4 - 1e-4 < sides[0].min() < 0.42
    assert 0.98 < sides[0].max() <= 1 + 1e-4
    for line, side in zip((rows, columns), sides, strict=True):
        inner = np.abs(np.diff(line, 2)).max(1)
        assert np.all(inner < 1e-4)
        middle = (line[:, 0] + line[:, -1]) / 2
        assert np.all(middle >= side / 2 - 1e-3)
        assert np.all(middle <= 1 - side / 2 + 1e-3)
        # Anywhere that fits: the place within its room is uniform.
        room = (middle - side / 2)[side < 0.8] / (1 - side[side < 0.8])
        assert abs(room.mean() - 0.5) < 0.1
        assert room.min() < 0.1
        assert room.max() > 0.9


def test_gray_levels_stay_gray_levels_and_their_range():
    out = changed(crop=0.3, shift=1, flip="both")
    assert out.min() >= IMAGE.min()
    assert out.max() <= IMAGE.max()
    np.testing.assert_array_equal(changed(np.full_like(IMAGES, 77), crop=0.3), 77)
    floats = changed(IMAGES.astype(np.float32) / 255, crop=0.3)
    assert floats.min() >= 0
    assert floats.max() <= 1


def test_a_change_does_not_move_the_draws_of_another():
    both = changed(shift=2, flip="horizontal")
    shifted = changed(shift=2)
    assert all(np.array_equal(b, s) or np.array_equal(b, s[:, ::-1]) for b, s in zip(both, shifted, strict=True))


def source():
    return data.load(DataConfig("digits", batch_size=8), "train")


@pytest.mark.parametrize("options", [{"flip": "both"}, {"shift": 2}, {"crop": 0.5}, {"flip": "both", "crop": 0.5}])
def test_what_is_missing_moves_with_the_image(options):
    """Where the mask says that a changed image is observed, it is what the complete image would have become."""
    whole = np.random.default_rng(1).uniform(0.1, 1, (N, H, W, 3)).astype(np.float32)
    mask = np.random.default_rng(2).random(whole.shape) < 0.8
    apply = data.transform(DataConfig("digits", augment=Augment(**options)))
    rest = {"index": jnp.arange(N), "visit": jnp.arange(N)}
    want = np.asarray(apply(jax.random.key(0), {"image": jnp.asarray(whole), **rest})["x"])
    got = apply(jax.random.key(0), {"image": jnp.asarray(whole * mask), "mask": jnp.asarray(mask), **rest})
    seen = np.asarray(got["mask"])
    assert 0.2 < seen.mean() < 0.9
    np.testing.assert_allclose(np.asarray(got["x"])[seen], want[seen], atol=1e-3 if "crop" in options else 0)
    assert not np.asarray(got["x"])[~seen].any()
    if "crop" not in options:
        assert np.asarray(got["x"])[seen].min() >= 0.1  # no zero that stood for a missing value


def test_each_visit_has_changes_of_its_own():
    """In one epoch and the next, an example differs; the same step gives the same bits."""
    config = DataConfig("digits", batch_size=1437, augment=Augment(shift=2))
    batch_fn = make_batch_fn(source(), config)
    arrays, key = dict(source().arrays), jax.random.key(3)
    first, again, later = (batch_fn(arrays, key, jnp.int32(step)) for step in (0, 0, 1))
    np.testing.assert_array_equal(first["x"], again["x"])
    a, b = (np.asarray(batch["x"])[np.argsort(batch["index"])] for batch in (first, later))
    assert 0.8 < np.mean(np.any(a != b, axis=(1, 2, 3))) < 1  # 24 of 25 moves differ; some digits look the same moved


def test_evaluation_and_runs_without_augmentation_see_the_stored_images():
    plain, config = DataConfig("digits", batch_size=8), DataConfig("digits", batch_size=8, augment=Augment("both", 2))
    test = data.load(config, "test")
    for seen, stored in zip(eval_batches(test, config, 60), eval_batches(test, plain, 60), strict=True):
        np.testing.assert_array_equal(seen["x"], stored["x"])
    key, step = jax.random.key(0), jnp.int32(2)
    got = make_batch_fn(source(), plain)(dict(source().arrays), key, step)
    index = np.asarray(got["index"])
    np.testing.assert_allclose(got["x"], np.asarray(source().arrays["image"])[index] / 255, rtol=1e-6)


def test_memory_disk_and_resume_train_on_the_same_changes(tmp_path):
    augmented = put(SMALL, steps=4, data=put(SMALL.data, augment=Augment("horizontal", 1, 0.8)))
    whole = training.train_run(augmented, "x", tmp_path / "whole").restore()
    streamed = training.train_run(
        put(augmented, data=put(augmented.data, pipeline="grain")), "x", tmp_path / "streamed"
    ).restore()
    training.train_run(put(augmented, steps=2), "x", tmp_path / "part")
    resumed = training.train_run(augmented, "x", tmp_path / "part", resume=True).restore()
    plain = training.train_run(put(SMALL, steps=4), "x", tmp_path / "plain").restore()
    for one, same, other in zip(*map(jax.tree.leaves, (whole.params, resumed.params, plain.params)), strict=True):
        np.testing.assert_array_equal(one, same)
        assert np.any(one != other)
    for one, other in zip(*map(jax.tree.leaves, (whole.params, streamed.params)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_the_same_bits_jitted():
    keys = prng.example_keys(jax.random.key(0), jnp.arange(5))
    config = Augment("both", 2, 0.5)
    eager = augment.augmented(config, keys, jnp.asarray(IMAGES[:5]))
    jitted = jax.jit(lambda k, x: augment.augmented(config, k, x))(keys, IMAGES[:5])
    # A level that lies between two may be rounded either way.
    assert np.abs(np.asarray(eager, int) - np.asarray(jitted, int)).max() <= 1


def vectors():
    return Info("table", (5,), {"train": 4}, "standard", "all", kind="vector", where="memory")


@pytest.mark.parametrize(
    ("config", "options", "words", "fixed"),
    [
        ("sprites", {"shift": 1}, "no longer has the factors of 'sprites' (shape, scale", {"shift": 0}),
        ("sprites", {"flip": "both"}, "use --data.augment.flip none", {"flip": "none"}),
        ("digits", {"shift": 8}, "moves images of side 8 out of sight; use --data.augment.shift 7", {"shift": 7}),
    ],
)
def test_what_cannot_be_changed_is_refused(config, options, words, fixed):
    with on_command_line():
        with pytest.raises(InputError) as error:
            data.load(DataConfig(config, batch_size=4, augment=Augment(**options)))
        assert words in str(error.value)
        data.load(DataConfig(config, batch_size=4, augment=Augment(**options | fixed)))


def test_vectors_are_no_images():
    info = vectors()
    found = from_arrays(info, "train", {"x": np.zeros((4, 5), np.float32)})
    with pytest.raises(InputError, match=r"data\.augment\.crop: it changes images, but these data are of kind vector"):
        augment.check(Augment(crop=0.5), found.info)
    augment.check(Augment(), found.info)
