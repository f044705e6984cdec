"""Series [N, T, C]: never read as pictures, standardized by what the run remembers, written in their units."""

import dataclasses
import json
import shlex

import numpy as np
import pytest
from options import arrays as written
from options import cli, done, make, tiny

import vae_jax as vj
from vae_jax import data, spec
from vae_jax.data import series
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError
from vae_jax.figures import lines
from vae_jax.likelihoods import GaussianLearned
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.runs.run import Run
from vae_jax.tasks import reconstruction, sampling

pytestmark = pytest.mark.usefixtures("command_line")  # whose words the messages below are

RNG = np.random.default_rng(0)
# Three channels of very different units, of which one never changes.
WAVES = RNG.normal(size=(60, 12, 3)).cumsum(1) * [1, 100, 0] + [0, -700, 5]


def saved(tmp_path, value, name="mine.npy"):
    np.save(tmp_path / name, value) if name.endswith(".npy") else np.savez(tmp_path / name, **value)
    return tmp_path / name


def load(path, split="train", **options):
    return data.load(DataConfig("series", str(path), **{"batch_size": 4} | options), split)


def test_each_channel_is_standardized_by_the_training_split(tmp_path):
    path = saved(tmp_path, WAVES)
    train, test = load(path), load(path, "test")
    assert (train.info.kind, train.info.shape, train.info.units) == ("sequence", (12, 3), test.info.units)
    x = train.arrays["x"]
    assert x.dtype == np.float32
    np.testing.assert_allclose(x.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(x.std((0, 1)), [1, 1, 0], atol=1e-5)
    back = np.concatenate([train.info.units.out(part.arrays["x"]) for part in (train, test)])
    want = WAVES.astype(np.float32)
    assert np.allclose(np.sort(back, 0), np.sort(want, 0), rtol=1e-4, atol=1e-3)
    # Adding series moves none from one side to the other.
    grown = load(saved(tmp_path, np.concatenate([WAVES, WAVES[:20] + 1]), "grown.npy"), "test")
    kept = {v.tobytes() for v in np.rint(test.info.units.out(test.arrays["x"]) * 10)}
    assert kept <= {v.tobytes() for v in np.rint(grown.info.units.out(grown.arrays["x"]) * 10)}


def test_missing_values_and_labels(tmp_path):
    holed = np.where(RNG.random(WAVES.shape) < 0.2, np.nan, WAVES)
    labels = np.arange(60) % 4
    source = load(saved(tmp_path, {"series": holed, "labels": labels}, "mine.npz"), protocol="full")
    assert source.info.mask
    assert np.array_equal(source.arrays["mask"], ~np.isnan(holed))
    assert not source.arrays["x"][np.isnan(holed)].any()
    np.testing.assert_allclose(source.info.units.offset, np.nanmean(holed, (0, 1)), rtol=1e-5)
    np.testing.assert_allclose(source.info.units.scale[:2], np.nanstd(holed, (0, 1))[:2], rtol=1e-5)
    assert np.array_equal(source.arrays["label"], labels)


def test_labels_of_minus_one_are_unknown_and_no_class(tmp_path):
    labels = np.where(np.arange(60) % 3, -1, np.arange(60) % 4)
    path = saved(tmp_path, {"series": WAVES, "labels": labels}, "mine.npz")
    source = load(path, protocol="full")
    assert source.info.unlabeled
    assert source.info.num_classes == 4
    assert np.array_equal(source.labeled, np.flatnonzero(labels >= 0))
    assert any("the labels of 40 of 60 examples are unknown" in note for note in source.info.notes)
    with pytest.raises(InputError, match=r"data\.balance: it reads the label of every training example"):
        load(path, balance="draws")
    saved(tmp_path, {"series": WAVES, "labels": np.full(60, -1)}, "mine.npz")
    source = load(path)
    assert (source.info.num_classes, source.info.unlabeled, "label" in source.arrays) == (None, False, False)


def test_patients_never_cross(tmp_path):
    path = saved(tmp_path, {"series": WAVES, "groups": np.arange(60) % 12}, "mine.npz")
    sides = [set(load(path, split, protocol="held-out").division.rows[split] % 12) for split in data.SPLITS]
    assert all(sides)
    assert sum(map(len, sides)) == 12
    path = saved(tmp_path, WAVES)
    with pytest.raises(InputError, match=r"save an array groups \[N\] in .*mine\.npz, or leave it out"):
        load(path, groups="patients.csv")
    saved(tmp_path, {"series": WAVES, "groups": np.arange(5)}, "mine.npz")
    with pytest.raises(InputError, match="5 groups for 60 series; make them equal"):
        load(tmp_path / "mine.npz")


@pytest.mark.parametrize("whole", [False, True], ids=["each value", "whole times"])
def test_a_mask_beside_series_says_what_nan_would(tmp_path, whole):
    seen = RNG.random(WAVES.shape[:-1] if whole else WAVES.shape) > 0.3
    each = np.broadcast_to(seen[..., None], WAVES.shape) if whole else seen
    path = saved(tmp_path, {"series": np.where(each, WAVES, 1e9), "mask": seen}, "mask.npz")
    masked = load(path, protocol="held-out")
    plain = load(saved(tmp_path, np.where(each, WAVES, np.nan)), protocol="held-out")
    assert masked.info.units == plain.info.units
    assert masked.info.mask
    for name, value in plain.arrays.items():
        np.testing.assert_array_equal(masked.arrays[name], value)
    # One that is True everywhere says nothing.
    all_there = load(saved(tmp_path, {"series": WAVES, "mask": np.ones(WAVES.shape, bool)}, "mask.npz"))
    assert "mask" not in all_there.arrays


BAD_MASKS = {
    "type": (np.ones(WAVES.shape), r"mask has type float64; save booleans, .*mask\.astype\(bool\)"),
    "shape": (np.ones((60, 12, 2), bool), r"but the series are \[60, 12, 3\]; save .* or \[60, 12\] \(whole times\)"),
    "nan": (np.ones(WAVES.shape, bool), r"mask is True at 1 NaN of series, .*; save mask & ~numpy.isnan\(series\)"),
    "nothing": (np.zeros(WAVES.shape, bool), "series: every value is missing; save series with observed values"),
}


@pytest.mark.parametrize("name", BAD_MASKS)
def test_masks_that_do_not_fit_series(tmp_path, name):
    mask, said = BAD_MASKS[name]
    held = {"series": np.where(np.arange(WAVES.size).reshape(WAVES.shape) == 7, np.nan, WAVES), "mask": mask}
    path = saved(tmp_path, held, "mask.npz")
    with pytest.raises(InputError, match=said):
        load(path)
    assert load(saved(tmp_path, held | {"mask": ~np.isnan(held["series"])}, "mask.npz")).info.mask


# ---- which reader


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (WAVES, "series"),
        (WAVES.astype(np.float32)[:, :, :1], "series"),
        (RNG.random((9, 8, 8)), "npz"),  # square: pictures
        (RNG.random((9, 50, 17)), "npz"),  # may be either: refused there
        (RNG.integers(0, 9, (9, 50, 3)), "npz"),
        (RNG.random((9, 8, 8, 3)), "npz"),
        ({"series": WAVES}, "series"),
        ({"images": WAVES}, "npz"),
    ],
)
def test_the_reader_that_a_file_gets(tmp_path, value, name):
    path = saved(tmp_path, value, "mine.npz" if isinstance(value, dict) else "mine.npy")
    assert data.choose(DataConfig(batch_size=4), str(path)).name == name


@pytest.mark.parametrize(
    "value",
    [RNG.random((40, 50, 17)), RNG.integers(0, 256, (40, 50, 3)), RNG.random((40, 12, 12)) * 2 - 1],
    ids=["many channels", "integers", "negative square"],
)
def test_what_may_be_either_is_refused_and_both_ways_work(tmp_path, value):
    path = saved(tmp_path, value)
    config = data.choose(DataConfig(batch_size=4), str(path))
    for pipeline in ("auto", "grain"):
        with pytest.raises(InputError) as error:
            data.load(dataclasses.replace(config, pipeline=pipeline))
        line = str(error.value)
        assert "\n" not in line
        assert f"series of {value.shape[2]} numbers at {value.shape[1]} times" in line
    words = shlex.split(line[line.index("for series use ") + 15 : line.index(", for pictures")])
    assert words == ["--data.name", "series", "--data.source", str(path)]
    assert load(path).info.shape == value.shape[1:]
    saved(tmp_path, eval(line[line.index("save ") + 5 :].split(", or")[0], {"images": value}))
    assert data.load(config).info.shape == (*value.shape[1:], 1)


def test_no_patient_of_series_is_in_two_splits(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, series=WAVES, groups=np.arange(60) // 3, labels=np.arange(60) % 2)
    config = data.choose(DataConfig(batch_size=4), str(path))
    patients = [set(data.load(config, split).division.rows[split] // 3) for split in ("train", "validation", "test")]
    assert sorted(p for held in patients for p in held) == list(range(20))
    assert data.load(config).arrays["label"].max() == 1
    np.savez(path, series=WAVES, groups=np.arange(59))
    with pytest.raises(InputError, match="59 groups for 60 series; make them equal"):
        data.load(config)
    np.savez(path, images=WAVES[..., None], groups=np.arange(60))
    with pytest.raises(InputError, match=r"images must be numbers \[N, T, C\]"):
        data.load(DataConfig("series", str(path)))
    with pytest.raises(
        InputError, match=r"data.groups: g.csv .* save an array groups \[N\] in .*x.npz, or leave it out"
    ):
        data.load(DataConfig("series", str(path), groups="g.csv"))


BAD = {
    "a table": (WAVES[:, :, 0], "must be numbers [N, T, C] and not empty, is (60, 12)", "[..., None]"),
    "pictures": (WAVES[..., None], "must be numbers [N, T, C]", "save series of that shape"),
    "text": (WAVES.astype("U3"), "has type <U3", "astype('float32')"),
    "infinite": (np.where(WAVES > 50, np.inf, WAVES), "infinite values, the first in row", "numpy.nan"),
    "nothing": (np.full((4, 5, 2), np.nan), "every value is missing", "observed values"),
    "constant": (np.ones((4, 5, 2)) * np.arange(4)[:, None, None] * 0 + [[[1, 2]]], "all 4 examples are the same", ""),
}


@pytest.mark.parametrize("name", BAD)
def test_arrays_that_are_no_series(tmp_path, name):
    value, said, fix = BAD[name]
    with pytest.raises(InputError) as error:
        load(saved(tmp_path, value))
    assert "\n" not in str(error.value)
    assert said in str(error.value)
    assert fix in str(error.value)


def test_files_of_series_that_are_damaged(tmp_path):
    path = saved(tmp_path, WAVES)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="save it again"):
        load(path)
    assert data.choose(DataConfig(batch_size=4), str(path)).name == "npz"  # whose reader says what is wrong
    np.savez(tmp_path / "mine.npz", series=WAVES, notes=np.zeros(3))
    with pytest.raises(InputError, match=r"needs one array of series \(has: series, notes\); save .*series=x\)"):
        load(tmp_path / "mine.npz")
    with pytest.raises(InputError, match="59 labels for 60 series; make them equal"):
        load(saved(tmp_path, {"series": WAVES, "labels": np.zeros(59, int)}, "mine.npz"))
    with pytest.raises(InputError, match="is read for arrays of images alone"):
        load(saved(tmp_path, WAVES), range=(0.0, 1.0))


# ---- runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    path = saved(folder, WAVES)
    config = tiny(VAE(3, MLP((8,)), likelihood=GaussianLearned()), data=DataConfig("series", str(path), batch_size=8))
    return make(folder / "run", config), path


def test_a_run_writes_the_units_of_its_file(run, tmp_path):
    run, path = run
    assert Run.load(run.path).spec == run.spec
    assert run.spec.x == spec.ArraySpec((12, 3), "sequence")
    units = load(path).info.units
    assert run.spec.units == units
    found = written("reconstruct", run.path, "--n", 4, out=tmp_path / "o.npz")
    x = load(path, "test").arrays["x"][:4]
    np.testing.assert_allclose(found["images"], units.out(x), rtol=1e-5)
    done("sample", run.path, "--n", 5, "--out", tmp_path / "s.npy")
    drawn = np.load(tmp_path / "s.npy")
    assert drawn.shape == (5, 12, 3)
    np.testing.assert_allclose(drawn[..., 2], 5, atol=10)
    assert abs(drawn[..., 1].mean() + 700) < 3 * WAVES[..., 1].std()
    codes = written("encode", run.path, "--input", path, out=tmp_path / "c.npz")
    assert codes["mean"].shape == (60, 3)
    done("decode", run.path, "--input", tmp_path / "c.npz", "--out", tmp_path / "d.npy")
    np.testing.assert_allclose(np.load(tmp_path / "d.npy"), vj.reconstruct(run, WAVES), rtol=1e-4, atol=1e-3)


def test_series_given_to_a_run_are_standardized_as_its_own_were(run, tmp_path):
    run, path = run
    whole = written("encode", run.path, "--input", path, out=tmp_path / "c.npz")["mean"]
    few = written("encode", run.path, "--input", saved(tmp_path, WAVES[:5]), out=tmp_path / "c.npz")["mean"]
    np.testing.assert_allclose(few, whole[:5], atol=1e-6)
    np.testing.assert_allclose(vj.encode(run, WAVES[:5]).mean, few, atol=1e-6)
    # More series in its own file change no unit, either.
    kept = path.read_bytes()
    try:
        saved(path.parent, np.concatenate([WAVES, WAVES * 2]))
        assert Run.load(run.path).source("train").info.units == run.spec.units
    finally:
        path.write_bytes(kept)


def test_missing_values_of_series_are_filled_in(run, tmp_path):
    run, _ = run
    holed = WAVES[:6].copy()
    holed[0, 3, 1] = np.nan
    done("impute", run.path, "--input", saved(tmp_path, holed), "--k", 10, "--out", tmp_path / "o.npy")
    filled = np.load(tmp_path / "o.npy")
    np.testing.assert_array_equal(filled[~np.isnan(holed)], holed[~np.isnan(holed)])
    assert -3000 < filled[0, 3, 1] < 2000
    # An .npz comes back as it was, under its own names.
    given = saved(tmp_path, {"labels": np.arange(6), "series": holed}, "holed.npz")
    again = written("impute", run.path, "--input", given, "--k", 10, out=tmp_path / "o.npz")
    assert set(again) == {"labels", "series"}
    np.testing.assert_array_equal(again["series"], filled)
    # A mask says the same as NaN, in a file and in memory.
    seen = ~np.isnan(holed)
    given = saved(tmp_path, {"series": np.where(seen, holed, 7), "mask": seen}, "holed.npz")
    again = written("impute", run.path, "--input", given, "--k", 10, out=tmp_path / "o.npz")
    assert set(again) == {"series", "mask"}
    np.testing.assert_array_equal(again["series"], filled)
    np.testing.assert_array_equal(vj.impute(run, WAVES[:6], seen, k=10).x, filled)


def test_one_series_alone_is_refused_and_the_advice_works(run):
    run, _ = run
    with pytest.raises(InputError, match=r"^x: series must be numbers \[N, T, C\]") as error:
        vj.encode(run, WAVES[0])
    fix = str(error.value).partition("for one example ")[2]
    found, want = (vj.encode(run, x).mean for x in (eval(fix, {"series": WAVES[0]}), WAVES[:1]))
    np.testing.assert_allclose(found, want, atol=1e-6)


def test_missing_whole_numbers_of_series_are_filled_in_with_the_nearest(run):
    run, _ = run
    x = np.rint(WAVES[:6] * 100)
    seen = RNG.random(x.shape) > 0.3
    want = np.rint(vj.impute(run, x, seen, k=10).x)
    assert want[~seen].min() < run.spec.units.range[0]
    assert want[~seen].max() > run.spec.units.range[1]
    np.testing.assert_array_equal(vj.impute(run, x.astype(int), seen, k=10).x, want)
    # A type that does not hold all of them gets the nearest that it holds; what is observed stays as it is.
    small = np.clip(x, -128, 127).astype(np.int8)
    want = np.clip(np.rint(vj.impute(run, small.astype(float), seen, k=10).x), -128, 127)
    np.testing.assert_array_equal(vj.impute(run, small, seen, k=10).x, want)


def test_others_are_refused_in_one_line(run, tmp_path, capsys):
    run, _ = run
    given = {
        "a.npy": (WAVES[:, :9], "holds series of 9 times x 3 channels, but"),
        "b.npy": (WAVES[:, :, :2], "holds series of 12 times x 2 channels, but"),
        "c.npy": (RNG.random((4, 8, 8, 3)), "must be numbers [N, T, C]"),
    }
    for name, (value, said) in given.items():
        path = saved(tmp_path, value, name)
        assert cli("encode", run.path, "--input", path, "--out", tmp_path / "c.npz") == 2
        line = capsys.readouterr().err
        assert said in line
        assert line.count("\n") == 1
    assert not (tmp_path / "c.npz").exists()


def test_pictures_are_lines(run, tmp_path):
    run = Run.load(run[0].path)
    done("sample", run.path, "--n", 4, "--out", tmp_path / "s.png")
    drawn = sampling.samples(run, 4)
    plots = [axes for axes in drawn.figure().axes if axes.get_visible()]
    assert len(plots) == 4
    np.testing.assert_allclose(plots[2].lines[1].get_ydata(), drawn.images[2, :, 1])
    both = reconstruction.pairs(run, n=2)
    plot = both.figure().axes[1]
    np.testing.assert_allclose(plot.lines[3].get_ydata(), both.reconstructions[1, :, 1])


def test_of_too_many_series_the_first_are_drawn_and_channels_name_the_option(run, tmp_path, capsys):
    words = ["sample", run[0].path, "--n", 65, "--out", tmp_path / "s.png"]
    done(*words)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "note: the picture shows the first 64 of 65 series; end --out with .npz for all"
    done(*words[:-1], tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz") as held:
        assert len(held["images"]) == 65
    with pytest.raises(InputError, match=r"series of 17 channels are too many lines for one plot, which shows 16; end"):
        lines.lines(np.zeros((2, 5, 17)))


def test_walks_of_series_are_written_as_arrays(run):
    run = run[0]
    done("traverse", run.path, "--dims", 0)
    with np.load(run.path / "figures" / "traversals.npz") as held:
        assert held["images"].shape == (1, 11, 12, 3)


def test_a_run_is_trained_on_a_file_and_the_likelihood_in_the_message_fits(tmp_path, capsys, figures_of_training):
    words = ["train", "vae_digits", "--data", saved(tmp_path, WAVES), "--smoke", "--mesh.data", 1]
    words += ["--data.batch-size", 8, "--workdir", tmp_path / "run"]
    assert cli(*words) == 2
    line = capsys.readouterr().err
    assert "but the bernoulli likelihood takes [0, 1]; use --model.likelihood gaussian-learned" in line
    assert not (tmp_path / "run").exists()
    assert cli(*words, *line.split("; use ")[1].split()) == 0
    out = "".join(capsys.readouterr())
    assert "each channel is standardized by the training split" in out
    held = json.loads((tmp_path / "run" / "eval.json").read_text())
    assert "standardized" in json.dumps(held)
    assert (tmp_path / "run" / "figures" / "loss_curves.png").is_file()
    assert data.DATASETS["series"].kind == "sequence"
    assert series.looks_so(tmp_path / "mine.npy")
