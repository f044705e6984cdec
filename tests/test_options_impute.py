"""`impute`, and reading of data with missing values: NaN, or a mask beside the images."""

import jax
import numpy as np
import pytest
from options import cli, close, covers, differ, done, make, tiny

import vae_jax as vj
from vae_jax import data
from vae_jax.data import npz
from vae_jax.data.config import DataConfig
from vae_jax.data.digits import arrays as digits
from vae_jax.errors import InputError
from vae_jax.evaluation.imputation import impute_all
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.priors import Normal
from vae_jax.tasks.reconstruction import pairs

RNG = np.random.default_rng(0)
X = (digits()["image"][:40, ..., 0] / 255).astype(np.float32)
SEEN = RNG.uniform(size=X.shape) > 0.3
SEEN[2] = False
HOLED = np.where(SEEN, X, np.nan).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make(tmp_path_factory.mktemp("runs") / "vae", tiny())


def estimate(run, k=1000, draws=0, seed=0, state=None):
    batch = {"x": np.where(SEEN, X, 0.0)[..., None], "mask": SEEN[..., None], "index": np.arange(40)}
    return impute_all(run.model, state or run.restore(), [batch], key=jax.random.key(seed), k=k, draws=draws)


@covers("impute", "input", "out", "k", "batch-size")
def test_impute_writes_the_input_with_its_missing_entries_filled(run, tmp_path):
    np.save(tmp_path / "f.npy", HOLED)
    words = ["impute", run.path, "--input", tmp_path / "f.npy", "--out", tmp_path / "g.npy", "--k", 7]
    done(*words, "--batch-size", 9)
    made = np.load(tmp_path / "g.npy")
    assert (made.shape, made.dtype) == (X.shape, np.float32)
    np.testing.assert_array_equal(made[SEEN], X[SEEN])
    want = estimate(run, 7).mean[..., 0]
    close(made[~SEEN], want[~SEEN])
    assert np.isfinite(made).all()


@covers("impute", "samples", "seed", "step")
def test_impute_draws_copies_of_a_seed_and_a_checkpoint(run, tmp_path):
    raw = np.rint(X * 255).astype(np.uint8)
    np.savez(tmp_path / "f.npz", images=raw, mask=SEEN, labels=np.arange(40) % 10)
    words = ["impute", run.path, "--input", tmp_path / "f.npz", "--out", tmp_path / "g.npz", "--k", 5, "--samples", 3]
    done(*words, "--seed", 4, "--step", 2)
    with np.load(tmp_path / "g.npz") as held:
        assert set(held.files) == {"images", "samples", "mask", "labels"}
        images, samples = held["images"], held["samples"]
    assert (samples.shape, samples.dtype) == ((3, *X.shape), np.uint8)
    for copy in (images, *samples):
        np.testing.assert_array_equal(copy[SEEN], raw[SEEN])
    want = estimate(run, 5, 3, 4, run.restore(2))
    np.testing.assert_array_equal(samples[:, ~SEEN], np.rint(want.draws[..., 0] * 255)[:, ~SEEN])
    assert differ(samples[0] / 255, samples[1] / 255)
    np.save(tmp_path / "f.npy", HOLED)
    done("impute", run.path, "--input", tmp_path / "f.npy", "--out", tmp_path / "g.npy", "--k", 5, "--samples", 2)
    assert np.load(tmp_path / "g.npy").shape == (2, *X.shape)


def test_the_error_of_a_reconstruction_is_that_of_what_is_observed(run):
    found = pairs(run, HOLED)
    for i in range(40):
        error = np.square(found.reconstructions[i, ..., 0] - X[i])[SEEN[i]]
        close(found.mse[i], error.mean() if SEEN[i].any() else 0.0)
    # A missing value is shown as missing, not as the 0 that stands for it.
    np.testing.assert_array_equal(found.x[..., 0], HOLED)
    close(pairs(run, X).mse, np.square(pairs(run, X).reconstructions[..., 0] - X).mean((1, 2)))


def test_the_call_takes_nan_or_a_mask(run):
    by_nan = vj.impute(run, HOLED, k=5)
    by_mask = vj.load(run.path).impute(np.where(SEEN, X, 3.0).astype(np.float32), SEEN, k=5)
    np.testing.assert_array_equal(by_nan.x[~SEEN], by_mask.x[~SEEN])
    np.testing.assert_array_equal(by_nan.bound, by_mask.bound)
    close(by_nan.bound, estimate(run, 5).bound, atol=1e-3)


BAD = {
    "complete": (X, "has no missing values, so there is nothing to fill in; save NaN"),
    "empty": (np.full_like(X, np.nan), "every value is missing"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_filled_in_is_one_line_and_writes_nothing(run, tmp_path, capsys, name):
    np.save(tmp_path / "f.npy", BAD[name][0])
    assert cli("impute", run.path, "--input", tmp_path / "f.npy", "--out", tmp_path / "g.npy") == 2
    line = capsys.readouterr().err
    assert BAD[name][1] in line
    assert line.count("\n") == 1
    assert not (tmp_path / "g.npy").exists()


def test_a_model_that_takes_no_mask_refuses_nan_in_training_and_in_its_input(tmp_path, capsys):
    np.savez(tmp_path / "f.npz", images=HOLED, labels=np.arange(40) % 10)
    words = ["train", "m2_digits", "--data", tmp_path / "f.npz", "--data.labels", "None", "--smoke", "--workdir"]
    assert cli(*words, tmp_path / "m2", "--data.batch-size", 8) == 2
    line = capsys.readouterr().err
    assert (
        "they have missing values (NaN, or an array mask), which this model does not take; choose --model vae" in line
    )
    assert not (tmp_path / "m2").exists()
    from vae_jax.models import M2

    m2 = make(tmp_path / "other", tiny(M2(2, MLP((8,)))), (4,))
    assert cli("encode", m2.path, "--input", tmp_path / "f.npz", "--out", tmp_path / "c.npz") == 2
    assert "give examples of which everything is observed" in capsys.readouterr().err


# ---- reading


def held(arrays, protocol="full"):
    return npz.parts(arrays, "f.npz", protocol).splits


def test_nan_and_a_mask_give_the_same_batches():
    for arrays in ({"images": HOLED}, {"images": X, "mask": SEEN}, {"images": X, "mask": SEEN[..., None]}):
        found = held(arrays)["train"]
        np.testing.assert_array_equal(found["mask"], SEEN[..., None])
        np.testing.assert_array_equal(found["image"], np.where(SEEN, X, 0)[..., None])
    rgb = np.repeat(X[..., None], 3, 3)
    assert held({"images": rgb, "mask": SEEN})["train"]["mask"].shape == rgb.shape


def test_what_is_complete_is_read_as_ever():
    for arrays in ({"images": X}, {"images": X, "mask": np.ones_like(SEEN)}):
        found = held(arrays)["train"]
        assert list(found) == ["image"]
        np.testing.assert_array_equal(found["image"], X[..., None])


MASKS = {
    "type": (
        {"images": X, "mask": SEEN.astype(int)},
        "mask has type int64; save booleans",
        lambda a: {**a, "mask": SEEN},
    ),
    "shape": ({"images": X, "mask": SEEN[:5]}, r"mask has the shape \[5, 8, 8\]", lambda a: {**a, "mask": SEEN}),
    "claims": (
        {"images": HOLED, "mask": np.ones_like(SEEN)},
        r"mask is True at \d+ NaN of images.*save mask & ~numpy.isnan\(images\)",
        lambda a: {**a, "mask": a["mask"] & ~np.isnan(a["images"])},
    ),
    "infinite": (
        {"images": np.where(SEEN, X, np.inf)},
        r"infinite values, the first in row 0; if they are missing, save numpy.where\(numpy.isfinite\(images\)",
        lambda a: {"images": np.where(np.isfinite(a["images"]), a["images"], np.nan)},
    ),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_that_is_none_is_refused_and_the_advice_works(name):
    arrays, says, fix = MASKS[name]
    with pytest.raises(InputError, match=says):
        held(arrays)
    np.testing.assert_array_equal(held(fix(arrays))["train"]["mask"][..., 0], SEEN)


def test_prepared_data_keep_their_mask(tmp_path):
    np.savez(tmp_path / "f.npz", images=HOLED)
    data.prepare("npz", str(tmp_path / "f.npz"), str(tmp_path / "tfds"))
    where = next((tmp_path / "tfds").rglob("dataset_info.json")).parent
    raw = data.load(DataConfig("npz", str(tmp_path / "f.npz"), batch_size=4), "train")
    for pipeline in ("device", "grain"):
        again = data.load(DataConfig("npz", str(where), batch_size=4, pipeline=pipeline), "train")
        assert again.info.mask
        rows = again.records.rows(np.arange(again.size))
        for name in ("image", "mask"):
            np.testing.assert_array_equal(rows[name], raw.arrays[name])
            assert rows[name].dtype == raw.arrays[name].dtype


def test_a_run_on_missing_data_trains_measures_and_fills_in(tmp_path):
    config = tiny(VAE(3, MLP((8,)), prior=Normal(), mask_input=True), **{"data.protocol": "full"})
    trained = vj.train_run(config, tmp_path / "run", data={"images": X, "mask": SEEN}, quiet=True)
    assert trained.spec.mask
    assert vj.load(tmp_path / "run").spec == trained.spec
    metrics = vj.evaluate_run(trained, metrics=("elbo", "ssim"))
    assert "ssim: needs examples of which everything is observed" in str(metrics)
    assert np.isfinite(trained.impute(HOLED, k=3).x).all()
