"""Conditional models: what they are told, that it stays with its image, and the commands that ask for a class."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support

from vae_jax import data, prng, spec
from vae_jax.cli import main
from vae_jax.errors import InputError
from vae_jax.evaluation.codes import decode_all, draw, encode_all, label_features
from vae_jax.models import VAE
from vae_jax.models.condition import Condition
from vae_jax.networks import MLP
from vae_jax.train.state import TrainState

SHAPE, B, D = (4, 3, 1), 6, 2
# The runs of this file draw their figures (conftest.py).
FIGURES = True
NET = MLP((8,))
KEY = jax.random.key(2)
ABOUT = support.spec(SHAPE)
FEATURES = {"label": 3, "factors": 6, "vector": 2}


def build(on, about=ABOUT):
    model = VAE(D, NET, condition=Condition(on)).build(about)
    batch = support.images(B, SHAPE)
    params, state = model.init(jax.random.key(0), batch)
    done = TrainState(jnp.zeros((), jnp.int32), KEY, params, state, (), None, {"beta": jnp.ones(())})
    return model, done, batch


@pytest.mark.parametrize("on", FEATURES)
def test_features_are_those_of_the_batch(on):
    model, state, batch = build(on)
    got = model.condition.features(state.params, {}, batch)
    want = {
        "label": np.eye(3)[batch["label"]],
        "factors": np.concatenate([np.eye(2)[batch["factors"][:, 0]], np.eye(4)[batch["factors"][:, 1]]], -1),
        "vector": batch["cond"],
    }[on]
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert got.shape == (B, FEATURES[on])
    codes = encode_all(model, state, [batch])
    np.testing.assert_array_equal(codes.cond, got)
    with pytest.raises(InputError, match="come without"):
        encode_all(model, state, [{"x": batch["x"]}])
    with pytest.raises(InputError, match="decoded only with its features"):
        decode_all(model, state, codes.mean)


def test_every_image_is_decoded_with_its_own_features():
    """Decoded as one batch, in two halves, or with their labels permuted along: the same image for the same example."""
    model, state, batch = build("label")
    codes = encode_all(model, state, [batch])
    whole = decode_all(model, state, codes.mean, cond=codes.cond)
    order = np.asarray([3, 1, 5, 0, 4, 2])
    np.testing.assert_allclose(
        decode_all(model, state, codes.mean[order], cond=codes.cond[order]), whole[order], rtol=1e-5
    )
    grid = decode_all(model, state, np.stack([codes.mean, codes.mean]), cond=codes.cond)
    np.testing.assert_allclose(grid, np.stack([whole, whole]), rtol=1e-5)
    one = decode_all(model, state, codes.mean, cond=codes.cond[0])
    np.testing.assert_allclose(one[0], whole[0], rtol=1e-5)
    other = codes.cond.argmax(-1) != codes.cond[0].argmax()
    assert np.all(np.abs(one - whole).max((1, 2, 3))[other] > 1e-4)


def test_the_noise_of_a_sample_does_not_depend_on_its_class():
    """One code a column in every row of the class grid: E[x|z, c] of the same z."""
    model, state, _ = build("label")
    rows = [draw(model, state, KEY, 4, cond=label_features(model, state, np.full(4, c))) for c in range(3)]
    z = np.asarray(jax.random.normal(prng.site_key(KEY, "prior"), (4, D)))
    direct = [decode_all(model, state, z, cond=np.eye(3, dtype=np.float32)[c]) for c in range(3)]
    np.testing.assert_allclose(np.stack(rows), np.stack(direct), rtol=1e-5)
    cycled = draw(model, state, KEY, 4)
    np.testing.assert_allclose(cycled, np.stack([rows[c][i] for i, c in enumerate((0, 1, 2, 0))]), rtol=1e-5)


def test_nothing_stands_for_a_vector():
    model, state, batch = build("vector")
    with pytest.raises(InputError, match="must be given"):
        draw(model, state, KEY, 4)
    assert draw(model, state, KEY, 4, cond=np.asarray(batch["cond"][:4])).shape == (4, *SHAPE)


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range_are_refused(label):
    model, state, _ = build("label")
    with pytest.raises(InputError, match="use 0 to 2"):
        label_features(model, state, np.asarray([0, label]))
    with pytest.raises(InputError, match="does not take labels"):
        label_features(*build("factors")[:2], np.asarray([0]))


@pytest.mark.parametrize("on", FEATURES)
def test_a_condition_that_the_data_lack_is_refused(on):
    with pytest.raises(InputError, match=rf"model\.condition\.on: {on}, but the data have"):
        build(on, spec.images(*SHAPE, examples=10))


def arrays(tmp_path, **changed):
    rng = np.random.default_rng(0)
    held = {"images": rng.uniform(size=(40, 4, 4)).astype(np.float32), "cond": rng.normal(size=(40, 2))}
    path = tmp_path / "mine.npz"
    np.savez(path, **(held | changed))
    return path, held


def test_vectors_of_an_npz(tmp_path):
    path, held = arrays(tmp_path)
    source = data.load(data.DataConfig("npz", str(path), batch_size=4, protocol="full"), "train")
    assert source.info.cond_size == 2
    np.testing.assert_allclose(source.arrays["cond"], held["cond"], rtol=1e-6)
    assert source.arrays["cond"].dtype == np.float32
    for wrong, words in (
        (held["cond"][:3], "3 rows of cond for 40 images"),
        (np.zeros((40, 2), int), r"must be floats \[N, F\]"),
        (np.full((40, 2), np.nan), "NaN"),
    ):
        path, _ = arrays(tmp_path, cond=wrong)
        with pytest.raises(InputError, match=words):
            data.load(data.DataConfig("npz", str(path), batch_size=4), "train")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    np.savez(
        folder / "mine.npz", images=np.random.default_rng(0).uniform(size=(40, 8, 8)), cond=np.eye(40)[:, :2] * 1.0
    )
    small = ["--smoke", "--model.network.hidden", "8", "--mesh.data", "1", "--model.latent-dim", "3"]
    for name, words in {
        "label": ["--model.condition.on", "label"],
        "vector": ["--data.name", "npz", "--data.source", str(folder / "mine.npz"), "--model.condition.on", "vector"],
    }.items():
        assert main.run(["train", "vae_digits", *small, "--workdir", str(folder / name), *words]) == 0
    return folder


def test_commands_of_a_conditional_run(runs, tmp_path, capsys):
    run, out = str(runs / "label"), tmp_path / "out.npz"
    assert (runs / "label" / "figures" / "class_grid.png").stat().st_size > 1000

    def images(*words):
        assert main.run([words[0], run, *words[1:], "--out", str(out)]) == 0
        with np.load(out) as held:
            return dict(held)

    three = images("sample", "--n", "4", "--label", "3")["images"]
    assert np.abs(three - images("sample", "--n", "4", "--label", "5")["images"]).max() > 1e-4
    made = images("reconstruct", "--n", "4")["reconstructions"]
    images("traverse", "--steps", "3", "--index", "2")
    paths = images("interpolate", "--indices", "0", "1", "--steps", "3")["images"]
    np.testing.assert_allclose(paths[0, [0, -1]], made[:2], rtol=1e-4)
    # Through files: codes carry their features, so decoding them is reconstruction.
    codes = tmp_path / "codes.npz"
    assert main.run(["encode", run, "--input", "digits", "--out", str(codes), "--split", "test"]) == 0
    assert main.run(["decode", run, "--input", str(codes), "--out", str(out)]) == 0
    with np.load(out) as held:
        np.testing.assert_allclose(held["images"][:4], made, rtol=1e-4)
    capsys.readouterr()
    bare = tmp_path / "bare.npy"
    np.save(bare, np.zeros((2, 3), np.float32))
    for words, reason in (
        (["sample", run, "--label", "10"], "use 0 to 9"),
        (["sample", run, "--cond", "1.0"], "not conditioned on factors or a vector"),
        (["decode", run, "--input", str(bare), "--out", str(out)], "only with its features"),
    ):
        assert main.run(words) == 2
        assert reason in capsys.readouterr().err
    assert main.run(["decode", run, "--input", str(bare), "--label", "2", "--out", str(out)]) == 0


def test_a_vector_is_asked_for_by_its_numbers(runs, tmp_path, capsys):
    run, out = str(runs / "vector"), str(tmp_path / "out.npz")
    assert main.run(["sample", run, "--n", "3", "--cond", "0.5", "-1.0", "--out", out]) == 0
    assert main.run(["sample", run, "--n", "3", "--cond", "0.5", "--out", out]) == 2
    assert main.run(["sample", run, "--n", "3", "--label", "1", "--out", out]) == 2
    assert main.run(["sample", run, "--n", "3", "--out", out]) == 2
    err = capsys.readouterr().err
    assert "is conditioned on 2" in err
    assert "does not take labels" in err
    assert "must be given (--cond)" in err


def test_probes_learn_from_the_labeled_examples(runs, tmp_path, capsys):
    out = tmp_path / "eval.json"
    run = tmp_path / "m1"
    words = ["--smoke", "--model.network.hidden", "8", "--mesh.data", "1", "--data.labels", "30"]
    assert main.run(["train", "vae_digits", *words, "--workdir", str(run)]) == 0
    assert main.run(["eval", str(run), "--metrics", "probe,mse", "--limit", "0", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert set(found["metrics"]) == {"probe_svm", "probe_logistic", "knn", "mse"}
    assert all(m["n"] == 180 for m in found["metrics"].values())
    assert "30 labelled" in found["protocol"]["probe_svm"]
    # Codes of an untrained network are a random projection: they still tell digits apart.
    assert found["metrics"]["probe_logistic"]["value"] > 0.2


def test_a_condition_that_is_not_asked_of_the_encoder_or_decoder_is_not_joined():
    c = Condition("label", encoder=False, decoder=True)
    x, f, z = jnp.zeros((2, 4, 4, 1)), jnp.eye(2), jnp.zeros((6, 3))
    assert c.join_x(x, f).shape == x.shape
    assert c.join_code(z, f).shape == (6, 5)
    np.testing.assert_array_equal(c.join_code(z, f)[:, 3:], np.tile(np.eye(2), (3, 1)))
    assert dataclasses.replace(c, decoder=False).join_code(z, f).shape == z.shape
