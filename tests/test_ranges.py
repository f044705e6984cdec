"""Ranges: numbers of other scales are mapped to [0, 1] and back, said in one line, and not guessed where it is open."""

import json
import re

import jax
import numpy as np
import pytest
from options import arrays as written
from options import cli, done, make, tiny

from vae_jax import data, spec
from vae_jax.data import ranges
from vae_jax.data.config import DataConfig
from vae_jax.data.pipeline import eval_batches
from vae_jax.errors import InputError
from vae_jax.likelihoods import Bernoulli, GaussianLearned
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.runs.run import Run
from vae_jax.tasks import reconstruction, sampling

pytestmark = pytest.mark.usefixtures("command_line")  # whose words the messages below are

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
GRAY[0, 0, 0], GRAY[0, 0, 1] = 0, 255
UNIT = GRAY / 255
SCORES = RNG.normal(size=(40, 8, 8, 1)).clip(-2.9, 3.3)
SCORES[0, 0, 0], SCORES[0, 0, 1] = -2.9, 3.3


def saved(tmp_path, images, **more):
    np.savez(tmp_path / "mine.npz", images=images, **more)
    return tmp_path / "mine.npz"


def load(path, **options):
    return data.load(DataConfig("npz", str(path), **{"batch_size": 1, "protocol": "full"} | options))


def refused(path, **options) -> str:
    with pytest.raises(InputError) as error:
        load(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def seen(source) -> np.ndarray:
    """Returns what a model sees."""
    return np.concatenate([np.asarray(b["x"]) for b in eval_batches(source, DataConfig(batch_size=16))])


# What the numbers are, the option, the numbers at 0 and 1, and the unit images that the model sees.
TAKEN = {
    "-1..1": (UNIT * 2 - 1, "auto", (-1, 1), UNIT),
    "-1..0.6": ((UNIT * 2 - 1).clip(None, 0.6), "auto", (-1, 1), UNIT.clip(None, 0.8)),
    "float32 -1..1": ((UNIT * 2 - 1).astype(np.float32), "auto", (-1, 1), UNIT),
    "0..255 floats": (GRAY / 1.0, "auto", (0, 255), UNIT),
    "to 128": (GRAY.clip(None, 128) / 1.0, "auto", (0, 255), UNIT.clip(None, 128 / 255)),
    "z-scores": (SCORES, (-3, 4), (-3, 4), (SCORES + 3) / 7),
    "12 bits": (GRAY.astype(np.uint16) * 16, (0, 4095), (0, 4095), GRAY.astype(int) * 16 / 4095),
    "signed": (GRAY.astype(np.int16) - 100, (-100, 155), (-100, 155), UNIT),
    "dark": (GRAY // 16, (0, 255), (0, 255), (GRAY // 16) / 255),
    "narrow floats": (UNIT, (0, 2), (0, 2), UNIT / 2),
}


@pytest.mark.parametrize("name", TAKEN)
def test_numbers_are_mapped_in_and_back(tmp_path, name):
    images, wanted, ends, unit = TAKEN[name]
    source = load(saved(tmp_path, images), range=wanted)
    assert source.info.units == spec.Units.between(*ends)
    x = seen(source)
    np.testing.assert_allclose(x, unit, rtol=2e-6, atol=1e-7)
    assert x.min() >= 0
    assert x.max() <= 1
    np.testing.assert_allclose(source.info.units.out(x), images, rtol=1e-5, atol=1e-5)
    (line,) = source.info.notes
    assert "\n" not in line
    said = f"numbers from {ends[0]:g} to {ends[1]:g} are 0 to 1 to the model"
    assert said in line
    # Which side an example is on does not depend on the units of its file.
    rows = load(saved(tmp_path, images), range=wanted, protocol="standard").info.sizes
    assert rows == load(saved(tmp_path, x, labels=np.arange(40) % 3), protocol="standard").info.sizes


def test_what_is_in_0_to_1_is_taken_as_it_ever_was(tmp_path):
    for images, wanted in ((UNIT, "auto"), (UNIT, (0.0, 1.0)), (GRAY, "auto"), (GRAY > 99, "auto")):
        source = load(saved(tmp_path, images), range=wanted)
        assert source.info.units is None
        assert not source.info.notes
    assert np.array_equal(load(saved(tmp_path, GRAY)).arrays["image"], GRAY)
    assert np.array_equal(load(saved(tmp_path, UNIT), range=(0, 1)).arrays["image"], UNIT.astype(np.float32))


# What could be anything, and the option in the message.
OPEN = {
    "z-scores": (SCORES, "[-2.9, 3.3], not in [0, 1]", (-2.9, 3.3)),
    "rounding": (SCORES.astype(np.float32), "not in [0, 1]", (-3.0, 3.4)),
    "small": (SCORES * 1e-3, "not in [0, 1]", (-0.0029, 0.0033)),
    "0..15": (GRAY // 16 / 1.0, "values in [0, 15], not in", (0, 15)),
    "1.5..30": (1.5 + UNIT * 28.5, "not in [0, 1]", (1.0, 30.0)),
    "small both ways": (UNIT - 0.4, "not in [0, 1]", None),
}


@pytest.mark.parametrize("name", OPEN)
def test_what_is_open_is_refused_and_the_option_in_the_message_reads_it(tmp_path, name):
    images, said, ends = OPEN[name]
    path = saved(tmp_path, images)
    if name == "small both ways":  # -0.4 to 0.6: more likely [-1, 1] than anything else
        assert load(path).info.units == spec.Units.between(-1, 1)
        return
    line = refused(path)
    assert said in line
    found = re.search(r"--data\.range (\S+) (\S+?),", line)
    assert found is not None
    typed = float(found[1]), float(found[2])
    assert typed[0] <= images.min()
    assert images.max() <= typed[1]
    if ends is not None:
        np.testing.assert_allclose(typed, ends, rtol=0.05)
    x = seen(load(path, range=typed))
    assert x.max() - x.min() > 0.8


def test_ends_are_rounded_outward_to_few_digits():
    for low, high in [(-3.2719, 3.911), (0.1234e-7, 4.1e-7), (-1e30, 2.34e30), (1e8, 1e8 + 0.3), (-0.001, 77.7)]:
        ends = ranges.outward(low, high)
        assert ends[0] <= low < high <= ends[1]
        assert ends[1] - ends[0] < 1.25 * (high - low)
    assert ranges.outward(-3.2719, 3.911) == (-3.3, 4.0)
    assert ranges.outward(-3.0, 4.0) == (-3, 4)


def test_values_outside_of_the_range_are_refused_and_the_fix_works(tmp_path):
    path = saved(tmp_path, SCORES)
    line = refused(path, range=(-1.0, 1.0))
    assert "values in [-2.9, 3.3], not in the range -1 to 1 of data.range; use --data.range -2.9 3.3" in line
    assert load(path, range=(-2.9, 3.3)).info.units is not None
    # One float32 beyond an end is that end.
    load(saved(tmp_path, SCORES.astype(np.float32)), range=(-2.9, 3.3))
    line = refused(saved(tmp_path, GRAY.astype(int) * 17), range=(0, 4095))
    assert "4335" in line


@pytest.mark.parametrize("bad", [(1.0, 1.0), (2.0, 1.0), (0.0, 1e39), (0.0, float("nan")), (0.0, 1e-31), "wide"])
def test_ranges_that_are_none(bad):
    with pytest.raises(InputError, match=r"data.range: .* it must be auto, or two numbers LOW HIGH"):
        data.load(DataConfig("npz", "x.npz", range=bad))


def test_only_arrays_have_a_range(tmp_path):
    with pytest.raises(InputError, match="is read for arrays of images alone, and 'digits' has a range of its own"):
        data.load(DataConfig("digits", range=(0.0, 2.0)))
    assert "holds booleans, which have no range; leave it out" in refused(saved(tmp_path, GRAY > 9), range=(0, 1))
    chosen = data.choose(DataConfig("npz", "x.npz", range=(0.0, 2.0)), "digits")
    assert chosen.range == "auto"
    constant = refused(saved(tmp_path, np.full((4, 8, 8, 1), 7.5)), range=(0, 9))
    assert "all values are the same" in constant


def test_missing_values_stay_missing(tmp_path):
    holed = np.where(RNG.random(GRAY.shape) < 0.3, np.nan, UNIT * 2 - 1)
    source = load(saved(tmp_path, holed))
    assert np.array_equal(source.arrays["mask"], ~np.isnan(holed))
    # 0 to the model, though 0 is the middle of the user's range.
    assert not source.arrays["image"][np.isnan(holed)].any()
    np.testing.assert_allclose(source.arrays["image"], np.where(np.isnan(holed), 0, UNIT), atol=1e-6)


def test_a_prepared_folder_keeps_the_range(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    path = saved(tmp_path, UNIT * 2 - 1)
    report = data.prepare("npz", str(path), str(tmp_path / "tfds"))
    prepared = load(report.folder, protocol="standard")
    assert prepared.info.units == spec.Units.between(-1, 1)
    assert np.array_equal(seen(prepared), seen(load(path, protocol="standard")))
    assert "was fixed when it was prepared; leave out data.range" in refused(
        report.folder, protocol="standard", range=(-1, 1)
    )


# ---- what a run makes of it


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Returns two runs of the same weights, on images in [0, 1] and on the same ones in [-1, 1], and their files."""
    folder = tmp_path_factory.mktemp("runs")
    found = []
    for name, images in (("unit", UNIT), ("signed", UNIT * 2 - 1)):
        np.savez(folder / f"{name}.npz", images=images.astype(np.float32))
        model = VAE(3, MLP((8,)), likelihood=Bernoulli())
        config = tiny(model, **{"data": DataConfig("npz", str(folder / f"{name}.npz"), batch_size=8)})
        found.append((make(folder / name, config), folder / f"{name}.npz"))
    return found


def test_everything_that_is_written_has_the_users_units(pairs, tmp_path):
    (unit, _), (signed, file) = pairs
    assert Run.load(signed.path).spec.units == spec.Units.between(-1, 1)
    assert "units" not in (unit.path / "config.json").read_text()
    pairs_ = (unit.path, signed.path)
    for name, words in {
        "images": ["sample", "{}", "--n", 4],
        "reconstructions": ["reconstruct", "{}", "--n", 3],
    }.items():
        a, b = (written(*[run if w == "{}" else w for w in words], out=tmp_path / "o.npz")[name] for run in pairs_)
        np.testing.assert_allclose(b, 2 * a - 1, atol=1e-5)
        done(*[signed.path if w == "{}" else w for w in words], "--out", tmp_path / "o.npy")
        np.testing.assert_array_equal(np.load(tmp_path / "o.npy"), b)
    done("encode", signed.path, "--input", file, "--out", tmp_path / "codes.npz")
    a, b = (written("decode", run, "--input", tmp_path / "codes.npz", out=tmp_path / "o.npz") for run in pairs_)
    np.testing.assert_allclose(b["images"], 2 * a["images"] - 1, atol=1e-5)
    for words in (["interpolate", "--indices", 0, 1, "--steps", 3], ["traverse", "--steps", 3, "--index", 0]):
        a, b = (written(words[0], run, *words[1:], out=tmp_path / "o.npz")["images"] for run in pairs_)
        np.testing.assert_allclose(b, 2 * a - 1, atol=1e-5)


def test_pictures_are_the_same_whatever_the_units(pairs):
    drawn = []
    for run, _ in pairs:
        run = Run.load(run.path)
        drawn.append((sampling.samples(run, 4), reconstruction.pairs(run, n=3)))
    for a, b in zip(*drawn, strict=True):
        canvases = [next(iter(f.figure().axes)).images[0].get_array() for f in (a, b)]
        assert np.abs(np.asarray(canvases[0], int) - np.asarray(canvases[1], int)).max() <= 1


def test_examples_given_to_a_run_are_read_on_its_range(pairs, tmp_path, capsys):
    (unit, _), (signed, _) = pairs
    np.save(tmp_path / "a.npy", UNIT[:5])
    np.save(tmp_path / "b.npy", UNIT[:5] * 2 - 1)
    mean = [
        written("encode", run.path, "--input", tmp_path / f, out=tmp_path / "c.npz")["mean"]
        for run, f in ((unit, "a.npy"), (signed, "b.npy"))
    ]
    np.testing.assert_allclose(*mean, atol=1e-5)
    # Few and dark images do not change what -1 and 1 mean.
    np.save(tmp_path / "dark.npy", np.full((2, 8, 8, 1), -0.9))
    dark = written("encode", signed.path, "--input", tmp_path / "dark.npy", out=tmp_path / "c.npz")["mean"]
    np.save(tmp_path / "dark.npy", np.full((2, 8, 8, 1), 0.05))
    want = written("encode", unit.path, "--input", tmp_path / "dark.npy", out=tmp_path / "c.npz")["mean"]
    np.testing.assert_allclose(dark, want, atol=1e-5)
    capsys.readouterr()
    np.save(tmp_path / "scores.npy", SCORES[:5])
    images = SCORES[:5]
    assert cli("encode", signed.path, "--input", tmp_path / "scores.npy", "--out", tmp_path / "c2.npz") == 2
    line = capsys.readouterr().err
    assert "not in [-1, 1], the range that the model was trained on; save numpy.interp(" in line
    assert not (tmp_path / "c2.npz").exists()
    np.save(tmp_path / "scores.npy", eval(line[line.index("numpy.interp") :], {"numpy": np, "images": images}))
    done("encode", signed.path, "--input", tmp_path / "scores.npy", "--out", tmp_path / "c2.npz")
    # A run on [0, 1] guesses nothing, either.
    assert cli("encode", unit.path, "--input", tmp_path / "b.npy", "--out", tmp_path / "c3.npz") == 2
    assert "not in [0, 1]" in capsys.readouterr().err


def test_imputed_values_have_the_users_units(tmp_path):
    config = tiny(VAE(3, MLP((8,)), likelihood=GaussianLearned()))
    filled = []
    holes = RNG.random(UNIT.shape) < 0.3
    for name, images in (("unit", UNIT), ("signed", UNIT * 2 - 1)):
        np.save(tmp_path / f"{name}.npy", np.where(holes, np.nan, images).astype(np.float32))
        options = {"data": DataConfig("npz", str(tmp_path / f"{name}.npy"), batch_size=8)}
        run = make(tmp_path / name, tiny(config.model, **options))
        words = ["--k", 20, "--out", tmp_path / "o.npy"]
        done("impute", run.path, "--input", tmp_path / f"{name}.npy", *words)
        filled.append(np.load(tmp_path / "o.npy"))
    np.testing.assert_allclose(filled[1], 2 * filled[0] - 1, atol=1e-4)
    np.testing.assert_array_equal(filled[1][~holes], (UNIT * 2 - 1).astype(np.float32)[~holes])


def test_data_on_another_range_are_other_data(pairs, tmp_path):
    (_, file), (signed, own) = pairs
    kept = own.read_bytes()
    try:
        own.write_bytes(file.read_bytes())
        with pytest.raises(
            InputError, match=r"trained on 8x8x1 images on the range -1 to 1, but the data .* are now 8x8x1"
        ):
            Run.load(signed.path).source("test")
    finally:
        own.write_bytes(kept)


def test_the_jacobian_turns_nats_of_mapped_values_into_those_of_the_users():
    units = spec.Units.between(0, 255)
    p = jax.scipy.stats.norm
    x = 0.3
    mapped = float(p.logpdf(x, 0.4, 0.1))
    users = float(p.logpdf(x * 255, 0.4 * 255, 0.1 * 255))
    np.testing.assert_allclose(mapped - units.log_jacobian, users, rtol=1e-5)


DAMAGED = [{"offset": [0.0], "scale": [-1.0]}, {"offset": [0.0]}, {"offset": [0.0, 1.0], "scale": [1.0]}]


@pytest.mark.parametrize("units", DAMAGED)
def test_a_damaged_entry_is_refused(pairs, units, tmp_path):
    (_, _), (signed, _) = pairs
    held = json.loads((signed.path / "config.json").read_text())
    held["data_spec"]["units"] = units
    (tmp_path / "config.json").write_text(json.dumps(held))
    with pytest.raises(InputError, match=r"data_spec\.units.*restore the file, or train again"):
        Run.load(tmp_path)
