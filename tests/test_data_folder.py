"""Folders of images as users have them: split names, odd files, large pictures; each message's advice is followed."""

import dataclasses
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vae_jax import data
from vae_jax.data import classes, folder, layout, limit, pictures
from vae_jax.data.config import DataConfig
from vae_jax.data.pictures import Fit
from vae_jax.data.source import Info, from_arrays
from vae_jax.errors import InputError, on_command_line

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _at_the_command_line():
    """Messages are read as somebody at the command line reads them."""
    with on_command_line():
        yield


def _save(path: Path, size=(4, 4), mode="L", **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8)).save(path, **options)
    return path


def _tree(root: Path, *names: str, count: int = 3) -> Path:
    """Saves `count` pictures in each folder."""
    for name in names:
        for i in range(count):
            _save(root / name / f"{i}.png")
    return root


def _load(root: Path, split: str = "train", **options) -> data.Source:
    return data.load(DataConfig("image_folder", source=str(root), batch_size=1, **options), split)


def _refused(root: Path, match: str, split: str = "train", **options) -> str:
    with pytest.raises(InputError, match=match) as error:
        _load(root, split, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def _typed(message: str, root: Path) -> None:
    """Runs the `mv` that a message tells to type."""
    words = shlex.split(message[message.index("mv ") :].partition(";")[0])
    assert subprocess.run(words, cwd=root, check=False).returncode == 0


# Layout


@pytest.mark.parametrize(
    ("names", "sizes", "said"),
    [
        (("train/a", "test/a"), {"train": 3, "test": 3}, ()),
        (("Train", "Test"), {"train": 3, "test": 3}, ("Test as test, Train as train",)),
        (
            ("training", "val", "eval"),
            {"train": 3, "validation": 3, "test": 3},
            ("training as train", "val as validation", "eval as test"),
        ),
        (("TRAIN", "dev"), {"train": 3, "validation": 3}, ("dev as validation",)),
        (("train", "valid", "testing"), {"train": 3, "validation": 3, "test": 3}, ("valid as validation",)),
        (
            ("train", "test", "raw"),
            {"train": 3, "test": 3},
            ("3 files beside the split folders are not read (3 .png): raw",),
        ),
    ],
    ids=lambda v: "+".join(v) if isinstance(v, tuple) else "",
)
def test_split_folders_are_recognized_by_name_and_it_is_said(tmp_path, names, sizes, said):
    info = _load(_tree(tmp_path, *names)).info
    assert info.sizes == sizes
    notes = " ".join(info.notes)
    assert all(words in notes for words in said), notes
    assert bool(notes) == bool(said)
    for split, size in sizes.items():
        assert _load(tmp_path, split).size == size


def test_a_class_called_train_is_refused_with_the_rename_that_works(tmp_path):
    root = _tree(tmp_path / "my vehicles", "bus", "plane", "train")
    _typed(
        _refused(root, r"'train' is the name of the training split.*'bus', 'plane'.*if it is a class, rename it"), root
    )
    assert _load(root).info.label_names == ("bus", "plane", "train_class")


def test_loose_images_beside_a_lone_train_folder_are_refused(tmp_path):
    root = _tree(tmp_path, "train", ".")
    _refused(root, r"there are images beside it \('0.png', '1.png', '2.png'\).*move the others away")
    for file in root.glob("*.png"):
        file.unlink()
    assert _load(root).info.sizes == {"train": 3}


def test_a_split_name_without_train_is_refused_with_the_rename_that_works(tmp_path):
    root = _tree(tmp_path, "control", "test")
    _typed(_refused(root, r"'test' is the name of a split, but there is no folder 'train'"), root)
    assert _load(root).info.label_names == ("control", "test_class")
    _tree(tmp_path / "two", "images", "test")
    _refused(tmp_path / "two", r"rename the training folder to 'train'")
    (tmp_path / "two/images").rename(tmp_path / "two/train")
    assert _load(tmp_path / "two").info.sizes == {"train": 3, "test": 3}


def test_two_folders_for_one_split_are_refused(tmp_path):
    root = _tree(tmp_path, "train", "val", "valid")
    _refused(root, r"'val' and 'valid' both name the validation split; move one into the other")
    for file in (root / "valid").iterdir():
        file.rename(root / "val" / f"moved_{file.name}")
    (root / "valid").rmdir()
    assert _load(root, "validation").size == 6


def test_own_splits_have_no_full_protocol_and_no_absent_split(tmp_path):
    root = _tree(tmp_path, "Train")
    _refused(root, r"has its own Train folder; use --data.protocol standard", protocol="full")
    _refused(root, r"has no folder test; add it", "test", protocol="standard")
    _tree(root, "test")
    assert _load(root, "test", protocol="standard").size == 3


def test_classes_of_the_other_splits_are_matched_by_name(tmp_path):
    root = _tree(tmp_path, "train/a", "train/b", "train/c", "test/c", "test/a", count=2)
    assert _load(root, "test").arrays["label"].tolist() == [0, 0, 2, 2]
    assert _load(root, "test").info.num_classes == 3
    _tree(root, "test/zebra", count=1)
    _refused(root, r"the class folders of test 'zebra' are not in train \(a, b, c\); rename or remove them", "test")
    (root / "test/zebra").rename(root / "test/b")
    assert _load(root, "test").arrays["label"].tolist() == [0, 0, 1, 2, 2]
    flat = _tree(tmp_path / "flat", "train/a", "test")
    _refused(flat, r"train has class folders and test does not; sort both in the same way")
    _tree(flat, "test/a")
    for file in (flat / "test").glob("*.png"):
        file.unlink()
    assert _load(flat, "test").size == 3


# Files that are not read, and odd names


def test_files_of_other_kinds_are_counted_in_one_line(tmp_path):
    root = _tree(tmp_path, "a", count=4)
    for name in ("x.psd", "y.psd", "z.GIF", "a/b.HEIC", "movie.mp4", "README", ".hidden.psd"):
        (root / name).write_bytes(b"x")
    (note,) = _load(root).info.notes
    assert note == (
        f"{root}: 6 files are not read (2 .psd, 1 .gif, 1 .heic, 1 .mp4, 1 no extension); "
        "only .png, .jpg, .jpeg, .bmp, .webp, .tif, .tiff are images here"
    )
    only = tmp_path / "scans"
    only.mkdir()
    (only / "a.psd").write_bytes(b"x")
    _refused(only, r"holds no images \(.png, .*\), only .psd files; name another folder")


def test_files_beside_the_split_folders_are_counted_in_one_line(tmp_path):
    root = _tree(tmp_path, "train", "test", *(f"extra{i}" for i in range(6)), count=1)
    assert _load(_tree(tmp_path / "one", "train", "test", "raw", count=1)).info.notes == (
        f"{tmp_path}/one: 1 file beside the split folders is not read (1 .png): raw",
    )
    shutil.rmtree(tmp_path / "one")
    (root / "scans").mkdir()
    (root / "empty").mkdir()
    for name in ("scans/a.tif", "scans/b.TIF", "labels.csv"):
        (root / name).write_bytes(b"x")
    (note,) = _load(root).info.notes
    assert note == (
        f"{root}: 9 files beside the split folders are not read (6 .png, 2 .tif, 1 .csv): "
        "extra0, extra1, extra2, extra3, extra4 and 3 more"
    )


def test_suffixes_in_capitals_and_renamed_files_are_read(tmp_path):
    _save(tmp_path / "A.PNG")
    _save(tmp_path / "b.png").rename(tmp_path / "b.JPG")  # a PNG that is called JPEG
    _save(tmp_path / "bild ä 図.png")
    assert _load(tmp_path, protocol="full").size == 3


def test_a_name_with_a_line_break_stays_in_one_line(tmp_path):
    (_save(tmp_path / "a.png").parent / "b\n\x1b[31m.png").write_bytes(b"no image")
    message = _refused(tmp_path, r"not a readable image")
    assert "b\\n\\x1b[31m.png" in message
    assert message.isprintable()
    (tmp_path / "b\n\x1b[31m.png").unlink()
    assert _load(tmp_path, protocol="full").size == 1


def test_links_are_followed_and_loops_refused(tmp_path):
    pool = _tree(tmp_path / "pool", ".")
    root = _tree(tmp_path / "photos", "cat")
    (root / "dog").symlink_to(pool)
    assert _load(root, protocol="full").info.label_names == ("cat", "dog")
    assert _load(root, protocol="full").size == 6
    (root / "cat/again").symlink_to(root)
    _refused(root, r"again: is a link to a folder above it, which would be read for ever; remove it")
    (root / "cat/again").unlink()
    (root / "cat/gone.png").symlink_to(tmp_path / "nowhere.png")
    _refused(root, r"gone.png: a link to nothing; remove it")
    (root / "cat/gone.png").unlink()
    os.mkfifo(root / "cat/pipe.png")  # opening it would wait for ever
    _refused(root, r"pipe.png: not a regular file; remove it")
    (root / "cat/pipe.png").unlink()
    assert _load(root, protocol="full").size == 6


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    root, scandir = _tree(tmp_path, "a", "b"), os.scandir

    def deny(path):  # root may list anything, so the refusal is staged
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", deny)
        _refused(root, r"/b: cannot be listed \(Permission denied\); allow it \(chmod u\+rx\) or move it away")
    assert _load(root).info.label_names == ("a", "b")


def test_damaged_files_are_named(tmp_path):
    root = _tree(tmp_path, ".", count=2)
    whole = _save(root / "c.png", (64, 64)).read_bytes()
    for content, words in (
        (b"", r"c.png: not a readable image \(no PNG, JPEG, BMP, WEBP or TIFF file\); remove or replace it"),
        (whole[:20], r"c.png: not a readable image"),
        (whole[:2000], r"c.png: the image is damaged or cut off"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", r"c.png: not a readable image \(no PNG"),
        (b"GIF89a" + bytes(30), r"c.png: not a readable image \(no PNG"),
    ):
        (root / "c.png").write_bytes(content)
        _refused(root, words, image_size=4, protocol="full")
    (root / "c.png").unlink()
    assert _load(root, image_size=4, protocol="full").size == 2


def test_an_image_that_changes_between_header_and_decoding(tmp_path):
    path = _save(tmp_path / "a.png", (6, 4))
    with pytest.raises(InputError, match=r"a.png: changed while it was read; start again"):
        pictures.decode(path, (4, 4, 1), Fit())
    assert pictures.decode(path, (4, 6, 1), Fit()).shape == (4, 6, 1)


# Pictures


def _png(width: int, height: int, body: bytes = b"") -> bytes:
    """Returns a gray PNG whose header says width x height, whatever its body holds."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(10_001, 10_000), (60_000, 60_000)])
def test_bombs_are_refused_by_their_headers(tmp_path, width, height, monkeypatch):
    root = _tree(tmp_path, ".", count=2)
    (root / "bomb.png").write_bytes(_png(width, height, zlib.compress(bytes(1000))))
    with monkeypatch.context() as patched:  # nothing may be decoded
        patched.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
        patched.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
        for size in (None, 4):
            _refused(root, r"bomb.png: more than 100 megapixels; shrink it or remove it", image_size=size)
    with pytest.raises(InputError, match="megapixels"):  # a file that was exchanged after its header was read
        pictures.decode(root / "bomb.png", (4, 4, 1), Fit("crop"))
    (root / "bomb.png").unlink()
    assert _load(root).size == 1


def test_large_pictures_below_the_limit_bring_no_warning_of_pil(tmp_path):
    (tmp_path / "large.png").write_bytes(_png(9_900, 10_000))  # PIL warns from 89 megapixels on, and warnings fail here
    assert pictures.header(tmp_path / "large.png")[:3] == (10_000, 9_900, 1)


def test_decoded_folders_are_held_in_memory_up_to_max_bytes(tmp_path):
    from types import SimpleNamespace

    config = SimpleNamespace(max_bytes=100)
    with pytest.raises(InputError, match=r"over 100; use --data.pipeline grain, or --data.max-bytes 120"):
        folder._check_memory(config, 120, "photos")
    folder._check_memory(SimpleNamespace(max_bytes=120), 120, "photos")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_exif_says(tmp_path, orientation):
    from PIL import ImageOps

    pixels = RNG.integers(0, 256, (4, 6), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    want = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    source = _load(tmp_path, protocol="full")
    assert source.info.shape == (*want.shape, 1)
    assert np.array_equal(source.arrays["image"][0, ..., 0], want)
    assert bool(source.info.notes) == (orientation != 1)
    if orientation != 1:
        assert not np.array_equal(want, pixels)
        assert source.info.notes == (f"{tmp_path}: 1 images are turned as their EXIF orientation says",)


def test_turned_jpegs_agree_with_upright_ones_and_bad_exif_costs_nothing(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    _save(tmp_path / "a.jpg", (8, 16))
    _save(tmp_path / "b.jpg", (16, 8), exif=exif)
    assert _load(tmp_path, protocol="full").info.shape == (16, 8, 1)
    _save(tmp_path / "c.jpg", (8, 16), exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff")
    _save(tmp_path / "d.jpg", (8, 16), exif=b"Exif\x00\x00nonsense")
    assert _load(tmp_path, protocol="full").size == 4


def _palette(path: Path, colors) -> Path:
    image = Image.fromarray(RNG.integers(0, len(colors), (4, 4), dtype=np.uint8), "L")
    paletted = Image.new("P", (4, 4))
    paletted.putdata(list(image.getdata()))
    paletted.putpalette([v for color in colors for v in color])
    path.parent.mkdir(parents=True, exist_ok=True)
    paletted.save(path)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_a_gray_palette_is_gray(tmp_path, suffix):
    grays, colors = [(v, v, v) for v in (0, 100, 255)], [(0, 0, 0), (200, 0, 0), (0, 9, 255)]
    path = _palette(tmp_path / "grey" / f"a.{suffix}", grays)
    source = _load(tmp_path / "grey", protocol="full")
    assert source.info.shape == (4, 4, 1)
    assert np.array_equal(source.arrays["image"][0, ..., 0], np.asarray(Image.open(path).convert("RGB"))[..., 0])
    _palette(tmp_path / "colored" / f"a.{suffix}", colors)
    assert _load(tmp_path / "colored", protocol="full").info.shape == (4, 4, 3)


def test_frames_after_the_first_are_said(tmp_path):
    frames = [Image.fromarray(RNG.integers(0, 256, (4, 4), dtype=np.uint8)) for _ in range(3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    source = _load(tmp_path, protocol="full")
    assert source.info.notes == (f"{tmp_path}: 1 images hold several frames; the first is read",)


@pytest.mark.parametrize(
    ("sizes", "side"), [([(4, 4), (5, 4)], 4), ([(30, 40), (28, 28)], 16), ([(900, 700), (500, 90)], 64)]
)
def test_mixed_sizes_offer_a_number_that_works(tmp_path, sizes, side):
    for i, size in enumerate(sizes):
        _save(tmp_path / f"{i}.png", size)
    message = _refused(tmp_path, r"mixed image sizes, 0.png is .* set --data.image-size \d+ to resize and crop them")
    number = int(message.partition("--data.image-size ")[2].split()[0])
    assert number == side
    assert _load(tmp_path, protocol="full", image_size=number).info.shape == (side, side, 1)


def test_mixed_channels_name_one_of_each(tmp_path):
    _save(tmp_path / "a.png")
    path = _save(tmp_path / "b.png", mode="RGB")
    line = _refused(
        tmp_path,
        r"mixed channels, a.png has 1 and b.png has 3; use --data.channels grey or rgb to convert them$",
    )
    gray, color = np.asarray(Image.open(tmp_path / "a.png")), np.asarray(Image.open(path).convert("L"))
    for channels in re.search(r"--data.channels (\w+) or (\w+)", line).groups():
        found = _load(tmp_path, protocol="full", channels=channels).arrays["image"]
        assert found.shape == (2, 4, 4, 1 if channels == "grey" else 3)
        assert np.array_equal(found[0], np.broadcast_to(gray[..., None], found[0].shape))
        assert np.array_equal(found[1], color[..., None] if channels == "grey" else np.asarray(Image.open(path)))


@pytest.mark.parametrize("tall", [False, True])
def test_the_center_of_a_gradient_is_cropped_in_both_directions(tmp_path, tall):
    """The middle of a ramp has its middle values: an off-center crop is darker or brighter."""
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (16, 1))
    Image.fromarray(ramp.T if tall else ramp).save(tmp_path / "a.png")
    pixels = _load(tmp_path, protocol="full", image_size=16).arrays["image"][0, ..., 0].astype(float)
    assert abs(pixels.mean() - 127.5) < 1
    along = pixels.mean(1 if tall else 0)
    assert (along[0], along[-1]) == pytest.approx((97, 158), abs=3)


# Brightness


def _masks(root: Path, *names: str, most: int = 1, mode: str = "L") -> Path:
    """Saves four pictures of values 0 and `most` in each folder."""
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(4):
            pixels = RNG.integers(0, 2, (4, 4) if mode == "L" else (4, 4, 3)).astype(np.uint8)
            pixels[0, 0], pixels[0, 1] = 0, 1
            Image.fromarray(pixels * np.uint8(most)).save(root / name / f"{i}.png")
    return root


@pytest.mark.parametrize("pipeline", ["device", "grain"])
@pytest.mark.parametrize(("most", "mode"), [(1, "L"), (15, "RGB")])
def test_masks_of_small_numbers_are_refused_and_the_command_rescales_them(tmp_path, pipeline, most, mode):
    root = _masks(tmp_path / "my masks", "train/a", "train/b", "test/a", "test/b", most=most, mode=mode)
    (root / "train/a/._0.png").write_bytes(b"not a picture")
    kind = "black" if most == 1 else "dark"
    line = _refused(root, f"no pixel is above {most}, which is {kind} on the scale 0 to 255; use ", pipeline=pipeline)
    assert ("save their pixels / 255" in line) == (most > 1)
    bright = Path(line.split("; use ")[1].split(" after python")[0])
    words = shlex.split("python" + line.split(" after python")[1].split("; or, if they")[0])
    assert subprocess.run([sys.executable, *words[1:]], check=False).returncode == 0
    for split in ("train", "test"):
        pixels = _load(bright, split, pipeline=pipeline).records.rows(np.arange(8))["image"]
        assert set(np.unique(pixels)) == {0, 255}
        assert _load(bright, split).info.label_names == ("a", "b")
    with pytest.raises(InputError, match="no pixel is above"):
        data.prepare("image_folder", str(root), str(tmp_path / "tfds"))
    assert not (tmp_path / "tfds").exists()


def test_pictures_are_judged_over_all_classes_and_splits(tmp_path):
    """One class, or the test split, may be dark on purpose."""
    root = _masks(tmp_path / "dark", "train/a", "test/a", "test/b", most=20)
    _tree(root, "train/b")
    for pipeline in ("device", "grain"):
        for split in ("train", "test"):
            assert _load(root, split, pipeline=pipeline).size >= 7
    folder = data.prepare("image_folder", str(root), str(tmp_path / "tfds")).folder
    for pipeline in ("device", "grain"):
        for split in ("train", "test"):
            assert _load(Path(folder), split, pipeline=pipeline).size >= 7
    black = _masks(tmp_path / "black", "x", most=0)
    _refused(black, "every pixel is 0, so there is nothing to learn; name another folder", protocol="full")


# Limits


def test_a_limit_of_class_folders_takes_every_class(tmp_path):
    root = _tree(tmp_path, "train/a", "train/b", "test/a", "test/b", count=10)
    source = _load(root, limit=6)
    assert source.arrays["label"].tolist() == [0, 0, 0, 1, 1, 1]
    assert np.array_equal(source.records.rows(np.array([0, 5]))["image"], source.arrays["image"][[0, 5]])
    assert source.info.protocol_text.endswith("only 6, evenly spread as it is in the order of classes")
    assert _load(root, "test", limit=6).info.protocol_text == source.info.protocol_text
    streamed = _load(root, limit=6, pipeline="grain")
    assert streamed.records.rows(np.arange(6))["label"].tolist() == [0, 0, 0, 1, 1, 1]
    assert np.array_equal(_load(root, limit=20).arrays["image"], _load(root).arrays["image"])
    _refused(root, r"data.limit: 21 is more than the 20 training examples .*; use --data.limit 20 or less", limit=21)


def test_a_limit_of_a_flat_folder_is_spread_over_the_names(tmp_path):
    """Without class folders the class is often in the name: cat.0.png, ..., dog.9.png."""
    root = tmp_path / "flat"
    for name in ("cat", "dog"):
        for i in range(10):
            path = root / f"{name}.{i}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((4, 4), 100 if name == "cat" else 200, np.uint8)).save(path)
    assert _load(root, protocol="full", limit=4).arrays["image"][:, 0, 0, 0].tolist() == [100, 100, 200, 200]


SHUFFLED = np.random.default_rng(1).permutation(60)


@pytest.mark.parametrize(
    ("order", "labels"),
    [(np.arange(60), [0, 0, 1, 1, 2, 2]), (SHUFFLED, (SHUFFLED[:6] // 20).tolist())],
    ids=["sorted", "shuffled"],
)
def test_a_limit_of_sorted_arrays_takes_every_class_and_of_shuffled_ones_the_first(tmp_path, order, labels):
    images = RNG.integers(0, 256, (60, 4, 4), dtype=np.uint8)
    path = tmp_path / "x.npz"
    np.savez(path, images=images[order], labels=np.repeat([0, 1, 2], 20)[order])
    config = DataConfig("npz", source=str(path), protocol="full", batch_size=1)
    part, whole = data.load(dataclasses.replace(config, limit=6)), data.load(config)
    assert part.arrays["label"].tolist() == labels
    assert np.array_equal(part.arrays["image"], whole.arrays["image"][limit.rows(whole, 6)])


def _labeled(labels) -> data.Source:
    labels = np.asarray(labels, np.int32)
    info = Info("npz", (1, 1, 1), {"train": len(labels)}, "full", "", num_classes=int(labels.max()) + 1)
    return from_arrays(info, "train", {"image": np.zeros((len(labels), 1, 1, 1), np.uint8), "label": labels})


@pytest.mark.parametrize(
    "labels",
    [
        np.repeat(np.arange(300), 20),
        np.repeat(np.arange(300), 200),
        np.tile(np.repeat(np.arange(10), 50), 2),
        np.tile(np.repeat(np.arange(10), 500), 30),
        np.repeat([0, 1], [9900, 100]),
        np.append(np.repeat(np.arange(10), 300), [0, 5, 2]),
        [0, 0, 0, 1, 1, 2],
    ],
    ids=["300 classes", "300 large classes", "halves", "parts", "rare", "nearly", "few"],
)
def test_common_orders_are_seen(labels):
    source = _labeled(labels)
    assert limit.in_class_order(source)
    size = min(100, source.size // 2)
    assert limit.rows(source, size)[-1] > size  # spread over the split
    mixed = limit.mixed(source, size)
    assert sorted(mixed) == limit.rows(source, size).tolist()


def test_shuffled_splits_keep_their_first_examples():
    """Published numbers of limited evaluations are of these rows."""
    for name in ("digits", "mnist", "fashion_mnist", "sprites"):
        for split in ("train", "test"):
            source = data.load(DataConfig(name, batch_size=1), split)
            for rows in (limit.rows(source, 100), limit.mixed(source, 100)):
                assert rows.tolist() == list(range(100)), (name, split)
    rng = np.random.default_rng(1)
    for _ in range(300):
        size, classes = int(rng.integers(64, 4000)), int(rng.integers(2, 100))
        shares = rng.dirichlet(np.full(classes, rng.choice([0.1, 1, 10])))
        assert not limit.in_class_order(_labeled(rng.choice(classes, size, p=shares)))
    assert not limit.in_class_order(_labeled(np.tile(np.arange(10), 500)))


def test_a_limit_of_the_whole_grid_of_sprites_has_every_shape():
    source = data.load(DataConfig("sprites", protocol="full", batch_size=1, limit=9))
    batch = source.fetch({}, np.arange(9))
    assert batch["label"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert batch["index"].tolist() == list(range(9))
    assert np.array_equal(source.records.rows(np.arange(9))["image"], batch["image"])


def test_the_old_rule_of_splitting_keeps_its_first_examples(tmp_path):
    """Runs of earlier versions resume under protocol random-tenth: their training examples must not change."""
    import dataclasses

    source = _load(_tree(tmp_path, "a", "b", count=10), protocol="full")
    old = dataclasses.replace(source, info=dataclasses.replace(source.info, protocol="random-tenth"))
    assert limit.limited(old, 4).arrays["label"].tolist() == [0, 0, 0, 0]
    assert limit.limited(source, 4).arrays["label"].tolist() == [0, 0, 1, 1]


def test_limited_evaluation_takes_every_class_of_a_sorted_split_only(tmp_path):
    root = _tree(tmp_path, "train/a", "test/a", "train/b", "test/b", count=10)
    config = DataConfig("image_folder", source=str(root), batch_size=1)
    source = data.load(config, "test")
    batches = list(data.eval_batches(source, config, 4, limit=6))
    assert [batch["label"].tolist() for batch in batches] == [[0, 0, 0, 1], [1, 1]]
    assert np.concatenate([batch["index"] for batch in batches]).tolist() == limit.rows(source, 6).tolist()
    assert limit.text(source, 6) == "evenly spread, as the split is in the order of classes"
    # One row of each of six parts, and not always the same place in it: a stride falls in step with a grid of factors.
    assert (np.diff(limit.rows(source, 6)) > 0).all()
    places = limit.rows(dataclasses.replace(source, size=100_000), 100) % 1000
    assert len(np.unique(places)) > 90
    assert np.histogram(places, 2, (0, 1000))[0].min() > 30
    digits = data.load(DataConfig("digits"), "test")
    assert limit.rows(digits, 7).tolist() == list(range(7))
    assert (limit.text(digits, 7), limit.text(digits, 0), limit.text(digits, 999)) == ("the first", "all", "all")


# Classes by name


def test_class_numbers_are_those_of_the_run(tmp_path):
    root = _tree(tmp_path / "new", "zebra", "cat", count=2)
    for pipeline in ("device", "grain"):
        source = classes.match(_load(root, protocol="full", pipeline=pipeline), ("ant", "cat", "zebra"), "--input new")
        assert source.records.rows(np.arange(4))["label"].tolist() == [1, 1, 2, 2]
        assert (source.info.num_classes, source.info.label_names) == (3, ("ant", "cat", "zebra"))
        if pipeline == "device":
            assert source.arrays["label"].tolist() == [1, 1, 2, 2]
    same = _load(root, protocol="full")
    assert classes.match(same, (), "x") is same  # a run of an earlier version: its names are unknown
    with pytest.raises(InputError, match=r"--input new: the classes zebra are not among .* \(cat, dog\); rename"):
        classes.match(same, ("cat", "dog"), "--input new")
    (root / "zebra").rename(root / "dog")
    assert classes.match(_load(root, protocol="full"), ("cat", "dog"), "--input new").arrays["label"].tolist() == [
        0,
        0,
        1,
        1,
    ]


def test_search_is_in_name_order_whatever_the_system_lists(tmp_path, monkeypatch):
    root, listdir = _tree(tmp_path, "b", "a-b", "a"), os.listdir
    before = layout.search(root).images
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listdir(path), reverse=True))
    assert layout.search(root).images == before == sorted(before)
