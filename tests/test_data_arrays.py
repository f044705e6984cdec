"""What the user's arrays may hold, and that each refusal's line of numpy, pasted, gives arrays that load."""

import io
import re
import shlex
import zipfile
from contextlib import nullcontext

import numpy
import numpy as np
import pytest

from vae_jax import data
from vae_jax.data import values
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError, on_command_line
from vae_jax.files import bounded

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (40, 8, 8), dtype=np.uint8)
UNIT = RNG.random((40, 8, 8))
DIGITS = RNG.integers(0, 17, (40, 8, 8), dtype=np.uint8)  # as scikit-learn has them
LABELS = np.arange(40) % 4


@pytest.fixture(autouse=True)
def _at_the_command_line():
    """Messages are read as somebody at the command line reads them."""
    with on_command_line():
        yield


def load(tmp_path, arrays, split="train", strict=True, **options):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    config = DataConfig("npz", source=str(path), **{"batch_size": 1, "protocol": "full"} | options)
    return data.load(config, split) if strict else data.npz.load(config, split, strict=False)


def npy(value):
    out = io.BytesIO()
    np.lib.format.write_array(out, value)
    return out.getvalue()


def refused(tmp_path, arrays, **options):
    with pytest.raises(InputError) as error:
        load(tmp_path, arrays, **options)
    line = str(error.value)
    assert "\n" not in line
    assert "mine.npz" in line
    return line


def follow(arrays, name, expression):
    """Returns the arrays after pasting an expression for one of them, or an assignment to several."""
    scope = {"numpy": numpy} | arrays
    if re.match(r"^[a-z_, ]+ = ", expression):
        exec(expression, scope)
        return {key: scope[key] for key in arrays}
    return arrays | {name: eval(expression, scope)}


# arrays, what the message says, the expression in it, and what the pixels of the first image are then.
PIXELS = {
    "series": ({"images": RNG.random((40, 50, 6))}, "series of 6 numbers at 50 times", "images[..., None]"),
    "short series": ({"images": RNG.random((40, 50, 3))}, "may be 50x3 pictures", "images[..., None]"),
    "booleans T x C": ({"images": RNG.random((40, 16, 88)) > 0.5}, "series of 88 numbers", "images[..., None]"),
    "one picture": ({"images": GRAY[:8, :8].repeat(3, 2)[:, :, :3]}, "one picture of 3 channels", "images[None]"),
    "rows": ({"images": GRAY.reshape(40, 64)}, "must be [N, H, W]", "images.reshape(-1, 8, 8, 1)"),
    "rows of RGB": ({"images": GRAY[:, :, :6].reshape(40, 48)}, "must be [N, H, W]", "images.reshape(-1, 4, 4, 3)"),
    "one gray picture": ({"images": GRAY[0]}, "one gray picture", "images[None, ..., None]"),
    "channels first": ({"images": GRAY[:, None].repeat(3, 1)}, "its 3 channels first", "numpy.moveaxis(images, 1, -1)"),
    "4 channels first": ({"images": RNG.random((9, 4, 8, 12))}, "its 4 channels", "numpy.moveaxis(images, 1, -1)"),
    "videos": ({"images": RNG.random((4, 9, 8, 8, 1))}, "as videos have", "images.reshape(-1, *images.shape[2:])"),
    "huge": ({"images": (UNIT - 0.5) * 1e308}, "rescale: save", r"numpy.interp\(images, \([^)]*\), \(0, 1\)\)"),
    "just above 1": ({"images": UNIT / UNIT.max() * 1.000001}, "1.000001], not in [0, 1]", "numpy.clip(images, 0, 1)"),
    "negative integers": ({"images": GRAY.astype(int) - 5}, "not in [0, 255]; rescale",
                          "numpy.interp(images, (-5, 250), (0, 1))"),
    "int8": ({"images": GRAY.view(np.int8)}, "integers in [-128, 127]", "numpy.interp(images, (-128, 127), (0, 1))"),
    "uint16": ({"images": GRAY.astype(np.uint16) * 257}, "integers in [0, 65535], not", "images / 65535"),
    "uint64": ({"images": GRAY.astype(np.uint64) << np.uint64(56)}, "not in [0, 255]", f"images / {255 << 56}"),
    "0/1": ({"images": GRAY // 128}, "integers in [0, 1], which is black", "images.astype(bool)"),
    "0..16": ({"images": DIGITS}, "integers in [0, 16], which is dark", "images.astype('uint8') * 15"),
    "0..16 int8": ({"images": DIGITS.astype(np.int8)}, "which is dark", "images.astype('uint8') * 15"),
    "dark": ({"images": DIGITS}, "or if they are as dark as that", "images / 255"),
    "percent": ({"images": RNG.integers(0, 101, (40, 8, 8))}, "integers in [0, 100]", "images.astype('uint8') * 2"),
    "divided twice": ({"images": GRAY / 255**2}, "as after two divisions by 255", "images * 255"),
    "divided thrice": ({"images": GRAY / 255**3}, "which is black on the scale 0 to 1", r"images / [\d.e-]+"),
}  # fmt: skip


@pytest.mark.parametrize("name", PIXELS)
def test_pixels_that_can_be_read_in_two_ways_and_the_line_that_mends_them(tmp_path, name):
    arrays, said, expression = PIXELS[name]
    line = refused(tmp_path, arrays)
    assert said in line
    found = re.search(expression if "\\" in expression else re.escape(expression), line)
    assert found, line
    mended = follow(arrays, "images", found[0])
    source = load(tmp_path, mended)
    # Once is enough, and nothing is lost on the way: equal pixels stay equal, brighter ones brighter.
    kept = np.asarray(mended["images"], float)
    stored = source.arrays["image"].reshape(kept.shape).astype(float)
    scale = 255 if mended["images"].dtype == bool else 1
    assert np.allclose(stored, kept * scale, rtol=1e-6)
    least, most = (15.9 / 255, 16.1 / 255) if name == "dark" else (0.4, 1)
    assert least < stored.max() / (255 if source.arrays["image"].dtype == np.uint8 else 1) <= most


TABLE = RNG.random((40, 12)).astype(np.float32)
VECTORS = "; rows of a table need "


@pytest.mark.parametrize("key", ["x", "X_train", "images"])
def test_a_table_may_be_vectors_whatever_its_name(tmp_path, key):
    line = refused(tmp_path, {key: TABLE}, protocol="standard")
    assert VECTORS in line
    save, array = "train_images=" if key == "X_train" else "images=" if key == "x" else "", key
    assert f"save {save}{array}.reshape(-1, 2, 2, 3), or" in line
    follow_up = eval(f"dict({save or 'images='}{array}.reshape(-1, 2, 2, 3))", {key: TABLE})
    assert load(tmp_path, follow_up, protocol="standard").arrays["image"].shape[1:] == (2, 2, 3)
    # The other way: the file as it is, named as a table.
    np.savez(tmp_path / "mine.npz", **{key: TABLE})
    words = shlex.split(line.partition(VECTORS)[2].partition(",")[0])
    assert words[::2] == ["--data.name", "--data.source"]
    table = data.load(DataConfig(*words[1::2], batch_size=1))
    assert table.info.shape == (12,)


def test_a_table_in_memory_or_an_npy_may_be_vectors_too(tmp_path):
    (tmp_path / "mine.npy").write_bytes(npy(TABLE))
    config = DataConfig("npz", source=str(tmp_path / "mine.npy"), batch_size=1)
    with pytest.raises(InputError, match=re.escape(VECTORS)):
        data.load(config)
    with pytest.raises(InputError, match=f"{VECTORS}--data.name table, and rows of counts --data.name vectors"):
        data.npz.parts({"images": TABLE}, "data", "standard")
    with pytest.raises(InputError) as error:  # a trained model of images has no use for a data set
        data.npz.load(config, "train", strict=False)
    assert VECTORS not in str(error.value)


def test_dark_images_are_refused_for_training_and_taken_as_input(tmp_path):
    dim = np.minimum(GRAY, 100)
    assert "save images.astype('uint8') * 2, or" in refused(tmp_path, {"images": dim})
    assert np.array_equal(load(tmp_path, {"images": dim}, strict=False).arrays["image"][..., 0], dim)
    black = np.zeros((1, 8, 8), np.uint8)
    assert "every pixel is 0" in refused(tmp_path, {"images": black})
    assert not load(tmp_path, {"images": black}, strict=False).arrays["image"].any()
    # Other scales of few levels, and pixels divided twice, are refused as input too.
    assert "which is dark" in refused(tmp_path, {"images": DIGITS}, strict=False)
    assert "two divisions" in refused(tmp_path, {"images": GRAY / 255**2}, strict=False)
    assert np.isclose(load(tmp_path, {"images": DIGITS / 255}, strict=False).arrays["image"].max(), 16 / 255)


def test_a_scale_is_judged_over_all_splits(tmp_path):
    dark_test = {"train_images": GRAY, "test_images": DIGITS}
    assert load(tmp_path, dark_test, protocol="standard").info.sizes == {"train": 40, "test": 40}
    both = {"train_images": DIGITS, "test_images": DIGITS // 4}
    line = refused(tmp_path, both, protocol="standard")
    wanted = "train_images.astype('uint8') * 15, test_images.astype('uint8') * 15"
    assert wanted in line
    mended = {n: eval(e, {}, both) for n, e in zip(both, wanted.split(", "), strict=True)}
    assert load(tmp_path, mended, "test", protocol="standard").arrays["image"].max() == 60
    mixed = {"train_images": GRAY, "test_images": UNIT}
    assert "test_images holds floats, train_images gray levels; save floats: train_images / 255" in refused(
        tmp_path, mixed, protocol="standard"
    )
    mixed["train_images"] = eval("train_images / 255", {}, mixed)
    assert load(tmp_path, mixed, protocol="standard").info.values == "float"


def test_float_scales_are_compared_in_the_type_they_are_kept_in(tmp_path):
    almost = np.full((4, 8, 8), 0.5)
    almost[0, 0, 0] = 1 + 1e-9  # 1 as float32
    source = load(tmp_path, {"images": almost})
    assert source.arrays["image"].max() == 1.0


# key, value, what is said, the expression.
FACTS = {
    "gap": ("labels", np.where(LABELS > 1, 10**6, LABELS), "goes up to 1000000, but holds only 3 different values"),
    "wraps in int32": ("labels", LABELS + 2**32, "goes up to 4294967299"),
    "wraps in int64": ("labels", LABELS.astype(np.uint64) + np.uint64(2**63), "goes up to 9223372036854775811"),
    "floats": ("labels", LABELS / 2, "labels must be integers [N], is float64 (40,)"),
    "names": ("labels", LABELS.astype("U3"), "labels must be integers [N], is <U3"),
    "negative": ("labels", LABELS - 2, "negative values (least -2), which are no classes"),
    "negative, positive in int32": ("labels", np.where(LABELS == 3, 1 - 2**32, LABELS), "(least -4294967295)"),
    "factor gap": ("factors", np.stack([LABELS, LABELS * 1000], 1), "factors (column 1) goes up to 3000, but holds"),
    "factor floats": ("factors", np.stack([LABELS, LABELS], 1) / 3, "factors must be integers [N, F], is float64"),
}


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("name", FACTS)
def test_labels_and_factors_are_renumbered_by_the_line_in_the_message(tmp_path, name, split):
    key, value, said = FACTS[name]
    arrays = {"images": GRAY, key: value}
    if split:
        parts = {"train": slice(0, 30), "validation": slice(30, 34), "test": slice(34, 40)}
        arrays = {f"{part}_{k}": v[rows] for part, rows in parts.items() for k, v in arrays.items()}
        said = said.replace(f"{key} (column", f"train_{key} and validation_{key} and test_{key} (column")
        said = said.replace(f"{key} must", f"train_{key} must").replace("(40,)", "(30,)")
    line = refused(tmp_path, arrays, protocol="standard" if split else "full")
    assert said in line
    mended = follow(arrays, key, line[line.index(f"train_{key}, validation" if split else f"{key} = ") :])
    source = load(tmp_path, mended, protocol="standard" if split else "full")
    stored = source.arrays["label" if key == "labels" else "factors"]
    whole = np.concatenate([mended[n] for n in mended if n.endswith(key)]) if split else mended[key]
    # The numbers count what occurs, and what was different is different still.
    for old, new in zip(np.atleast_2d(value.T), np.atleast_2d(whole.T), strict=True):
        kinds = len(set(old.tolist()))
        assert np.array_equal(np.unique(new), np.arange(kinds))
        assert len(set(zip(old.tolist(), new.tolist(), strict=True))) == kinds
    assert np.array_equal(stored, whole[: len(stored)])


def test_a_gap_between_few_classes_costs_nothing_and_is_read(tmp_path):
    source = load(tmp_path, {"images": GRAY, "labels": LABELS * 30})
    assert source.info.num_classes == 91
    source = load(tmp_path, {"images": GRAY, "labels": LABELS.astype(">u2")})
    assert (source.arrays["label"].dtype, source.info.num_classes) == (np.int32, 4)


OTHERS = {
    "one-hot": ("labels", np.eye(4, dtype=int)[LABELS], "labels.argmax(1)"),
    "column": ("labels", LABELS[:, None], "labels[:, 0]"),
    "one factor": ("factors", LABELS, "factors[:, None]"),
    "float NaN": ("labels", np.where(LABELS == 3, np.nan, LABELS), "labels[numpy.isfinite(labels)]"),
    "integer cond": ("cond", np.stack([LABELS, LABELS], 1), "cond.astype('float32')"),
    "cond row": ("cond", LABELS / 1.0, "cond[:, None]"),
    "large cond": ("cond", np.stack([LABELS, LABELS + 1.7e9], 1),
                   "(cond - cond.mean(0, dtype=float)) / (cond.std(0, dtype=float) + 1e-6)"),
    "cond beyond float32": ("cond", np.stack([LABELS, LABELS * 1e300], 1), "cond / 3e+300"),
    "half cond": ("cond", (np.stack([LABELS, LABELS], 1) * 2e4).astype(np.float16),
                  "(cond - cond.mean(0, dtype=float)) / (cond.std(0, dtype=float) + 1e-6)"),
    "cond NaN": ("cond", np.where(LABELS == 3, np.nan, LABELS)[:, None], "cond[numpy.isfinite(cond).all(1)]"),
    "cond Inf": ("cond", np.where(LABELS == 3, np.inf, LABELS)[:, None], "cond[numpy.isfinite(cond).all(1)]"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_shapes_and_types_and_the_line_that_mends_them(tmp_path, name):
    key, value, expression = OTHERS[name]
    arrays = {"images": GRAY, key: value}
    line = refused(tmp_path, arrays)
    assert f"save {expression}" in line
    mended = follow(arrays, key, expression)
    if len(mended[key]) < 40:  # "and the same rows of the other arrays"
        assert "the first in row 3" in line
        keep = np.isfinite(value).reshape(40, -1).all(1)
        mended["images"] = GRAY[keep]
        if key == "labels":
            mended[key] = mended[key].astype(int)  # NaN made them floats
    stored = load(tmp_path, mended).arrays[{"labels": "label"}.get(key, key)]
    assert np.allclose(stored, mended[key])
    assert np.isfinite(stored).all()


LAYOUTS = {
    "Fortran order": np.asfortranarray(GRAY),
    "big endian": GRAY.astype(">i4"),
    "uint16": GRAY.astype(np.uint16),
    "every second": GRAY.repeat(2, 0)[::2],
    "backwards": GRAY[::-1][::-1],
    "float16": (GRAY / 255).astype(np.float16),
    "big-endian float": (GRAY / 255).astype(">f8"),
    "long double": GRAY / np.longdouble(255),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_and_types_give_the_same_pixels(tmp_path, name):
    stored = load(tmp_path, {"images": LAYOUTS[name]}).arrays["image"]
    assert stored.dtype == (np.float32 if LAYOUTS[name].dtype.kind == "f" else np.uint8)
    assert stored.dtype.isnative
    assert stored.flags.c_contiguous
    scale, tolerance = (255, 0.07 if name == "float16" else 1e-4) if stored.dtype == np.float32 else (1, 0)
    assert np.abs(stored[..., 0] * scale - GRAY).max() <= tolerance
    np.save(tmp_path / "mine.npy", LAYOUTS[name])
    config = DataConfig("npz", source=str(tmp_path / "mine.npy"), batch_size=2, protocol="full")
    assert np.array_equal(data.load(config).arrays["image"], stored)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.array(3), "is (); save pictures"),
        (np.zeros((0, 8, 8, 1)), "is (0, 8, 8, 1); save pictures"),
        (np.zeros((2, 8, 0, 1)), "is (2, 8, 0, 1); save pictures"),
        (GRAY + 1j, "has type complex128; save uint8"),
        (GRAY.astype("datetime64[s]"), "has type datetime64[s]; save uint8"),
        (np.zeros((4, 8, 8), [("r", "u1")]), "has type [('r', 'u1')]; save uint8"),
        (np.full((4, 8, 8), 300), "all are the same, so there is nothing to learn"),
    ],
)
def test_what_is_no_picture_at_all(tmp_path, value, said):
    assert said in refused(tmp_path, {"images": value})


def test_one_image_trains_under_protocol_full(tmp_path):
    line = refused(tmp_path, {"images": GRAY[:1]}, protocol="standard", batch_size=1)
    assert "1 example cannot be split; add examples or use --data.protocol full" in line
    assert load(tmp_path, {"images": GRAY[:1]}, batch_size=1).size == 1


@pytest.mark.parametrize(
    ("names", "saved"),
    [
        (["arr_0"], {"images": "arr_0"}),
        (["Images"], {"images": "Images"}),
        (["imges"], {"images": "imges"}),
        (["x", "y"], {"images": "x", "labels": "y"}),
        (["x_train", "y_train", "x_test", "y_test"],
         {"train_images": "x_train", "train_labels": "y_train", "test_images": "x_test", "test_labels": "y_test"}),
    ],
)  # fmt: skip
def test_names_of_other_programs_and_the_line_that_saves_them_as_ours(tmp_path, names, saved, monkeypatch):
    line = refused(tmp_path, {name: LABELS if name.startswith("y") else GRAY for name in names}, protocol="standard")
    wanted = ", ".join(f"{new}=stored[{old!r}]" for new, old in saved.items())
    assert f"numpy.savez('data.npz', {wanted})" in line
    monkeypatch.chdir(tmp_path)
    eval(line[line.index("numpy.savez") :], {"numpy": numpy, "stored": numpy.load("mine.npz")})
    source = data.load(DataConfig("npz", source="data.npz", batch_size=2))
    assert ("label" in source.arrays) == ("labels" in " ".join(saved))


def test_files_of_other_kinds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"neither \.npz nor \.npy") as error:
        data.load(DataConfig("npz", source="a.txt"))
    exec(str(error.value).split("save it with ")[1], {"numpy": numpy, "images": GRAY})
    assert data.load(DataConfig("npz", source="data.npz", batch_size=2)).info.shape == (8, 8, 1)
    # An array under a name that is not read may be the one that was meant.
    assert "unknown array 'notes'; known: cond, factors, groups, images, labels, mask Remove or rename it" in refused(
        tmp_path, {"images": GRAY, "notes": LABELS}
    )
    with zipfile.ZipFile("mine.npz", "w") as file:
        for value in (GRAY, GRAY[:5]):
            with pytest.warns(UserWarning, match="Duplicate") if "images.npy" in file.namelist() else nullcontext():
                file.writestr("images.npy", npy(value))
    with pytest.raises(InputError, match=r"holds two arrays 'images'.*save it once"):
        data.load(DataConfig("npz", source="mine.npz"))


def test_every_bound_is_where_it_says(tmp_path):
    """A number on each side of the limits, so that none moves unnoticed."""
    for most, taken in ((values.DARK - 1, False), (values.DARK, True)):
        images = np.full((2, 8, 8), most, np.uint8)
        images[0, 0, 0] = 0
        if taken:
            assert load(tmp_path, {"images": images}).size == 2
        else:
            assert "which is dark" in refused(tmp_path, {"images": images})
    for labels, taken in ((np.r_[[0] * 20, [99] * 20], True), (np.r_[[0] * 20, [100] * 20], False)):
        if taken:
            assert load(tmp_path, {"images": GRAY, "labels": labels}).info.num_classes == 100
        else:
            assert "goes up to 100" in refused(tmp_path, {"images": GRAY, "labels": labels})
    half = np.r_[np.arange(39) * 2, 1]  # 40 of the 77 classes occur
    assert load(tmp_path, {"images": GRAY, "labels": half}).info.num_classes == 77
    assert bounded.DEFAULT_BYTES == 4 << 30
