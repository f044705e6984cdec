"""Figures: whole pixels, the right rows, and nothing that stops a run."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from PIL import Image
from test_evaluation import SHAPE, trained

from vae_jax import spec, train
from vae_jax.evaluation import decode_all
from vae_jax.figures import curves, fold, grid, kl_chart, mosaic, pairs, read_metrics, save, write_all
from vae_jax.figures.grid import pixels
from vae_jax.models import VAE
from vae_jax.networks import MLP


def test_mosaic_keeps_every_pixel():
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(2, 3, 8, 8, 1)).astype(np.float32)
    picture = mosaic(images)
    assert picture.shape == (2 * 64 + 2, 3 * 64 + 4, 3)
    np.testing.assert_array_equal(picture[66:130:8, 66:130:8], pixels(images)[1, 1])
    assert (picture[64:66] == 255).all()
    color = rng.uniform(size=(1, 1, 64, 64, 3)).astype(np.float32)
    np.testing.assert_array_equal(mosaic(color), np.round(255 * color[0, 0]).astype(np.uint8))


def test_pixels_out_of_range_and_nan():
    out = pixels(np.array([[[-1.0], [2.0], [np.nan], [0.5]]]))
    assert out[0].tolist() == [[0, 0, 0], [255, 255, 255], [255, 0, 255], [128, 128, 128]]
    assert pixels(np.full((2, 2, 4), 0.5)).shape == (2, 2, 3)


def opened(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_grid_is_drawn_pixel_for_pixel(tmp_path):
    images = np.random.default_rng(0).uniform(size=(2, 5, 16, 16, 3)).astype(np.float32)
    figure = grid(images, title="a title", rows=["one", "two"], columns=list("abcde"), xlabel="x", ylabel="y")
    drawn = opened(save(figure, tmp_path / "grid.png"))
    picture = mosaic(images)
    rows, columns = picture.shape[:2]
    found = [
        (y, x)
        for y in range(drawn.shape[0] - rows + 1)
        for x in range(drawn.shape[1] - columns + 1)
        if (drawn[y, x : x + columns] == picture[0]).all()
    ]
    assert found, "the mosaic was resampled"
    y, x = found[0]
    np.testing.assert_array_equal(drawn[y : y + rows, x : x + columns], picture)
    assert [p.name for p in tmp_path.iterdir()] == ["grid.png"]


def test_fold_and_pairs():
    images = np.zeros((5, 4, 4, 1), np.float32)
    assert fold(images, 3).shape == (2, 3, 4, 4, 1)
    assert fold(images, 3)[1, 2].min() == 1  # missing: white
    labels = [t.get_text() for t in pairs(images, images, columns=3).axes[0].get_yticklabels()]
    assert labels == ["original", "reconstruction"] * 2
    shown = pairs(images + 0.25, images + 0.75, columns=3).axes[0].images[0].get_array()
    column = np.asarray(shown, np.float64)[..., 0][:, shown.shape[1] // 6] / np.max(shown)
    levels = [level for level in column if 0.2 < level < 0.8]
    assert [levels[0], *(b for a, b in itertools.pairwise(levels) if a != b)] == pytest.approx(
        [0.25, 0.75] * 2, abs=0.01
    )


def lines(split="train", **extra):
    return [{"step": s, "split": split, "elbo": -200.0 / s, "distortion": 150.0 / s, "rate": 2.0, "beta": 4.0, **extra}
            for s in range(1, 30)]  # fmt: skip


def test_of_hundreds_of_inputs_the_first_are_drawn_and_counted(capsys):
    images = np.zeros((300, 2, 2, 1), np.float32)
    figure = pairs(images, images, title="t")
    assert figure.get_size_inches()[1] * figure.dpi < 5000
    assert len(figure.axes[0].get_yticklabels()) == 64
    assert figure.texts[0].get_text().replace("\n", " ") == "t (the first 256 of 300 examples)"
    assert capsys.readouterr().err == "note: the picture shows the first 256 of 300 examples; use the arrays for all\n"
    pairs(images[:256], images[:256])
    assert not capsys.readouterr().err


def test_curves_have_labels_and_units(tmp_path):
    figure = curves({"run": [*lines(), *lines("validation")]}, title="run")
    shown = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert {"ELBO", "KL weight"} <= set(shown)
    assert shown["ELBO"].get_ylabel() == "nats / example"
    assert all(axes.get_xlabel() == "step" for axes in shown.values())
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["train", "validation"]
    bottom, top = shown["ELBO"].get_ylim()
    assert -120 < bottom < top  # the first steps do not set the scale
    save(figure, tmp_path / "c.png")


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"step": 1, "split": "train", "elbo": None, "rate": None}],
        [{"step": 1, "split": "train", "elbo": -3.0, "distortion": 3.0}],
        lines(rate=float("inf"), beta=0.0),
        [{"step": s, "split": "train", "distortion": 1e30, "mse": 0.0} for s in range(40)],
    ],
)
def test_curves_of_degenerate_numbers(rows, tmp_path):
    save(curves({"": rows}), tmp_path / "c.png")


def test_a_cut_line_is_left_out_and_said(tmp_path, caplog):
    assert read_metrics(tmp_path) == []
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "elbo": -1.0}) + '\n{"step": 2, "el')
    assert [line["step"] for line in read_metrics(tmp_path)] == [1]
    file = tmp_path / "metrics.jsonl"
    (record,) = caplog.records
    assert record.getMessage() == f"{file}: cannot be read and left out: line 2 (the last was cut while it was written)"


@pytest.mark.parametrize(
    ("kl", "variance"),
    [
        ([2.0, 0.0, 1.0], [1.0, 0.0, 0.5]),
        ([2.0, 1.0], [1.0, 0.5]),
        ([float("nan")] * 3, [float("inf")] * 3),
        ([0.0], [0.0]),
        ([1.0] * 256, [1e-9] * 256),
    ],
)
def test_kl_chart(kl, variance, tmp_path):
    figure = kl_chart(kl, variance, title="run")
    save(figure, tmp_path / "kl.png")
    if len(kl) == 3 and kl[0] == 2.0:
        upper, lower = figure.axes
        assert [bar.get_height() for bar in upper.patches] == [2.0, 1.0, 0.0]
        assert [t.get_text() for t in lower.get_xticklabels()] == ["z0", "z2", "z1"]
        assert "2 of 3 dimensions active" in figure.get_suptitle()
    lower = figure.axes[1]
    label = lower.texts[0].get_window_extent()
    assert not any(label.overlaps(bar.get_window_extent()) for bar in lower.patches)


EVERY = {"samples", "reconstructions", "traversals", "loss_curves", "kl_per_dim"}


def written(folder, model, state, n=10):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines()))
    batch = {**support.images(n, SHAPE), "index": jnp.arange(n)}
    paths = write_all(folder, model, state, batch, "a run, step 30")
    assert sorted(paths) == sorted((folder / "figures").iterdir())
    for path in paths:
        assert opened(path).shape[1] > 200
    return {path.stem for path in paths}


def test_write_all(tmp_path):
    assert written(tmp_path, *trained()) == EVERY


def test_traversals_are_decoded_from_the_codes_of_the_walk(tmp_path, monkeypatch):
    from vae_jax.figures import write

    seen, real = [], write.traversal_grid

    def spied(images, walk, **more):
        seen.append((images, walk))
        return real(images, walk, **more)

    monkeypatch.setattr(write, "traversal_grid", spied)
    model, state = trained()
    written(tmp_path, model, state)
    ((images, walk),) = seen
    np.testing.assert_allclose(images, decode_all(model, state, walk.codes), atol=1e-6)
    assert np.ptp(walk.codes) > 1


def test_write_all_of_an_autoencoder(tmp_path):
    assert written(tmp_path, *trained("ae")) == EVERY - {"samples", "kl_per_dim"}


def test_write_all_of_one_image(tmp_path):
    assert written(tmp_path, *trained(), n=1) == EVERY


def test_write_all_of_a_diverged_model(tmp_path):
    model, state = trained()
    broken = train.TrainState(**{**vars(state), "params": jax.tree.map(lambda x: x * jnp.nan, state.params)})
    assert written(tmp_path, model, broken) == EVERY


def test_two_latent_dimensions_show_their_plane(tmp_path):
    model = VAE(2, MLP((8,))).build(spec.images(*SHAPE))
    tx = train.make_optimizer({"vae": train.Optimizer()}, 10)
    state = train.make_init(model, tx)(jax.random.key(0), support.images(2, SHAPE))
    assert written(tmp_path, model, state) == EVERY | {"manifold"}


def test_figures_of_sorted_data_show_every_class(tmp_path, monkeypatch):
    from test_cli_look import config, make

    from vae_jax import figures
    from vae_jax.runs.run import Run
    from vae_jax.tasks import training

    seen, data = [], support.sorted_data(tmp_path / "sorted.npz")
    run = Run.load(make(tmp_path / "run", dataclasses.replace(config(VAE(2, MLP((8,)))), data=data)))

    def note(path, model, state, batch, title, *, split, **more):
        seen.append((batch, sum(len(part["x"]) for part in split)))

    monkeypatch.setattr(figures, "write_all", note)
    monkeypatch.setattr(training, "FEW", 10)
    monkeypatch.setattr(training, "COUNTED", 20)
    # In between, at the last step, and where patience ended the run.
    for step, ended in ((3, False), (4, False), (3, True)):
        training._figures(run, run.restore(), step, ended)
    assert [counted for _, counted in seen] == [10, 20, 20]
    batch = seen[0][0]
    assert len(batch["label"]) == 256
    assert set(np.asarray(batch["label"])[:32].tolist()) == {0, 1, 2, 3}
