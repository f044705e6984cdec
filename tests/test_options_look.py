"""Every option of sample, reconstruct, interpolate, traverse, encode and decode, against the model's own functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from options import arrays, close, covers, decoded, differ, done, make, mean_codes, perturbed, posterior, tiny

from vae_jax import data, prng
from vae_jax.data import pipeline
from vae_jax.models import VAE
from vae_jax.models.condition import Condition
from vae_jax.networks import MLP

D = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make(tmp_path_factory.mktemp("runs") / "vae", tiny())


@pytest.fixture(scope="module")
def labeled(tmp_path_factory):
    """A run conditioned on the label, whose moving average is not its weights."""
    config = tiny(VAE(D, MLP((8,)), condition=Condition("label")), ema_decay=0.9)
    return make(tmp_path_factory.mktemp("runs") / "label", config, (4,))


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A run conditioned on vectors of two numbers, with its .npz."""
    folder, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    np.savez(folder / "mine.npz", images=images, cond=rng.normal(size=(40, 2)).astype(np.float32))
    options = {"data.name": "npz", "data.source": str(folder / "mine.npz"), "data.protocol": "full"}
    return make(folder / "vector", tiny(VAE(D, MLP((8,)), condition=Condition("vector")), **options), (4,))


@pytest.fixture(scope="module")
def sprites(tmp_path_factory):
    """A run conditioned on factors."""
    config = tiny(VAE(D, MLP((8,)), condition=Condition("factors")), **{"data.name": "sprites"})
    return make(tmp_path_factory.mktemp("runs") / "factors", config, (4,))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.npz"


@pytest.fixture
def sizes(monkeypatch):
    """Collects how many examples are made at a time."""
    found: list[int] = []
    made = pipeline.examples

    def counted(source, config, index, **kwargs):
        found.append(len(index))
        return made(source, config, index, **kwargs)

    monkeypatch.setattr(pipeline, "examples", counted)
    return found


def drawn(run, state, seed, n, temperature=1.0, cond=None):
    """Returns p(x|z) of n draws of the prior, as `sample` makes them."""
    key = prng.site_key(jax.random.key(seed), "prior")
    return run.model.sample(state.eval_params, state.model_state, key, n, cond=cond, temperature=temperature)


# ---- sample


@covers("sample", "n", "seed", "out")
def test_sample_draws_n_images_of_the_seed(run, out):
    state = run.restore()
    for seed in (0, 1):
        images = arrays("sample", run.path, "--n", 5, "--seed", seed, out=out)["images"]
        close(images, drawn(run, state, seed, 5).mean())
    again = arrays("sample", run.path, "--n", 5, out=out)["images"]
    np.testing.assert_array_equal(arrays("sample", run.path, "--n", 5, "--seed", 0, out=out)["images"], again)
    assert differ(images, again)
    assert not (run.path / "figures" / "samples.png").exists()


def test_sample_by_default_draws_64_into_the_run(run):
    from PIL import Image

    done("sample", run.path)
    with Image.open(run.path / "figures" / "samples.png") as image:
        assert image.format == "PNG"
    (run.path / "figures" / "samples.png").unlink()


@covers("sample", "step")
def test_sample_of_a_step_has_the_weights_of_that_checkpoint(run, out):
    images = arrays("sample", run.path, "--n", 4, "--step", 2, out=out)["images"]
    close(images, drawn(run, run.restore(2), 0, 4).mean())
    assert differ(images, arrays("sample", run.path, "--n", 4, out=out)["images"])


@covers("sample", "temperature")
def test_temperature_scales_the_distance_from_the_priors_mean(run, out):
    state = run.restore()
    still = arrays("sample", run.path, "--n", 3, "--temperature", 0, out=out)["images"]
    close(still, decoded(run, state, np.full((3, D), 0.5)))
    # The draws of the prior themselves: mean 0.5, standard deviation 2.
    key = prng.site_key(jax.random.key(0), "prior")
    code = run.config.model.prior.sample({}, {}, key, 3, _links(D))
    wide = arrays("sample", run.path, "--n", 3, "--temperature", 1.5, out=out)["images"]
    close(wide, decoded(run, state, 0.5 + 1.5 * (np.asarray(code) - 0.5)))


def _links(dim):
    from vae_jax.priors import Links

    return Links(dim, (8, 8, 1), lambda images: None, None, None)


@covers("sample", "pixels")
def test_sampled_pixels_are_mean_mode_or_draw(run, out):
    p_x = drawn(run, run.restore(), 0, 6)
    close(arrays("sample", run.path, "--n", 6, "--pixels", "mean", out=out)["images"], p_x.mean())
    mode = arrays("sample", run.path, "--n", 6, "--pixels", "mode", out=out)["images"]
    np.testing.assert_array_equal(mode, np.asarray(p_x.mean()) > 0.5)
    draw = arrays("sample", run.path, "--n", 6, "--pixels", "sample", out=out)["images"]
    keys = jax.random.split(prng.site_key(jax.random.key(0), "pixels"), 6)
    np.testing.assert_array_equal(draw, p_x.sample(keys))
    assert differ(draw, mode)


@covers("sample", "label")
def test_sampled_label_is_the_one_hot_condition(labeled, out):
    state = labeled.restore()
    images = arrays("sample", labeled.path, "--n", 4, "--label", 7, out=out)["images"]
    close(images, drawn(labeled, state, 0, 4, cond=jnp.tile(jnp.eye(10)[7], (4, 1))).mean())
    turn = arrays("sample", labeled.path, "--n", 12, out=out)["images"]
    close(turn, drawn(labeled, state, 0, 12, cond=jnp.eye(10)[np.arange(12) % 10]).mean())


@covers("sample", "cond")
def test_sampled_condition_is_the_vector_or_the_factors(told, sprites, out):
    state = told.restore()
    images = arrays("sample", told.path, "--n", 2, "--cond", 0.5, -2, out=out)["images"]
    close(images, drawn(told, state, 0, 2, cond=jnp.tile(jnp.array([0.5, -2.0]), (2, 1))).mean())
    values = (2, 0, 5, 31, 7)
    images = arrays("sample", sprites.path, "--n", 2, "--cond", *values, out=out)["images"]
    sizes = (3, 6, 40, 32, 32)
    features = np.concatenate([np.eye(size)[value] for value, size in zip(values, sizes)])
    close(images, drawn(sprites, sprites.restore(), 0, 2, cond=jnp.tile(features, (2, 1))).mean())


@covers("sample", "prior")
def test_sampled_prior_is_the_density_fitted_to_codes(run, tmp_path, out):
    from vae_jax.evaluation import density_files

    done("fit-prior", run.path, "--components", 2, "--limit", 60)
    done("fit-prior", run.path, "--components", 3, "--limit", 60, "--seed", 5, "--out", tmp_path / "other")
    key, state, found = jax.random.key(0), run.restore(), []
    for name, file in (("gmm", run.path / "prior" / "gmm.json"), (tmp_path / "other" / "gmm.json",) * 2):
        for temperature in (1, 0.5):
            words = ["--n", 4, "--prior", name, "--temperature", temperature]
            found.append(arrays("sample", run.path, *words, out=out)["images"])
            z = density_files.load(file).sample(prng.site_key(key, "prior"), 4, temperature)
            close(found[-1], decoded(run, state, z))
    assert differ(found[0], found[2])


# ---- reconstruct


@covers("reconstruct", "n", "out")
def test_reconstruct_shows_the_first_n_of_the_evaluated_split(run, out):
    held = arrays("reconstruct", run.path, "--n", 5, out=out)
    state = run.restore()
    images = np.asarray(run.examples("test", np.arange(5))["x"])
    close(held["images"], images, atol=0)
    close(held["reconstructions"], decoded(run, state, mean_codes(run, state, "test", range(5))))
    close(held["mse"], np.square(held["images"] - held["reconstructions"]).mean((1, 2, 3)))
    assert held["index"].tolist() == [0, 1, 2, 3, 4]
    assert arrays("reconstruct", run.path, out=out)["index"].tolist() == list(range(32))


@covers("reconstruct", "indices", "split", "step")
def test_reconstruct_shows_these_images_of_this_split_by_this_checkpoint(run, out):
    rows = [7, 2, 40]
    held = arrays("reconstruct", run.path, "--indices", *rows, "--split", "train", "--step", 2, out=out)
    source, state = data.load(run.config.data, "train"), run.restore(2)
    assert held["index"].tolist() == rows
    close(held["images"], np.asarray(source.arrays["image"])[rows] / 255.0)
    close(held["reconstructions"], decoded(run, state, mean_codes(run, state, "train", rows)))


# ---- interpolate


@covers("interpolate", "indices", "steps", "out")
def test_interpolate_goes_in_steps_between_pairs(run, out):
    held = arrays("interpolate", run.path, "--indices", 5, 9, 2, 0, "--steps", 4, out=out)
    state = run.restore()
    z = mean_codes(run, state, "test", [5, 9, 2, 0])
    t = np.linspace(0, 1, 4)[None, :, None]
    want = (1 - t) * z[0::2, None] + t * z[1::2, None]
    assert held["index"].tolist() == [[5, 9], [2, 0]]
    close(held["codes"], want)
    close(held["images"], decoded(run, state, want))
    held = arrays("interpolate", run.path, out=out)
    assert held["index"].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert held["codes"].shape == (4, 10, D)


@covers("interpolate", "path")
def test_a_spherical_path_keeps_the_norm_between_its_ends(run, out):
    held = arrays("interpolate", run.path, "--indices", 5, 9, "--steps", 3, "--path", "spherical", out=out)
    a, b = mean_codes(run, run.restore(), "test", [5, 9]).astype(np.float64)
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    middle = (np.sin(angle / 2) * a + np.sin(angle / 2) * b) / np.sin(angle)
    close(held["codes"][0], [a, middle, b])
    straight = arrays("interpolate", run.path, "--indices", 5, 9, "--steps", 3, "--path", "linear", out=out)
    close(straight["codes"][0, 1], (a + b) / 2)
    assert differ(straight["codes"], held["codes"])


@covers("interpolate", "split", "step")
def test_interpolate_takes_split_and_checkpoint(run, out):
    held = arrays("interpolate", run.path, "--indices", 1, 3, "--split", "validation", "--step", 2, out=out)
    close(held["codes"][0, [0, -1]], mean_codes(run, run.restore(2), "validation", [1, 3]))


# ---- traverse


@covers("traverse", "dims", "steps", "reach", "index", "out")
def test_traverse_moves_dimensions_by_the_priors_deviations(run, out):
    words = ["--dims", 2, 0, "--steps", 5, "--reach", 3, "--index", 11]
    held = arrays("traverse", run.path, *words, out=out)
    state, values = run.restore(), 0.5 + 2.0 * np.array([-3, -1.5, 0, 1.5, 3])
    base = mean_codes(run, state, "test", [11])[0]
    want = np.tile(base, (2, 5, 1))
    want[0, :, 2], want[1, :, 0] = values, values
    assert held["dims"].tolist() == [2, 0]
    close(held["values"], np.tile(values, (2, 1)))
    close(held["codes"], want)
    close(held["images"], decoded(run, state, want))


def test_traverse_starts_at_the_most_central_code_and_orders_dimensions_by_kl(run, out):
    held = arrays("traverse", run.path, out=out)
    q = posterior(run, run.restore(), "test", np.arange(180))
    mean, var = np.asarray(q.mean, np.float64), np.asarray(q.variance(), np.float64)
    kl = (0.5 * ((var + (mean - 0.5) ** 2) / 4 - 1 - np.log(var / 4))).mean(0)
    order = np.argsort(-kl)
    assert held["dims"].tolist() == order.tolist()
    close(held["kl"], kl[order], atol=1e-3)
    close(held["values"], np.tile(0.5 + 2 * np.linspace(-2.5, 2.5, 11), (D, 1)))
    central = int(np.argmin((((mean - mean.mean(0)) / mean.std(0)) ** 2).sum(1)))
    still = [d for d in range(D) if d != order[0]]
    close(held["codes"][0][:, still], np.tile(mean[central][still], (11, 1)))


@covers("traverse", "quantiles", "split", "step")
def test_quantiles_are_those_of_the_codes_of_the_split(run, out):
    words = ["--quantiles", "True", "--steps", 3, "--split", "train", "--step", 2, "--dims", 1, "--index", 0]
    held = arrays("traverse", run.path, *words, out=out)
    codes = mean_codes(run, run.restore(2), "train", np.arange(500))
    close(held["values"][0], np.quantile(codes[:, 1], [0.005, 0.5, 0.995]), atol=1e-4)


# ---- encode


@covers("encode", "input", "out", "split", "step")
def test_encode_takes_the_split_and_the_checkpoint(run, out):
    held = arrays("encode", run.path, "--input", "digits", out=out)
    q = posterior(run, run.restore(), "test", np.arange(180))
    close(held["mean"], q.mean)
    close(held["log_var"], np.log(q.variance()))
    other = arrays("encode", run.path, "--input", "digits", "--split", "validation", "--step", 2, out=out)
    close(other["mean"], mean_codes(run, run.restore(2), "validation", np.arange(180)))
    np.testing.assert_array_equal(other["labels"], data.load(run.config.data, "validation").arrays["label"])
    assert sorted(other) == ["index", "label_names", "labels", "log_var", "mean"]


@covers("encode", "draw", "seed")
def test_encode_draws_with_its_seed(run, out):
    for seed in (0, 3):
        held = arrays("encode", run.path, "--input", "digits", "--draw", "True", "--seed", seed, out=out)
        _, z = posterior(run, run.restore(), "test", np.arange(180), jax.random.key(seed))
        close(held["z"], z, atol=1e-4)
    assert differ(held["z"], arrays("encode", run.path, "--input", "digits", "--draw", "True", out=out)["z"])


@covers("encode", "batch-size")
def test_encode_takes_so_many_images_at_a_time_and_no_number_changes(run, out, sizes):
    whole = arrays("encode", run.path, "--input", "digits", "--draw", "True", out=out)
    parts = arrays("encode", run.path, "--input", "digits", "--draw", "True", "--batch-size", 70, out=out)
    assert sizes == [180, 70, 70, 40]
    assert whole.pop("label_names").tolist() == parts.pop("label_names").tolist() == list("0123456789")
    for name, value in whole.items():
        close(parts[name], value)


# ---- decode


@pytest.fixture(scope="module")
def codes(tmp_path_factory):
    rng = np.random.default_rng(1)
    file = tmp_path_factory.mktemp("codes") / "codes.npz"
    held = {name: rng.normal(size=(4, D)).astype(np.float32) for name in ("mean", "z", "own")}
    np.savez(file, **held)
    return file, held


@covers("decode", "input", "out", "array", "step")
def test_decode_takes_the_array_and_the_checkpoint(run, codes, out):
    file, held = codes
    close(arrays("decode", run.path, "--input", file, out=out)["images"], decoded(run, run.restore(), held["mean"]))
    for name in ("z", "own"):
        images = arrays("decode", run.path, "--input", file, "--array", name, "--step", 2, out=out)["images"]
        close(images, decoded(run, run.restore(2), held[name]))


@covers("decode", "pixels", "seed")
def test_decoded_pixels_are_mean_mode_or_a_draw_of_the_seed(run, codes, out):
    file, held = codes
    state = run.restore()
    p_x = run.model.decode(state.eval_params, state.model_state, jnp.asarray(held["mean"]))
    mode = arrays("decode", run.path, "--input", file, "--pixels", "mode", out=out)["images"]
    np.testing.assert_array_equal(mode, np.asarray(p_x.mean()) > 0.5)
    for seed in (0, 2):
        draw = arrays("decode", run.path, "--input", file, "--pixels", "sample", "--seed", seed, out=out)["images"]
        np.testing.assert_array_equal(draw, p_x.sample(prng.example_keys(jax.random.key(seed), jnp.arange(4))))
    assert differ(draw, arrays("decode", run.path, "--input", file, "--pixels", "sample", out=out)["images"])


@covers("decode", "label")
def test_decode_as_a_label_or_as_the_file_says(labeled, tmp_path, codes, out):
    file, held = codes
    state = labeled.restore()
    images = arrays("decode", labeled.path, "--input", file, "--label", 3, out=out)["images"]
    close(images, decoded(labeled, state, held["mean"], cond=jnp.tile(jnp.eye(10)[3], (4, 1))))
    cond = np.eye(10, dtype=np.float32)[[1, 9, 1, 4]]
    np.savez(tmp_path / "told.npz", mean=held["mean"], cond=cond)
    images = arrays("decode", labeled.path, "--input", tmp_path / "told.npz", out=out)["images"]
    close(images, decoded(labeled, state, held["mean"], cond=jnp.asarray(cond)))


@covers("decode", "cond")
def test_decode_under_a_condition(told, codes, out):
    file, held = codes
    images = arrays("decode", told.path, "--input", file, "--cond", -1, 2.5, out=out)["images"]
    close(images, decoded(told, told.restore(), held["mean"], cond=jnp.tile(jnp.array([-1, 2.5]), (4, 1))))


def test_every_look_uses_the_moving_average(labeled, out):
    state = labeled.restore()
    weights = perturbed(labeled.init(), 4)
    assert differ(jax.tree.leaves(weights.params)[0], jax.tree.leaves(state.eval_params)[0])
    held = arrays("reconstruct", labeled.path, "--n", 3, out=out)
    batch = labeled.examples("test", np.arange(3))
    cond = jnp.eye(10)[np.asarray(batch["label"])]
    z = labeled.model.encode(weights.ema, {}, None, batch).z
    close(held["reconstructions"], labeled.model.decode(weights.ema, {}, z, cond=cond).mean())
