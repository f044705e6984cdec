"""Sprites: exact factors, every step visible, nothing cut off, the same pixels in numpy and jax, disjoint splits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax import data
from vae_jax.data import color_sprites, sprites
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError, on_command_line

# Two position steps are one pixel at 32 x 32 (tested), so these positions show every way the grid of pixels can fall.
POSITIONS = np.arange(14, 18)


@pytest.fixture(autouse=True)
def _at_the_command_line():
    """Messages are read as somebody at the command line reads them."""
    with on_command_line():
        yield


@pytest.fixture(scope="module")
def grid():
    """Every shape, scale and orientation at 4 x 4 positions: images [3, 6, 40, 4, 4, 32, 32] of bool."""
    axes = np.meshgrid(*(np.arange(n) for n in sprites.FACTOR_SIZES[:3]), POSITIONS, POSITIONS, indexing="ij")
    factors = np.stack(axes, -1).reshape(-1, 5).astype(np.int32)
    images = jax.jit(sprites.render)(factors)
    return (np.asarray(images) > 0).reshape(*axes[0].shape, 32, 32)


def test_flat_index_and_factors_are_inverse_in_dsprites_order():
    index = jnp.arange(sprites.SIZE)
    factors = sprites.factors_of(index)
    assert np.array_equal(np.asarray(sprites.index_of(factors)), np.asarray(index))
    assert np.array_equal(sprites.factors_of(np.arange(1000), np), np.asarray(factors[:1000]))
    strides = [6 * 40 * 32 * 32, 40 * 32 * 32, 32 * 32, 32, 1]
    some = np.array([2, 5, 39, 31, 30])
    assert int(sprites.index_of(some[None])[0]) == int(some @ strides)
    assert sprites.SIZE == 737_280
    assert np.array_equal(np.asarray(factors.max(0)) + 1, sprites.FACTOR_SIZES)


def test_two_position_steps_move_the_image_by_one_pixel():
    factors = np.random.default_rng(1).integers(0, sprites.FACTOR_SIZES, (200, 5)).astype(np.int32)
    factors[:, 3:] = factors[:, 3:] % 30
    images = np.asarray(sprites.render(factors))
    for axis, column in ((2, 3), (1, 4)):  # x moves along the row, y along the column
        moved = factors.copy()
        moved[:, column] += 2
        assert np.array_equal(np.roll(images, 1, axis), np.asarray(sprites.render(moved)))


def test_every_step_of_scale_and_position_and_shape_is_visible(grid):
    for axis in (1, 3, 4):
        n = grid.shape[axis]
        a, b = np.take(grid, range(n - 1), axis), np.take(grid, range(1, n), axis)
        assert (a != b).any((-1, -2)).all(), sprites.FACTOR_NAMES[axis]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (grid[a] != grid[b]).any((-1, -2)).all()


def test_areas_follow_the_scale_and_are_equal_across_shapes(grid):
    area = grid.sum((-1, -2)).mean((2, 3, 4))  # [shape, scale]
    exact = (sprites._SIDE / 4 * np.linspace(0.5, 1, 6)) ** 2  # pixels of the 32 x 32 image
    assert np.abs(area / exact - 1).max() < 0.03
    assert (area.max(0) / area.min(0)).max() < 1.03


@pytest.mark.parametrize("image_size", [32, 64])
def test_shapes_are_wholly_inside(image_size):
    corners = [(x, y) for x in (0, 31) for y in (0, 31)] + [(16, 16)]
    factors = np.array([(s, 5, o, x, y) for s in range(3) for o in range(40) for x, y in corners])
    images = np.asarray(sprites.render(factors, image_size))[..., 0].reshape(3, 40, 5, image_size, image_size)
    assert set(np.unique(images)) == {0, 255}
    assert images[..., 0, :].max() == images[..., -1, :].max() == 0  # a free margin on all sides
    assert images[..., :, 0].max() == images[..., :, -1].max() == 0
    area = (images > 0).sum((-1, -2))
    if image_size == 64:  # positions are whole pixels there: a cut would change the area
        assert (area == area[:, :, :1]).all()


def test_position_is_column_and_row_of_the_center():
    factors = np.array([[1, 3, 7, 0, 0], [1, 3, 7, 31, 0], [1, 3, 7, 0, 31], [1, 3, 7, 10, 20]])
    for image, (x, y) in zip(np.asarray(sprites.render(factors, 64))[..., 0], factors[:, 3:], strict=True):
        rows, columns = np.nonzero(image)
        assert columns.mean() + 0.5 == pytest.approx(16.5 + x, abs=0.1)
        assert rows.mean() + 0.5 == pytest.approx(16.5 + y, abs=0.1)


def test_shapes_have_their_symmetries():
    def images(shape):
        return np.asarray(sprites.render(np.array([(shape, 5, o, 16, 16) for o in range(40)]), 64))

    square, ellipse, heart = images(0), images(1), images(2)
    assert np.array_equal(square[:30], square[10:])
    assert np.array_equal(ellipse[:20], ellipse[20:])
    assert not np.array_equal(ellipse[:30], ellipse[10:])
    assert len(np.unique(heart.reshape(40, -1), axis=0)) == 40
    upright = heart[0, ..., 0] > 0  # two lobes above, one tip below
    rows = np.nonzero(upright.any(1))[0]
    lobes = (np.diff(upright[rows[1]].astype(int)) == 1).sum()
    assert lobes == 2
    assert upright[rows[-1]].sum() <= 3


@pytest.mark.parametrize("form", [sprites.FORM, color_sprites.FORM], ids=lambda form: form.name)
@pytest.mark.parametrize("image_size", [32, 64])
def test_numpy_eager_and_jit_agree_on_every_pixel(image_size, form):
    factors = np.random.default_rng(0).integers(0, form.sizes, (320, len(form.sizes))).astype(np.int32)
    host = form.render(factors, image_size, np)
    program = jax.jit(lambda f: form.render(f, image_size))
    assert host.dtype == program(factors).dtype == np.uint8
    assert host.shape == (320, image_size, image_size, form.channels)
    assert np.array_equal(host, np.asarray(program(jnp.asarray(factors))))
    assert np.array_equal(host[:20], np.asarray(form.render(factors[:20], image_size)))
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    parts = jax.device_put(factors, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
    assert np.array_equal(host, np.asarray(program(parts)))


def test_color_is_one_more_factor_and_every_shape_is_in_every_channel():
    config = DataConfig("color_sprites")
    source = data.load(config, "test")
    assert source.info.shape == (64, 64, 3)
    assert (source.info.factor_names, source.info.factor_sizes) == (
        ("color", "shape", "scale", "orientation", "x", "y"),
        (8, 3, 6, 40, 32, 32),
    )
    assert source.info.sizes == {"train": 5_883_494, "validation": 7_373, "test": 7_373}
    rows, batch = source.records.rows(np.arange(96)), jax.jit(source.fetch)({}, jnp.arange(96))
    assert all(np.array_equal(rows[name], np.asarray(batch[name])) for name in ("image", "label", "factors"))
    image, factors = rows["image"], rows["factors"]
    assert np.array_equal(rows["label"], factors[:, 1])
    # Pinned: another split, or other colors, would make old results incomparable.
    assert sprites.index_of(factors[:4], np, source.info.factor_sizes).tolist() == [3466138, 2354900, 2748371, 292948]
    gray = sprites.render(factors[:, 1:], 64, np)
    assert np.array_equal(image > 0, np.repeat(gray > 0, 3, -1))
    for color in range(8):
        seen = image[factors[:, 0] == color].reshape(-1, 3)
        assert np.unique(seen[seen.any(-1)], axis=0).tolist() == [list(color_sprites.COLORS[color])]
    # The factors of a part without orientation, in a smaller size.
    upright = data.load(DataConfig("color_sprites", protocol="upright", image_size=32), "train")
    assert upright.info.factor_names == ("color", "shape", "scale", "x", "y")
    assert (upright.size, upright.info.shape) == (143_770, (32, 32, 3))
    with pytest.raises(InputError, match=r"'color_sprites' is computed; train with --data\.name color_sprites"):
        data.prepare("color_sprites", data_dir="never")


def test_splits_are_disjoint_and_cover_the_grid():
    flat = {}
    for split in data.SPLITS:
        source = data.load(DataConfig(), split)
        batch = jax.jit(lambda i, source=source: source.fetch({}, i)["factors"])(jnp.arange(source.size))
        flat[split] = np.asarray(sprites.index_of(batch))
        assert len(flat[split]) == source.info.sizes[split]
    assert {split: len(index) for split, index in flat.items()} == {
        "train": 722_534,
        "validation": 7_373,
        "test": 7_373,
    }
    assert np.array_equal(np.sort(np.concatenate(list(flat.values()))), np.arange(sprites.SIZE))
    # Pinned: another split would make old results incomparable.
    assert flat["test"][:4].tolist() == [23199, 296628, 588403, 609062]
    for position, size in enumerate(sprites.FACTOR_SIZES):  # held-out images are spread over every factor
        seen = np.bincount(np.asarray(sprites.factors_of(flat["test"], np))[:, position], minlength=size)
        assert np.abs(seen - 7_373 / size).max() < 5 * np.sqrt(7_373 / size)


def test_full_protocol_is_the_grid_in_order():
    source = data.load(DataConfig(protocol="full"), "test")
    index = jnp.array([0, 5, 737_279])
    batch = source.fetch({}, index)
    assert source.size == sprites.SIZE
    assert np.array_equal(np.asarray(sprites.index_of(batch["factors"])), np.asarray(index))
    assert np.array_equal(np.asarray(batch["image"]), np.asarray(sprites.render(batch["factors"])))
    with pytest.raises(InputError, match=r"under protocol 'full'; use --data.protocol standard"):
        data.load(DataConfig(protocol="full"), "validation")


def test_records_hold_the_same_examples_as_fetch():
    source = data.load(DataConfig(image_size=64), "validation")
    index = np.array([0, 17, source.size - 1])
    rows, batch = source.records.rows(index), source.fetch({}, jnp.asarray(index))
    for name in ("image", "label", "factors"):
        assert np.array_equal(rows[name], np.asarray(batch[name]))


def test_image_size_must_be_32_or_64():
    with pytest.raises(InputError, match=r"'sprites' cannot be rendered at 48; use 32 or 64"):
        data.load(DataConfig(image_size=48))


def test_upright_protocol_is_the_first_orientation_alone():
    flat, images = [], 0
    for split, size in (("train", 14_746), ("validation", 1_843), ("test", 1_843)):
        source = data.load(DataConfig(protocol="upright"), split)
        assert (source.size, source.info.sizes[split]) == (size, size)
        assert source.info.factor_names == ("shape", "scale", "x", "y")
        assert source.info.factor_sizes == (3, 6, 32, 32)
        batch = jax.jit(lambda i, source=source: source.fetch({}, i))(jnp.arange(size))
        four = np.asarray(batch["factors"])
        five = np.insert(four, 2, 0, axis=1)
        assert np.array_equal(np.asarray(batch["label"]), four[:, 0])
        assert np.array_equal(np.asarray(batch["image"][:50]), np.asarray(sprites.render(five[:50])))
        rows = source.records.rows(np.arange(50))
        assert all(np.array_equal(rows[name], np.asarray(batch[name][:50])) for name in ("image", "label", "factors"))
        flat.append(np.asarray(sprites.index_of(five)))
        images += size
    assert images == 18_432 == len(np.unique(np.concatenate(flat)))
    # Pinned: another split would make old results incomparable.
    assert flat[-1][:4].tolist() == [164272, 122914, 246714, 123405]
