"""Pictures as they come: alpha, palettes, 16 bits, TIFF, CMYK, one bit, mixed sizes and channels, damaged files."""

import dataclasses
import re
import shlex
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from options import tiny
from PIL import Image

from vae_jax import data
from vae_jax.cli import main
from vae_jax.cli.options import parse_config
from vae_jax.data import pictures
from vae_jax.data.config import DataConfig
from vae_jax.data.fingerprint import fingerprint
from vae_jax.data.pictures import Fit
from vae_jax.errors import InputError, on_command_line
from vae_jax.figures.grid import grid, pixels
from vae_jax.models import VAE
from vae_jax.networks import MLP, PooledConv
from vae_jax.runs.config import REGISTRIES, Config
from vae_jax.runs.inputs import user_batches
from vae_jax.runs.run import Run
from vae_jax.runs.training_data import spec_of
from vae_jax.spec import ArraySpec, DataSpec

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
COLOR = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (6, 8, 4)).astype(np.uint16)
COLORS = {"white": (255, 255, 255), "black": (0, 0, 0), "grey": (128, 128, 128), (9, 200, 70): (9, 200, 70)}


@pytest.fixture(autouse=True)
def _at_the_command_line():
    with on_command_line():
        yield


def load(root, split="train", **options):
    return data.load(DataConfig("image_folder", source=str(root), batch_size=1, protocol="full", **options), split)


def only(root, **options):
    """Returns the pixels [H, W, C] of the one picture in a folder."""
    (image,) = load(root, **options).arrays["image"]
    return image


def refused(root, **options) -> str:
    with pytest.raises(InputError) as error:
        load(root, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def saved(path: Path, pixels, mode=None, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def over(pixels, alpha, background):
    """Returns round((a v + (255 - a) b) / 255), the definition, for pixels [H, W, C] and alpha [H, W] of 0..255."""
    a, v = np.asarray(alpha, np.int64)[..., None], np.asarray(pixels, np.int64)
    return np.floor((a * v + (255 - a) * np.asarray(background)) / 255 + 0.5).astype(np.uint8)


def luminance(pixels):
    """Returns gray [H, W, 1] of RGB, ITU-R 601-2 in the integers that PIL uses."""
    return ((pixels.astype(np.int64) @ (19595, 38470, 7471) + 0x8000) >> 16).astype(np.uint8)[..., None]


def png16(values, key=b"", filtered=False) -> bytes:
    """Returns a PNG of 16 bits of uint16 [H, W, C]; PIL writes gray ones alone. `key` is its transparent color."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = values.shape
    rows = values.astype(">u2").view(np.uint8).reshape(height, -1)
    if filtered:  # each byte less that of the pixel before it, so that the decoder must know how wide a pixel is
        step = 2 * channels
        rows = np.concatenate([rows[:, :step], rows[:, step:] - rows[:, :-step]], 1)
    content = b"".join(bytes([filtered]) + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    body = chunk(b"IHDR", head) + (chunk(b"tRNS", key) if key else b"") + chunk(b"IDAT", zlib.compress(content))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def tiff16(values, order="<", packed=False, photometric=None, planar=1, bits=16) -> bytes:
    """Returns a TIFF of 16 bits of uint16 [H, W, C], little- or big-endian, with zlib or not."""
    height, width, channels = values.shape
    body = values.astype(f"{order}u2").tobytes()
    body = zlib.compress(body) if packed else body
    color = photometric if photometric is not None else (2 if channels > 2 else 1)
    tags = [(256, "H", [width]), (257, "H", [height]), (258, "H", [bits] * channels), (259, "H", [8 if packed else 1]),
            (262, "H", [color]), (273, "I", [8]), (277, "H", [channels]), (278, "H", [height]), (279, "I", [len(body)]),
            (284, "H", [planar])]  # fmt: skip
    tags += [(338, "H", [2])] if channels == 4 else []
    start = 8 + len(body)
    rows, extra, beyond = struct.pack(f"{order}H", len(tags)), b"", start + 6 + 12 * len(tags)
    for tag, kind, content in tags:
        held = struct.pack(f"{order}{len(content)}{kind}", *content)
        if len(held) > 4:
            extra, held = extra + held, struct.pack(f"{order}I", beyond + len(extra))
        rows += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[kind], len(content)) + held.ljust(4, b"\0")
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(f"{order}I", start) + body + rows + struct.pack(f"{order}I", 0) + extra


def eight(values):
    """Returns v * 255 / 65535, rounded."""
    return np.rint(values.astype(np.float64) * 255 / 65535).astype(np.uint8)


# Kinds of pixels


@pytest.mark.parametrize("background", COLORS)
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_alpha_is_composed_over_the_background(tmp_path, background, suffix):
    pixels = np.dstack([COLOR, ALPHA])
    saved(tmp_path / f"a.{suffix}", pixels, **({"lossless": True, "exact": True} if suffix == "webp" else {}))
    source = load(tmp_path, background=background)
    np.testing.assert_array_equal(source.arrays["image"][0], over(COLOR, ALPHA, COLORS[background]))
    color = background if isinstance(background, str) else "the color 9 200 70"
    assert source.info.notes == (
        f"{tmp_path}: 1 images may be transparent; what is behind them is {color} (--data.background)",
    )


def test_gray_with_alpha_stays_gray(tmp_path):
    saved(tmp_path / "a.png", np.dstack([GRAY, ALPHA]))
    np.testing.assert_array_equal(only(tmp_path, background="grey"), over(GRAY[..., None], ALPHA, 128))
    np.testing.assert_array_equal(only(tmp_path, channels="rgb"), over(GRAY[..., None], ALPHA, 255).repeat(3, -1))
    red = over(GRAY[..., None], ALPHA, (200, 10, 20))
    np.testing.assert_array_equal(only(tmp_path, channels="rgb", background=(200, 10, 20)), red)
    np.testing.assert_array_equal(only(tmp_path, background=(200, 10, 20)), luminance(red))


def test_transparent_palettes_are_composed_and_opaque_ones_are_not_mentioned(tmp_path):
    index = RNG.integers(0, 3, (6, 8), dtype=np.uint8)
    for table in ([(0, 9, 200), (90, 90, 90), (255, 0, 0)], [(0, 0, 0), (90, 90, 90), (255, 255, 255)]):
        image = Image.frombytes("P", (8, 6), index.tobytes())
        image.putpalette([level for color in table for level in color])
        channels = 3 if table[0][1] else 1
        plain = np.array(table, np.uint8)[index][..., :channels]
        for transparency, alphas in ((1, [255, 0, 255]), (bytes([40, 255, 130]), [40, 255, 130])):
            saved(tmp_path / "p.png", image, transparency=transparency)
            source = load(tmp_path, background="black")
            np.testing.assert_array_equal(source.arrays["image"][0], over(plain, np.array(alphas)[index], 0))
            assert "may be transparent" in source.info.notes[0]
        for transparency in (7, bytes([255, 255, 255])):  # a color that no pixel has; a table that hides nothing
            saved(tmp_path / "p.png", image, transparency=transparency)
            assert load(tmp_path).info.notes == ()
            np.testing.assert_array_equal(only(tmp_path), plain)


def test_a_palette_of_a_tiff_is_judged_by_its_content(tmp_path):
    index = RNG.integers(0, 2, (6, 8), dtype=np.uint8)
    for name, table in (("gray", [(20, 20, 20), (250, 250, 250)]), ("color", [(20, 90, 20), (250, 0, 0)])):
        image = Image.frombytes("P", (8, 6), index.tobytes())
        image.putpalette([level for color in table for level in color] + [0] * (768 - 6))
        saved(tmp_path / name / "a.tif", image)
        want = np.array(table, np.uint8)[index]
        np.testing.assert_array_equal(only(tmp_path / name), want[..., :1] if name == "gray" else want)


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_16_bits_is_scaled_exactly(tmp_path, channels, filtered):
    values = DEEP[..., :channels]
    (tmp_path / "a.png").write_bytes(png16(values, filtered=filtered))
    want, shade = eight(values), 255
    if channels in (2, 4):
        want = over(want[..., :-1], want[..., -1], shade)
    source = load(tmp_path)
    np.testing.assert_array_equal(source.arrays["image"][0], want)
    assert f"{tmp_path}: 1 images have 16 bits; they are scaled to 8" in source.info.notes
    assert len(source.info.notes) == (2 if channels in (2, 4) else 1)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tiff_of_16_bits_is_scaled_exactly(tmp_path, channels, order, packed):
    values = DEEP[..., :channels]
    (tmp_path / "a.tif").write_bytes(tiff16(values, order, packed))
    want = eight(values)
    np.testing.assert_array_equal(only(tmp_path), over(want[..., :3], want[..., 3], 255) if channels == 4 else want)


def test_every_value_of_16_bits(tmp_path):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    (tmp_path / "gray.png").write_bytes(png16(values))
    (tmp_path / "gray.tif").write_bytes(tiff16(65535 - values, photometric=0))  # white is zero
    for image in load(tmp_path).arrays["image"]:
        np.testing.assert_array_equal(image, eight(values))


def test_a_color_of_16_bits_that_is_transparent(tmp_path):
    values = DEEP[..., :3].copy()
    values[0, 0] = values[1, 2]
    (tmp_path / "a.png").write_bytes(png16(values, key=struct.pack(">HHH", *map(int, values[1, 2]))))
    want = eight(values)
    want[0, 0] = want[1, 2] = 0
    np.testing.assert_array_equal(only(tmp_path, background="black"), want)


def test_few_bits_in_16_are_dark_and_the_command_rescales_them(tmp_path):
    root = tmp_path / "scans"
    for i in range(3):
        values = RNG.integers(0, 1157, (6, 8)).astype(np.uint16)
        values[0, 0] = 1156  # 4.498 in 8 bits: times 255 // 4 it would have no room in 16
        saved(root / f"{i}.tif", values)
    line = refused(root)
    assert "no pixel is above 4, which is dark" in line
    words = shlex.split("python" + line.split(" after python")[1].split("; or, if they")[0])
    assert subprocess.run([sys.executable, *words[1:]], check=False).returncode == 0
    for i, image in enumerate(load(tmp_path / "scans_bright").arrays["image"]):
        values = np.asarray(Image.open(root / f"{i}.tif")).astype(int)
        np.testing.assert_array_equal(image[..., 0], eight(values * 51))


def test_bits_that_cannot_be_scaled_exactly_are_refused(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff16(DEEP[..., :3], planar=2))
    assert refused(tmp_path).startswith(f"{tmp_path}/a.tif: ")
    for image, said in (
        (Image.fromarray(np.ones((4, 4), np.float32)), "F of 32 bits"),
        (Image.fromarray(np.ones((4, 4), np.int32)), "I of 32 bits"),
    ):
        saved(tmp_path / "a.tif", image)
        line = refused(tmp_path)
        assert f"a.tif: images of mode {said} are not read; save as 8-bit RGB or gray, or remove it" in line
        saved(tmp_path / "b.png", GRAY)
        assert load(tmp_path, skip_broken=True).size == 1
    saved(tmp_path / "a.tif", GRAY)
    assert load(tmp_path).size == 2


def test_cmyk_one_bit_and_tiff(tmp_path):
    bits = GRAY > 127
    for suffix in ("png", "bmp", "tif"):
        saved(tmp_path / suffix / f"a.{suffix}", Image.fromarray(bits))
        assert load(tmp_path / suffix).info.shape == (6, 8, 1)
        np.testing.assert_array_equal(only(tmp_path / suffix)[..., 0], bits * np.uint8(255))
    # Beside gray of 8 bits, each is what it was.
    saved(tmp_path / "both/a.png", Image.fromarray(bits))
    saved(tmp_path / "both/b.png", GRAY)
    both = load(tmp_path / "both").arrays["image"][..., 0]
    np.testing.assert_array_equal(both, [bits * np.uint8(255), GRAY])
    for suffix, options in (("jpg", {"quality": 95}), ("tif", {})):
        path = saved(tmp_path / f"cmyk-{suffix}" / f"a.{suffix}", COLOR, "CMYK", **options)
        np.testing.assert_array_equal(only(path.parent), np.asarray(Image.open(path).convert("RGB")))
    # CMYK of a color without black is its complement.
    np.testing.assert_array_equal(only(tmp_path / "cmyk-tif"), COLOR)
    pages = [Image.fromarray(GRAY), Image.fromarray(255 - GRAY)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages.tif").rename(tmp_path / "pages/a.tif")
    source = load(tmp_path / "pages")
    np.testing.assert_array_equal(source.arrays["image"][0, ..., 0], GRAY)
    assert source.info.notes == (f"{tmp_path}/pages: 1 images hold several frames; the first is read",)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "lzw.tif", "16.png"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_one_scene_upright_and_turned_has_the_same_pixels(tmp_path, suffix, orientation):
    scene = np.full((16, 24, 3), 250, np.uint8)
    scene[:8, :8], scene[8:, 16:] = (255, 0, 0), (0, 0, 255)
    stored = np.rot90(scene, {3: 2, 6: 1, 8: 3}[orientation])
    options = {"lzw.tif": {"compression": "tiff_lzw"}, "jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})
    exif = Image.Exif()
    exif[0x0112] = orientation
    if suffix == "16.png":
        stored, scene = stored[..., 0], scene[..., :1]
        saved(tmp_path / "a.16.png", Image.fromarray(stored.astype(np.uint16) * 257), exif=exif)
    else:
        saved(tmp_path / f"a.{suffix}", np.ascontiguousarray(stored), exif=exif, **options)
    source = load(tmp_path)
    assert source.info.shape == scene.shape
    found = source.arrays["image"][0].astype(int)
    np.testing.assert_allclose(found, scene, atol=2 if suffix == "jpg" else 0)
    assert f"{tmp_path}: 1 images are turned as their EXIF orientation says" in source.info.notes


def test_a_damaged_tiff_is_one_line_and_no_warning(tmp_path):
    """PIL warns of TIFF's tags, and raises whatever comes to hand."""
    whole = tiff16(DEEP[..., :1], packed=True)
    (tmp_path / "a.tif").write_bytes(whole)
    rng = np.random.default_rng(3)
    lines = set()
    for at in rng.integers(8, len(whole), 100):
        damaged = bytearray(whole)
        damaged[at] = rng.integers(256)
        (tmp_path / "a.tif").write_bytes(damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                pictures.check(tmp_path / "a.tif")
        except InputError as error:
            lines.add(str(error))
    assert len(lines) == 2  # not readable at all, or not to the end
    assert all(line.startswith(f"{tmp_path}/a.tif: ") and "\n" not in line for line in lines)


# Size


def ramp(height, width):
    """Returns [H, W] whose rows count up by 2 from 60 and whose columns add nothing."""
    return np.repeat(np.arange(height, dtype=np.uint8)[:, None] * 2 + 60, width, 1)


@pytest.mark.parametrize("turned", [False, True])
def test_fits_of_a_picture_that_is_not_square(tmp_path, turned):
    image = ramp(96, 54).T if turned else ramp(96, 54)
    saved(tmp_path / "a.png", image)

    def found(fit, height=8, width=16):
        size = (width, height) if turned else (height, width)
        out = only(tmp_path, image_size=size, fit=fit, background="white")[..., 0].astype(int)
        return out.T if turned else out

    crop = found("crop")
    # The middle 27 rows of 96, which are half of the 54 columns.
    assert crop.shape == (8, 16)
    assert crop.mean() == pytest.approx(155, abs=0.6)
    assert (crop[0, 0], crop[-1, 0]) == pytest.approx((155 - 2 * 27 * 3.5 / 8, 155 + 2 * 27 * 3.5 / 8), abs=2)
    stretched = found("stretch")
    assert stretched.mean() == pytest.approx(155, abs=0.6)
    assert (stretched[0, 0], stretched[-1, 0]) == pytest.approx((155 - 84, 155 + 84), abs=3)
    padded = found("pad")
    inside = padded[:, 6:10]  # 8 rows high, so 8 * 54 / 96 = 4.5 -> 4 columns, in the middle of 16
    np.testing.assert_array_equal(np.delete(padded, range(6, 10), 1), 255)
    assert inside.max() < 252
    assert inside.mean() == pytest.approx(155, abs=0.6)
    whole = found("pad", 16, 16)
    np.testing.assert_array_equal(whole[:, [0, 1, 2, 12, 13, 14, 15]], 255)
    assert whole[:, 3:12].max() < 252


def test_padding_has_the_background_of_its_channels(tmp_path):
    saved(tmp_path / "a.png", COLOR)
    options = {"image_size": (6, 12), "fit": "pad", "background": (200, 10, 20)}
    found = only(tmp_path, **options)
    np.testing.assert_array_equal(found[:, 2:10], COLOR)
    np.testing.assert_array_equal(found[:, [0, 1, 10, 11]], np.broadcast_to(np.uint8((200, 10, 20)), (6, 4, 3)))
    gray = only(tmp_path, channels="grey", **options)
    np.testing.assert_array_equal(gray, luminance(found))


def test_a_size_of_two_numbers_is_height_and_width_and_one_is_a_square(tmp_path):
    words = ["--data.name", "image_folder", "--data.image-size"]
    assert parse_config(Config(), [*words, "6"], "train").data.size == (6, 6)
    assert parse_config(Config(), [*words, "6", "9"], "train").data.size == (6, 9)
    saved(tmp_path / "a.png", RNG.integers(0, 256, (30, 17), dtype=np.uint8))
    np.testing.assert_array_equal(only(tmp_path, image_size=9), only(tmp_path, image_size=(9, 9)))
    assert only(tmp_path, image_size=(6, 9)).shape == (6, 9, 1)


def test_squares_are_cropped_as_before(tmp_path):
    """The box is that of earlier versions, to the bit: `side` pixels of the middle."""
    for size in ((31, 18), (18, 31), (40, 40), (7, 900)):
        path = saved(tmp_path / "a.png", RNG.integers(0, 256, size, dtype=np.uint8))
        image, side = Image.open(path), min(size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        for target in (5, 18, 33):
            want = image.resize((target, target), Image.Resampling.BICUBIC, box=box)
            np.testing.assert_array_equal(only(tmp_path, image_size=target)[..., 0], np.asarray(want))


def test_mixed_folders_and_the_options_that_the_messages_offer(tmp_path):
    for i, mode in enumerate(("L", "RGB", "RGBA", "LA", "CMYK", "1")):
        saved(tmp_path / f"{i}.tif", RNG.integers(0, 256, (8 + i, 9, 3), dtype=np.uint8), mode)
    line = refused(tmp_path)
    assert "mixed image sizes" in line
    size = line.partition("set --data.image-size ")[2].split()[0]
    line = refused(tmp_path, image_size=int(size))
    assert "mixed channels, 0.tif has 1 and 1.tif has 3; use --data.channels grey or rgb to convert them" in line
    assert load(tmp_path, image_size=int(size), channels="rgb").arrays["image"].shape == (6, 8, 8, 3)
    assert load(tmp_path, image_size=int(size), channels="grey").arrays["image"].shape == (6, 8, 8, 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data.background", "red"], "--data.background: 'red' cannot be read; give white, black, grey or INT INT"),
        (["--data.background", "1", "2", "300"], "data.background: 1 2 300 is out of range; it must be white, black"),
        (
            ["--data.image-size", "4", "5", "6"],
            "--data.image-size: '4' '5' '6' cannot be read; give None or INT or INT",
        ),
        (["--data.image-size", "4", "0"], "data.image_size: 4 0 is out of range; it must be one side, or H W, of 1"),
        (["--data.fit", "cut"], "--data.fit: 'cut' is not one of its values; known: crop, pad, stretch"),
        (["--data.channels", "gray"], "--data.channels: 'gray' is not one of its values; did you mean 'grey'?"),
    ],
)
def test_bad_options_are_one_line(words, said, capsys):
    assert main.run(["train", "vae_digits", *words]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert said in err


def test_options_that_nothing_reads_are_refused(tmp_path):
    for options in ({"channels": "rgb"}, {"fit": "pad"}, {"background": "black"}, {"skip_broken": True}):
        (name,) = options
        with pytest.raises(InputError, match=rf"data\.{name}: is read for folders of images alone, .* leave it out$"):
            data.load(DataConfig("digits", **options))
    saved(tmp_path / "a.png", GRAY)
    line = refused(tmp_path, fit="pad")
    assert "data.fit: pad is not used without a size; add --data.image-size 6, or leave it out" in line
    assert load(tmp_path, fit="pad", image_size=6).info.shape == (6, 6, 1)
    assert "is more than 100 megapixels; use --data.image-size 6" in refused(tmp_path, image_size=(20_000, 20_000))
    with pytest.raises(InputError, match=r"data\.image_size: 'sprites' cannot be rendered at 32x64; use 32 or 64"):
        data.load(DataConfig("sprites", image_size=(32, 64)))


def test_other_data_do_not_take_over_the_options_of_a_folder(tmp_path):
    saved(tmp_path / "mine/a.png", GRAY)
    config = DataConfig("image_folder", str(tmp_path), image_size=(4, 5), channels="rgb", fit="pad", skip_broken=True)
    assert data.choose(config, "digits") == DataConfig("digits")
    assert data.choose(config, str(tmp_path / "mine")).fit == "pad"


# Damaged files


@pytest.fixture
def partly(tmp_path):
    """A folder of four readable pictures and of four that are not."""
    for i in range(4):
        saved(tmp_path / f"{i}.png", RNG.integers(0, 256, (64, 64), dtype=np.uint8))
    whole = (tmp_path / "0.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:3000])  # its header is whole
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    (tmp_path / "c.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "d.tif").write_bytes(b"II*\0")
    return tmp_path


@pytest.mark.parametrize("pipeline", ["device", "grain"])
def test_broken_files_are_passed_over_and_counted(partly, pipeline):
    source = load(partly, skip_broken=True, pipeline=pipeline)
    assert source.info.notes == (f"{partly}: 4 broken files are passed over (the first is a.png)",)
    found = source.records.rows(np.arange(source.size))["image"][..., 0]
    np.testing.assert_array_equal(found, [np.asarray(Image.open(partly / f"{i}.png")) for i in range(4)])


@pytest.mark.parametrize("pipeline", ["device", "grain"])
def test_the_message_about_a_broken_file_offers_to_pass_over_it(partly, pipeline):
    offered = "or pass over such files with --data.skip-broken True"
    for name, said in (("c.png", "link to nothing"), ("b.jpg", "not a readable image"), ("d.tif", "not a readable")):
        line = refused(partly, pipeline=pipeline)
        assert f"{partly / name}: " in line
        assert said in line
        assert line.endswith(offered)
        (partly / name).unlink()
    with pytest.raises(InputError, match=r"a\.png: the image is damaged or cut off") as error:
        load(partly, pipeline=pipeline).records.rows(np.arange(5))
    assert str(error.value).endswith(offered)
    words = str(error.value).rpartition("with ")[2].split()
    config = parse_config(Config(), ["--data", str(partly), "--data.batch-size", "1", *words], "train")
    assert data.load(config.data, "train").info.notes[0].endswith("1 broken file is passed over (a.png)")


def test_a_file_that_was_mended_is_read(partly):
    assert load(partly, skip_broken=True).size == 4
    (partly / "a.png").write_bytes((partly / "1.png").read_bytes())
    assert load(partly, skip_broken=True).size == 5


def test_splits_and_classes_of_readable_files(partly):
    for split in ("train", "test"):
        for name in ("x", "y"):
            (partly / "all" / split / name).mkdir(parents=True)
            for file in "0.png", "1.png", "b.jpg":
                (partly / "all" / split / name / file).write_bytes((partly / file).read_bytes())
    config = DataConfig("image_folder", str(partly / "all"), batch_size=1, skip_broken=True)
    source = data.load(config, "test")
    assert source.arrays["label"].tolist() == [0, 0, 1, 1]
    assert source.info.notes == (f"{partly}/all: 4 broken files are passed over (the first is test/x/b.jpg)",)
    for file in (partly / "all/train").rglob("*.png"):
        file.unlink()
    with pytest.raises(InputError, match=r"train: holds no images .*, only 2 broken ones; name another folder"):
        data.load(config, "test")


# Runs


def test_the_options_of_before_give_the_hash_of_before(tmp_path):
    """Fingerprints of streamed folders, as the version before these options made them."""
    for i in range(3):
        Image.fromarray(np.full((4 + i, 6), 60 * i + 60, np.uint8)).save(tmp_path / f"{i}.png")
    found = {
        fingerprint(load(tmp_path, pipeline="grain", image_size=4, **options))
        for options in ({}, {"fit": "pad"}, {"fit": "stretch"}, {"background": "black"}, {"channels": "rgb"})
    }
    assert len(found) == 5
    import hashlib

    total = hashlib.sha256(b"(4, 4, 1) True\n")
    for i in range(3):
        content = (tmp_path / f"{i}.png").read_bytes()
        total.update(f"{i}.png None {len(content)}\n".encode() + content)
    text = f"3\nfiles {total.hexdigest()}\n"
    assert hashlib.sha256(text.encode()).hexdigest() == fingerprint(load(tmp_path, pipeline="grain", image_size=4))


@pytest.fixture(scope="module")
def rgb_run(tmp_path_factory):
    """A run on a folder of mixed pictures: gray and RGB, padded on black to 6x10."""
    root = tmp_path_factory.mktemp("rgb")
    for i in range(4):
        saved(root / f"photos/{i}.png", RNG.integers(0, 256, (7 + i, 9, 3), dtype=np.uint8), "L" if i % 2 else "RGB")
    words = ["--data", str(root / "photos"), "--data.image-size", "6", "10", "--data.fit", "pad"]
    words += ["--data.background", "black", "--data.channels", "rgb", "--data.skip-broken", "True"]
    config = parse_config(
        tiny(VAE(2, MLP((4,)))), [*words, "--data.protocol", "full", "--data.batch-size", "2"], "vae-jax train"
    )
    run = Run.create(root / "run", "x", config, spec_of(data.load(config.data, "train")))
    support.checkpoint(run)
    return Run.load(run.path)


def test_a_run_treats_pictures_that_it_is_given_as_its_own(rgb_run, tmp_path):
    assert rgb_run.config.data.size == (6, 10)
    saved(tmp_path / "photos/a.png", RNG.integers(0, 256, (96, 54), dtype=np.uint8))
    saved(tmp_path / "photos/b.png", np.dstack([COLOR, ALPHA]))
    (tmp_path / "photos/c.png").write_bytes(b"x")
    batches, source = user_batches(rgb_run, str(tmp_path / "photos"), "test")
    shown = np.rint(255 * np.asarray(next(batches)["x"])).astype(np.uint8)
    fit = Fit("pad", (0, 0, 0))
    want = [pictures.decode(tmp_path / "photos" / name, (6, 10, 3), fit) for name in ("a.png", "b.png")]
    np.testing.assert_array_equal(shown, want)
    np.testing.assert_array_equal(shown[0][:, [0, 1, 2, 6, 7, 8, 9]], 0)  # 3 columns of a tall picture
    assert any("1 broken file is passed over (c.png)" in note for note in source.info.notes)


def test_other_data_given_to_a_run_of_pictures(rgb_run, tmp_path):
    """Its options are those of folders: they do not stand in the way of arrays."""
    images = RNG.integers(0, 256, (5, 6, 10, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images)
    for given in (str(tmp_path / "x.npz"), images):
        batches, _ = user_batches(rgb_run, given, "test")
        np.testing.assert_allclose(np.asarray(next(batches)["x"]), images / np.float32(255), atol=1e-6)
    with pytest.raises(InputError, match=r"--input digits: images are 8x8 with 1 channel, but .* trained on 6x10"):
        user_batches(rgb_run, "digits", "test")


def test_one_photograph_through_encode_to_a_run_of_another_size(tmp_path, capsys):
    config = tiny(VAE(2, MLP((4,))))
    run = Run.create(tmp_path / "run", "x", config, spec_of(data.load(config.data, "train")))
    support.checkpoint(run)
    photo = saved(tmp_path / "in/photo.png", RNG.integers(0, 256, (54, 96), dtype=np.uint8))
    codes = []
    for given in (photo, photo.parent):
        assert main.run(["encode", str(run.path), "--input", str(given), "--out", str(tmp_path / "c.npz")]) == 0
        with np.load(tmp_path / "c.npz") as held:
            codes.append(held["mean"])
    assert "1 images are resized and cropped to 8x8" in capsys.readouterr().err
    np.save(tmp_path / "cropped.npy", pictures.decode(photo, (8, 8, 1), Fit("crop"))[None])
    words = ["encode", str(run.path), "--input", str(tmp_path / "cropped.npy"), "--out", str(tmp_path / "c.npz")]
    assert main.run(words) == 0
    with np.load(tmp_path / "c.npz") as held:
        for code in codes:
            np.testing.assert_array_equal(code, held["mean"])
    saved(tmp_path / "in/color.png", COLOR)
    capsys.readouterr()
    assert main.run(["encode", str(run.path), "--input", str(tmp_path / "in"), *words[4:]]) == 2
    line = capsys.readouterr().err
    assert "mixed channels, color.png has 3 and photo.png has 1, but" in line
    assert line.endswith("was trained on 8x8 with 1 channel; convert all to gray\n")
    saved(tmp_path / "in/color.png", COLOR, "L")
    assert main.run(["encode", str(run.path), "--input", str(tmp_path / "in"), *words[4:]]) == 0


def test_orientations_agree_through_encode(tmp_path, capsys):
    config = tiny(VAE(2, MLP((4,))))
    run = Run.create(tmp_path / "run", "x", config, spec_of(data.load(config.data, "train")))
    support.checkpoint(run)
    scene = RNG.integers(0, 256, (30, 44), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    saved(tmp_path / "1/a.png", scene)
    saved(tmp_path / "6/a.png", np.ascontiguousarray(np.rot90(scene)), exif=exif)
    codes = []
    for name in "16":
        words = ["encode", str(run.path), "--input", str(tmp_path / name), "--out", str(tmp_path / "c.npz")]
        assert main.run(words) == 0
        with np.load(tmp_path / "c.npz") as held:
            codes.append(held["mean"])
    assert "turned" in capsys.readouterr().err
    np.testing.assert_array_equal(*codes)


def test_prepare_takes_the_same_options(tmp_path, capsys):
    saved(tmp_path / "photos/a.png", np.dstack([COLOR, ALPHA]))
    saved(tmp_path / "photos/b.png", GRAY)
    for i in range(8):
        saved(tmp_path / f"photos/c{i}.png", GRAY // (i + 1))
    (tmp_path / "photos/z.png").write_bytes(b"x")
    words = ["data", "prepare", "image_folder", "--from", str(tmp_path / "photos"), "--data-dir", str(tmp_path / "out")]
    assert main.run(words) == 2
    line = capsys.readouterr().err
    assert line.endswith("remove or replace it, or pass over such files with --skip-broken True\n")
    words += ["--skip-broken", "True"]
    assert main.run(words) == 2
    assert "use --channels grey or rgb to convert them" in capsys.readouterr().err
    words += ["--channels", "rgb", "--background", "9", "200", "70", "--image-size", "6", "12", "--fit", "pad"]
    assert main.run(words) == 0
    out = capsys.readouterr().out
    assert "1 broken file is passed over (z.png)" in out
    folder = out.partition(" in ")[2].splitlines()[0]
    options = {"channels": "rgb", "background": (9, 200, 70), "image_size": (6, 12), "fit": "pad", "skip_broken": True}
    for split in ("train", "test"):
        config = DataConfig("image_folder", str(tmp_path / "photos"), batch_size=1, **options)
        want = data.load(config, split).arrays["image"]
        found = data.load(DataConfig("image_folder", folder, batch_size=1), split).arrays["image"]
        np.testing.assert_array_equal(found, want)
    for name, value in options.items():
        with pytest.raises(InputError, match="prepared; leave"):
            data.load(DataConfig("image_folder", folder, batch_size=1, **{name: value}))
    assert main.run(["data", "prepare", "digits", "--fit", "pad", "--data-dir", str(tmp_path / "out")]) == 2
    assert "fit: is read for folders of images alone, and 'digits' is not one; leave it out" in capsys.readouterr().err


# Channels of arrays


@pytest.mark.parametrize("channels", [2, 5, 12])
def test_arrays_of_any_number_of_channels(tmp_path, channels):
    images = RNG.integers(0, 256, (20, 6, 7, channels), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images)
    source = data.load(DataConfig("npz", str(tmp_path / "x.npz"), batch_size=1, protocol="full"))
    np.testing.assert_array_equal(source.arrays["image"], images)
    report = data.prepare("npz", str(tmp_path / "x.npz"), str(tmp_path / "tfds"))
    stored = data.load(DataConfig("npz", report.folder, batch_size=1), "train").arrays["image"]
    assert {row.tobytes() for row in stored} < {row.tobytes() for row in images}


def test_few_rows_of_many_channels_are_read_where_they_can_be_rows(tmp_path):
    np.savez(tmp_path / "x.npz", images=RNG.random((20, 4, 4, 12)))
    config = DataConfig("npz", str(tmp_path / "x.npz"), batch_size=1, protocol="full")
    assert data.load(config).info.shape == (4, 4, 12)


def test_figures_show_three_channels_and_say_so():
    images = RNG.random((1, 2, 5, 6, 7)).astype(np.float32)
    np.testing.assert_array_equal(pixels(images), pixels(images[..., :3]))
    np.testing.assert_array_equal(pixels(images[..., :2]), pixels(images[..., :1]))
    texts = {
        channels: [text.get_text() for text in grid(images[..., :channels], title="samples").texts]
        for channels in (1, 2, 3, 7)
    }
    said = {1: "samples", 2: "samples (channel 1 of 2)", 3: "samples", 7: "samples (channels 1-3 of 7)"}
    assert {n: " ".join(" ".join(lines).split()) for n, lines in texts.items()} == said


@pytest.mark.parametrize("shape", [(64, 78, 1), (80, 128, 3), (65, 65, 7)])
@pytest.mark.parametrize("name", REGISTRIES["model.network"])
def test_sizes_that_are_no_powers_of_two_on_every_network(name, shape):
    """Traced only: a network takes the images, or says in one line which size it needs and what takes these."""

    def decoded(network):
        model = support.around(2, network).build(DataSpec(ArraySpec(shape), examples=10))
        batch = {"x": jnp.zeros((2, *shape)), "index": jnp.arange(2)}

        def run(key):
            variables = model.init(key, batch)
            codes = model.encode(variables[0], variables[1], None, batch)
            return model.decode(variables[0], variables[1], codes.z).mean()

        return jax.eval_shape(run, jax.random.key(0))

    network = support.shrink(REGISTRIES["model.network"][name]())
    if name in ("conv64", "deep-conv", "broadcast") and shape != (80, 128, 3):
        with pytest.raises(InputError, match=r"multiples of 16, .* use another network \(mlp, pooled-conv\)") as error:
            decoded(network)
        assert "\n" not in str(error.value)
        network = PooledConv((4, 4))
    if name == "vit" and shape != (80, 128, 3):
        with pytest.raises(InputError, match="patches of 4x4 do not divide images of") as error:
            decoded(network)
        network = dataclasses.replace(network, patch=int(re.findall(r"patch\D+(\d+)", str(error.value))[-1]))
    assert decoded(network).shape == (2, *shape)


@pytest.mark.parametrize("words", [("--data.image-size", "32", "64"), ("--data.channels", "grey", "rgb")])
def test_the_bundled_crops_of_own_images_refuse_what_they_do_not_read(words, tmp_path, capsys):
    option, wrong, right = words
    run = ["train", "own_images", "--smoke", "--quiet", "--workdir", str(tmp_path / "r"), "--mesh.data", "1"]
    assert main.run([*run, option, wrong]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"use {option} {right}, or name photographs of your own with --data photos/" in line
    assert not (tmp_path / "r").exists()
    assert main.run([*run, option, right]) == 0
