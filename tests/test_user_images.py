"""A user's own images given to a trained model: unlabeled ones, dark ones, classes that it never had, wrong shapes."""

import re

import jax
import numpy as np
import pytest
import support
from PIL import Image

from vae_jax import data, impute
from vae_jax.cli import main
from vae_jax.data import npz
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError, on_command_line
from vae_jax.evaluation import encode_all, evaluate
from vae_jax.models import M2, VAE, Classifier
from vae_jax.models.condition import Condition
from vae_jax.networks import MLP
from vae_jax.runs.config import Config
from vae_jax.runs.inputs import user_batches
from vae_jax.runs.run import Run
from vae_jax.runs.training_data import spec_of

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (12, 8, 8), dtype=np.uint8)
NET = MLP((8,))


def make(path, model, **options):
    config = Config(steps=1, data=DataConfig("digits", batch_size=8, **options), model=model)
    source = data.load(config.data, "train")
    run = Run.create(path, "x", config, spec_of(source))
    support.checkpoint(run)
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        "m2": make(folder / "m2", M2(2, NET, width=8), labels=20),
        "classifier": make(folder / "classifier", Classifier(2, NET, width=8), labels=20),
        "vae": make(folder / "vae", VAE(2, NET)),
        "label": make(folder / "label", VAE(2, NET, condition=Condition("label"))),
    }


def given(tmp_path, **arrays):
    np.savez(tmp_path / "mine.npz", **arrays)
    return str(tmp_path / "mine.npz")


def refused(run, path, *words):
    with on_command_line(), pytest.raises(InputError) as error:
        user_batches(run, path, "test")
    line = str(error.value)
    assert "\n" not in line
    for word in words:
        assert word in line, line
    return line


@pytest.mark.parametrize("name", ["m2", pytest.param("classifier", marks=pytest.mark.slow)])
def test_models_that_learn_from_labels_encode_and_score_images_without_any(runs, name, tmp_path):
    """`data.labels` of the run says how it was trained; other images need none."""
    run, path, out = runs[name], given(tmp_path, images=GRAY), tmp_path / "codes.npz"
    assert main.run(["encode", str(run.path), "--input", path, "--out", str(out)]) == 0
    with np.load(out) as held:
        codes = dict(held)
    assert codes["mean"].shape == (12, 2)
    assert "labels" not in codes
    state = run.restore()
    # The codes are those of the images and of the classes that the model itself finds in them.
    x = GRAY[..., None] / np.float32(255)
    found = run.model.encode(state.eval_params, state.model_state, None, {"x": x})
    np.testing.assert_allclose(codes["mean"], found.z, atol=1e-5)
    assert (codes["cond"].sum(1) == 1).all()
    bare = evaluate(run.model, state, user_batches(run, path, "test")[0], key=jax.random.key(0), k=(2,))
    assert "accuracy" not in bare.metrics
    # With labels the same images have the same bound, and an accuracy.
    path = given(tmp_path, images=GRAY, labels=np.arange(12) % 10)
    full = evaluate(run.model, state, user_batches(run, path, "test")[0], key=jax.random.key(0), k=(2,))
    np.testing.assert_allclose(bare.metrics["elbo"].value, full.metrics["elbo"].value, rtol=1e-6)
    assert full.metrics["accuracy"].n == 12


def test_outliers_without_labels_are_scored_by_a_semi_supervised_run(runs, tmp_path, capsys):
    words = ["eval", str(runs["m2"].path), "--limit", "10", "--out", str(tmp_path / "eval.json")]
    words += ["--metrics", "anomaly", "--outliers", given(tmp_path, images=GRAY), "--outlier-k", "2"]
    assert main.run([*words, "--regret-steps", "2"]) == 0, capsys.readouterr().err
    assert "auroc_elbo" in (tmp_path / "eval.json").read_text()


def test_the_runs_own_data_are_encoded_without_drawing_labeled_ones(runs):
    batches, source = user_batches(runs["m2"], "digits", "train")
    assert source.labeled is None
    assert len(encode_all(runs["m2"].model, runs["m2"].restore(), batches).mean) == source.size


def test_a_folder_without_classes_is_encoded_too(runs, tmp_path):
    (tmp_path / "photos").mkdir()
    for i, pixels in enumerate(GRAY):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i:02}.png")
    batches, source = user_batches(runs["m2"], str(tmp_path / "photos"), "test")
    assert source.size == 12
    np.testing.assert_allclose(np.asarray(next(batches)["x"])[..., 0], GRAY / 255, atol=1e-6)


def test_classes_that_the_model_never_had_are_refused(runs, tmp_path):
    labels = np.arange(12)  # 11 is no digit
    for name in ("label", "m2", "classifier"):
        path = given(tmp_path, images=GRAY, labels=labels)
        refused(runs[name], path, "labels go up to 11", "trained on classes 0 to 9", "number the classes as in its")
        user_batches(runs[name], given(tmp_path, images=GRAY, labels=labels % 10), "test")
    user_batches(runs["vae"], given(tmp_path, images=GRAY, labels=labels), "test")  # which looks at no label
    line = refused(
        runs["label"], given(tmp_path, images=GRAY), "is conditioned on labels [N], which these examples come"
    )
    assert line.endswith("save an .npz with the arrays images and labels")


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (GRAY.repeat(2, 1).repeat(2, 2), "resize them to 8x8, e.g. "),
        (GRAY.repeat(2, 2)[..., None], "resize them to 8x8, e.g. "),
        (np.stack([GRAY] * 3, -1), "convert them to gray, e.g. "),
        (np.stack([GRAY] * 3, -1) / 255, "convert them to gray, e.g. "),
        (np.stack([GRAY > 99] * 4, -1), "convert them to gray, e.g. "),
        (GRAY % 17, "dark on the scale 0 to 255; save "),
    ],
)
def test_the_advice_for_images_of_another_kind_works_when_pasted(runs, tmp_path, images, said):
    line = refused(runs["vae"], given(tmp_path, images=images), said)
    expression = re.split(", or if ", line.split(said)[1])[0]
    mended = eval(expression, {"jax": jax, "numpy": np, "images": images})
    batches, source = user_batches(runs["vae"], given(tmp_path, images=mended), "test")
    assert source.info.shape == (8, 8, 1)
    shown = np.concatenate([np.asarray(batch["x"]) for batch in batches])
    assert shown.max() > 0.9
    if images.shape[1:] == (8, 8, 3):
        np.testing.assert_allclose(shown[..., 0], GRAY / 255, atol=1e-6)


@pytest.mark.parametrize("large", [False, True], ids=["in memory", "by rows"])
def test_floats_of_gray_levels_are_read_as_these_and_it_is_said(runs, tmp_path, capsys, monkeypatch, large):
    if large:
        monkeypatch.setattr(npz, "DEVICE_BYTES", 100)
    for i, images in enumerate([GRAY, GRAY[:1] // 4, np.where(GRAY > 99, 255, 0)]):
        path = str(tmp_path / f"{i}.npy")
        np.save(path, images.astype(np.uint8))
        (want,) = (np.asarray(batch["x"]) for batch in user_batches(runs["vae"], path, "test")[0])
        np.save(path, images.astype(np.float64))
        batches, source = user_batches(runs["vae"], path, "test")
        assert (source.pipeline == "grain") == large
        np.testing.assert_array_equal(np.asarray(next(batches)["x"]), want)
        note = f"note: {path}: images holds whole numbers beyond 1, read as gray levels 0 to 255\n"
        assert capsys.readouterr().err == note
    # 0 and 1 are black and white, as ever, and nothing is said.
    np.save(tmp_path / "b.npy", (GRAY > 99).astype(np.float32))
    batches, _ = user_batches(runs["vae"], str(tmp_path / "b.npy"), "test")
    np.testing.assert_array_equal(np.asarray(next(batches)["x"])[..., 0], GRAY > 99)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("large", [False, True], ids=["in memory", "by rows"])
@pytest.mark.parametrize(
    "images", [GRAY * 0.99, GRAY * 2.0, GRAY - 9.0, GRAY % 9 * 1.0], ids=["fractions", "510", "negative", "dark"]
)
def test_floats_that_are_no_gray_levels_are_refused_and_the_advice_works(runs, tmp_path, monkeypatch, large, images):
    if large:
        monkeypatch.setattr(npz, "DEVICE_BYTES", 100)
    path = str(tmp_path / "x.npy")
    np.save(path, images)
    line = refused(runs["vae"], path, "save ")
    np.save(path, eval(line.split("save ")[1].split(", or if")[0], {"numpy": np, "images": images}))
    batches, _ = user_batches(runs["vae"], path, "test")
    shown = np.asarray(next(batches)["x"])
    assert shown.min() == 0
    assert 0.9 < shown.max() <= 1


def test_missing_floats_of_gray_levels_are_filled_in_with_gray_levels(runs):
    seen = RNG.random(GRAY.shape) > 0.2
    want = impute(runs["vae"], GRAY, seen, k=5)
    for holed in ({"images": np.where(seen, GRAY, np.nan)}, {"images": GRAY * 1.0, "mask": seen}):
        found = impute(runs["vae"], holed, k=5)
        assert found.x.dtype == np.float64
        np.testing.assert_array_equal(np.rint(found.x), want.x)


def test_one_dark_or_black_image_is_an_image(runs, tmp_path):
    for image in (np.zeros((1, 8, 8), np.uint8), np.full((1, 8, 8), 60, np.uint8), np.zeros((1, 8, 8))):
        batches, _ = user_batches(runs["vae"], given(tmp_path, images=image), "test")
        shown = np.asarray(next(batches)["x"])
        np.testing.assert_allclose(shown[..., 0], image / 255, rtol=1e-6)


def test_pictures_of_masks_are_refused_and_dark_ones_are_pictures(runs, tmp_path):
    for name, pixels in {"black": GRAY[0] * 0, "dark": GRAY[0] // 4, "mask": GRAY[0] // 128}.items():
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "0.png")
    for name in ("black", "dark"):
        assert user_batches(runs["vae"], str(tmp_path / name), "test")[1].size == 1
    refused(runs["vae"], str(tmp_path / "mask"), "no pixel is above 1, which is black on the scale 0 to 255; use ")


@pytest.mark.parametrize("part", data.SPLITS)
def test_a_file_of_one_split_is_read_or_the_line_names_it(runs, tmp_path, part):
    path, out = given(tmp_path, **{f"{part}_images": GRAY, f"{part}_labels": np.arange(12) % 10}), tmp_path / "c.npz"
    words = ["encode", str(runs["vae"].path), "--input", path, "--out", str(out)]
    assert main.run(words) == 0
    with np.load(out) as held:
        assert held["labels"].tolist() == [*range(10), 0, 1]
    for other in data.SPLITS:
        if other != part:
            with on_command_line(), pytest.raises(InputError) as error:
                user_batches(runs["vae"], path, other, asked=True)
            line = str(error.value)
            assert line.endswith(f"holds no {other} examples, only {part}; use --split {part}")
    assert user_batches(runs["vae"], path, part, asked=True)[1].size == 12


def test_of_several_splits_the_line_offers_those_that_are_there(runs, tmp_path):
    path = given(tmp_path, train_images=GRAY, test_images=GRAY[:5])
    with on_command_line(), pytest.raises(InputError) as error:
        user_batches(runs["vae"], path, "validation")
    assert str(error.value).endswith("holds no validation examples, only train and test; use --split test or train")
    assert user_batches(runs["vae"], path, "test", asked=True)[1].size == 5
    with pytest.raises(InputError) as error:
        user_batches(runs["vae"], path, "validation", name="outliers")
    assert str(error.value).endswith("save the images to take as an .npz with the one array images")
    with on_command_line(), pytest.raises(InputError, match=r"--split tset: unknown split; did you mean 'test'\?"):
        user_batches(runs["vae"], path, "tset", asked=True)


def test_prepared_folders_are_read(runs, tmp_path):
    tfds = str(tmp_path / "tfds")
    path = given(tmp_path, train_images=GRAY, test_images=GRAY[:5] // 2, train_labels=np.arange(12) % 10,
                 test_labels=np.arange(5))  # fmt: skip
    (tmp_path / "photos").mkdir()
    for i, pixels in enumerate(GRAY):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i:02}.png")
    arrays = data.prepare("npz", path, tfds).folder
    pictures = data.prepare("image_folder", str(tmp_path / "photos"), tfds).folder
    for folder, raw in ((arrays, path), (pictures, None)):
        out = tmp_path / "c.npz"
        assert main.run(["encode", str(runs["vae"].path), "--input", folder, "--out", str(out)]) == 0
        batches, source = user_batches(runs["vae"], folder, "test")
        assert len(np.load(out)["mean"]) == source.size
        if raw:
            shown = np.concatenate([np.asarray(batch["x"]) for batch in batches])
            np.testing.assert_allclose(shown[..., 0], (GRAY[:5] // 2) / 255, atol=1e-6)
    digits = data.prepare("digits", None, tfds).folder
    line = refused(runs["vae"], digits, "holds 'digits', which is embedded and read from no folder; use --input digits")
    assert main.run(["encode", str(runs["vae"].path), "--input", line.rpartition(" ")[2], "--out", str(out)]) == 0


def test_outliers_stand_for_all_classes_of_a_sorted_file(runs, tmp_path, monkeypatch, capsys):
    from vae_jax.evaluation.subject import Subject

    seen, outliers = [], Subject.outliers

    def spied(self, name):
        held = list(outliers(self, name))
        seen.append([label for batch in held for label in np.asarray(batch["label"]).tolist()])
        return iter(held)

    monkeypatch.setattr(Subject, "outliers", spied)
    path = given(tmp_path, images=GRAY.repeat(10, 0), labels=np.repeat(np.arange(4), 30))
    words = ["eval", str(runs["vae"].path), "--limit", "12", "--out", str(tmp_path / "eval.json")]
    words += ["--metrics", "anomaly", "--outliers", path, "--outlier-k", "2", "--regret-steps", "2"]
    assert main.run(words) == 0, capsys.readouterr().err
    assert seen
    for labels in seen:
        assert labels == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3


def test_a_file_of_arrays_that_is_none(runs, tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK\x05\x06" + bytes(18))
    refused(runs["vae"], str(tmp_path / "x.npz"), "has no array 'images' (has: nothing)")
    (tmp_path / "x.csv").write_text("1,2")
    refused(runs["vae"], str(tmp_path / "x.csv"), "is a table, but", "was trained on images of 8x8")
    (tmp_path / "x.doc").write_text("1,2")
    refused(runs["vae"], str(tmp_path / "x.doc"), "neither .npy nor .npz, nor an image or a folder of images")


def test_a_condition_that_is_no_number_is_refused(runs, tmp_path, capsys):
    out = str(tmp_path / "x.npz")
    factors = make(tmp_path / "run", VAE(2, NET, condition=Condition("label")))
    for value in ("nan", "inf"):
        assert main.run(["sample", str(factors.path), "--cond", value, "--out", out]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
