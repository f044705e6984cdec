"""Labels that are not known: -1 in arrays, a folder `unlabeled`; nothing reads them as a class."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

import vae_jax as vj
from vae_jax import data
from vae_jax.cli.main import run as command
from vae_jax.data import classes, labels, pipeline
from vae_jax.data.config import DataConfig
from vae_jax.data.stream import GrainStream
from vae_jax.errors import InputError, on_command_line
from vae_jax.models import M2, Multimodal
from vae_jax.networks import MLP
from vae_jax.runs.config import Config, Evaluation, Logging
from vae_jax.runs.run import Run
from vae_jax.tasks import training
from vae_jax.train import MeshConfig

KEY = jax.random.key(3)
M2_SMALL = M2(latent_dim=2, network=MLP((16,)), alpha=1.0, width=8)
MULTIMODAL = Multimodal(latent_dim=2, network=MLP((16,)), width=8)


@pytest.fixture(autouse=True)
def _at_the_command_line():
    """Messages are read as somebody at the command line reads them."""
    with on_command_line():
        yield


def digits():
    """Returns images uint8 [1797, 8, 8] and labels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return ((bunch.images.astype(int) * 255 + 8) // 16).astype(np.uint8), bunch.target


IMAGES, LABELS = digits()
RANDOM = np.random.default_rng(0).random(len(LABELS))
PARTLY = np.where(RANDOM < 0.1, LABELS, -1)


def saved(folder, **arrays):
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "mine.npz", **arrays)
    return str(folder / "mine.npz")


def of(file, **options):
    return DataConfig("npz", source=str(file), **{"protocol": "held-out", "batch_size": 32, **options})


def small(data_config, model=M2_SMALL, steps=4):
    return Config(
        steps=steps,
        data=data_config,
        model=model,
        mesh=MeshConfig(data=1),
        logging=Logging(tensorboard=False, figures_minutes=0.0),
        evaluation=Evaluation(limit=60, batch_size=60),
    )


def refusal(call, *args, **options):
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    (line,) = str(caught.value).splitlines()
    return line


@pytest.fixture(scope="module")
def partly(tmp_path_factory):
    """The file of digits of which a tenth is labeled, and a run of each model on it."""
    folder = tmp_path_factory.mktemp("partly")
    file = saved(folder, images=IMAGES, labels=PARTLY)
    runs = {
        name: vj.train_run(small(of(file), model), folder / name, quiet=True)
        for name, model in (("m2", M2_SMALL), ("multimodal", MULTIMODAL))
    }
    return file, runs


def test_labels_of_minus_one_are_unknown(tmp_path):
    file = saved(tmp_path, images=IMAGES, labels=PARTLY)
    source = data.load(of(file), "train")
    assert source.info.num_classes == 10
    assert source.info.unlabeled
    np.testing.assert_array_equal(source.labeled, np.flatnonzero(source.arrays["label"] >= 0))
    assert f"the labels of {(PARTLY < 0).sum():,} of 1,797 examples are unknown" in source.info.notes[0]
    assert data.load(of(file), "test").labeled is None
    none = data.load(of(saved(tmp_path / "none", images=IMAGES, labels=np.full(1797, -1))), "train")
    assert none.info.num_classes is None
    assert "label" not in none.arrays
    every = data.load(of(saved(tmp_path / "every", images=IMAGES, labels=LABELS)), "train")
    assert every.labeled is None
    assert not every.info.unlabeled


@pytest.mark.parametrize("pipe", ["device", "grain"])
def test_training_is_that_of_data_labels_with_the_same_examples(tmp_path, pipe):
    """The oracle: the rows that `data.labels` chooses, and the same rows as the only ones that are not -1."""
    few = data.load(of(saved(tmp_path, images=IMAGES, labels=LABELS), labels=150, pipeline=pipe), "train")
    label = np.full(len(LABELS), -1)
    everywhere = few.division.rows["train"][few.labeled]
    label[everywhere] = LABELS[everywhere]
    config = of(saved(tmp_path / "b", images=IMAGES, labels=label), pipeline=pipe)
    source = data.load(config, "train")
    np.testing.assert_array_equal(source.labeled, few.labeled)
    for step in (0, 7, 300):
        if pipe == "device":
            a, b = (pipeline.make_batch_fn(s, config)(dict(s.arrays), KEY, step) for s in (few, source))
        else:
            a, b = (next(GrainStream(s, config, KEY, step=step)) for s in (few, source))
        assert a.keys() == b.keys()
        assert "label" not in a
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_a_folder_of_unlabeled_pictures_beside_class_folders(tmp_path):
    for i in range(40):
        path = tmp_path / (["3", "five", "Unlabeled", "unlabelled"][i % 4]) / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(IMAGES[i]).save(path)
    config = DataConfig("image_folder", source=str(tmp_path), protocol="full", batch_size=4)
    for pipe in ("device", "grain"):
        source = data.load(dataclasses.replace(config, pipeline=pipe), "train")
        assert source.info.label_names == ("3", "five")
        assert source.info.unlabeled
        assert np.bincount(labels.of(source) + 1).tolist() == [20, 10, 10]
        assert len(source.labeled) == 20
    assert "the labels of 20 of 40 examples are unknown" in " ".join(source.info.notes)
    # Alone it is a folder like any other, as it has always been.
    for name in ("3", "five", "Unlabeled"):
        (tmp_path / name).rename(tmp_path / f".{name}")
    assert data.load(config, "train").info.label_names == ("unlabelled",)


def test_folders_with_splits_and_unlabeled_pictures(tmp_path):
    for i in range(24):
        path = tmp_path / ("train" if i < 16 else "test") / (["a", "b", "unlabelled"][i % 3]) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[i]).save(path)
    config = DataConfig("image_folder", source=str(tmp_path), batch_size=4)
    for part in ("train", "test"):
        assert sorted(set(data.load(config, part).arrays["label"].tolist())) == [-1, 0, 1]


def test_numbers_of_other_classes_leave_unknown_ones_alone():
    """As an index, -1 would be the last class."""
    from vae_jax.data.source import Info, from_arrays

    info = Info("image_folder", (8, 8, 1), {"train": 3}, "full", "", 2, ("a", "b"), unlabeled=True)
    arrays = {"image": IMAGES[:3, ..., None], "label": np.array([1, -1, 0], np.int32)}
    matched = classes.match(from_arrays(info, "train", arrays), ("z", "b", "y", "a"), "here")
    assert matched.arrays["label"].tolist() == [1, -1, 3]
    assert matched.records.rows(np.arange(3))["label"].tolist() == [1, -1, 3]
    computed = dataclasses.replace(from_arrays(info, "train", arrays), arrays={})
    computed = dataclasses.replace(computed, fetch=lambda _, index: {"label": arrays["label"][index]})
    made = classes.match(computed, ("z", "b", "y", "a"), "here").fetch({}, np.arange(3))
    assert np.asarray(made["label"]).tolist() == [1, -1, 3]


def test_other_negative_labels_are_refused_and_the_advice_works(tmp_path):
    label = LABELS.astype(int).copy()
    label[5] = -9
    line = refusal(data.load, of(saved(tmp_path, images=IMAGES, labels=label)), "train")
    assert "if they are unknown, save numpy.maximum(labels, -1)" in line
    assert data.load(of(saved(tmp_path, images=IMAGES, labels=np.maximum(label, -1))), "train").info.unlabeled
    # Numbers with gaps are renumbered without a class for what is unknown.
    gaps = np.where(PARTLY < 0, -1, PARTLY * 1000)
    line = refusal(data.load, of(saved(tmp_path, images=IMAGES, labels=gaps)), "train")
    assert "return_inverse=True)[1] - 1" in line
    renumbered = np.unique(gaps, return_inverse=True)[1] - 1
    np.testing.assert_array_equal(renumbered, PARTLY)


def test_models_that_need_every_label_refuse_and_m2_takes_the_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = saved(tmp_path, images=IMAGES[:300], labels=PARTLY[:300])
    words = [
        "train",
        "vae_digits",
        "--data",
        file,
        "--steps",
        "2",
        "--mesh.data",
        "1",
        "--quiet",
        "--evaluation.k",
        "2",
    ]
    assert command([*words, "--model.condition.on", "label", "--workdir", "run"]) == 2
    said = capsys.readouterr().err
    assert "some labels of 'npz' are unknown (-1, or a folder unlabeled)" in said
    assert "use --model m2" in said
    assert not (tmp_path / "run").exists()
    assert command([*words, "--model", "m2", "--workdir", "run"]) == 0
    known = saved(tmp_path / "k", images=IMAGES[:300][PARTLY[:300] >= 0], labels=PARTLY[:300][PARTLY[:300] >= 0])
    words[3], batch = known, ["--data.batch-size", "8"]
    assert command([*words, *batch, "--model.condition.on", "label", "--workdir", "cvae"]) == 0
    # Inputs of a trained one are held to the same.
    line = refusal(vj.encode, "cvae", {"images": IMAGES[:40], "labels": PARTLY[:40]})
    assert "give the examples whose label is known" in line
    seen = PARTLY[:300] >= 0
    assert len(vj.encode("cvae", {"images": IMAGES[:300][seen], "labels": PARTLY[:300][seen]}).mean) == seen.sum()


def test_no_known_training_label_at_all_is_refused_for_m2_alone(tmp_path):
    arrays = {"train_images": IMAGES[:200], "train_labels": np.full(200, -1)}
    file = saved(tmp_path, **arrays, test_images=IMAGES[200:300], test_labels=LABELS[200:300])
    line = refusal(vj.train_run, small(of(file)), tmp_path / "run", quiet=True)
    assert "label some, or use --model vae" in line
    run = vj.train_run(small(of(file), vj.experiment("vae_digits").model, 2), tmp_path / "run", quiet=True)
    assert "no training example has a known label" in refusal(vj.evaluate_run, run, metrics=["knn"])


def test_an_evaluation_leaves_unknown_labels_out_and_says_how_many(partly):
    _, runs = partly
    run = runs["m2"]
    found = vj.evaluate_run(run, write=False)
    source, rows = run.source("test"), run.rows("test", 60)
    known = int((source.arrays["label"][rows] >= 0).sum())
    assert 0 < known < 60
    assert found["metrics"]["accuracy"]["n"] == known
    assert found["metrics"]["elbo"]["n"] == 60
    assert found["protocol"]["labels"].startswith(f"{60 - known} of 60 examples have no known label")
    # The number is that of the labeled rows alone.
    batch = run.examples("test", rows[source.arrays["label"][rows] >= 0])
    state = run.restore()
    terms = run.model.terms(state.params, {}, KEY, batch, run.model.context(batch, train=False))
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(float(np.mean(terms["accuracy"])))


def test_bounds_on_image_and_label_are_those_of_labeled_rows(partly):
    _, runs = partly
    run = runs["multimodal"]
    found = vj.evaluate_run(run, k=(2,), write=False)["metrics"]
    source, rows = run.source("test"), run.rows("test", 60)
    keep = rows[source.arrays["label"][rows] >= 0]
    for name in ("elbo", "rate", "distortion_label", "accuracy", "coherence", "iw_2"):
        assert found[name]["n"] == len(keep)
    assert found["mse"]["n"] == 60
    from vae_jax.evaluation import evaluate

    alone = evaluate(run.model, run.restore(), [run.examples("test", keep)], key=jax.random.key(0), k=(2,)).metrics
    for name in ("elbo", "iw_2", "accuracy"):
        assert found[name]["value"] == pytest.approx(alone[name].value, rel=1e-5)


def test_a_diverged_model_is_not_passed_off_as_unlabeled(partly):
    _, runs = partly
    run = runs["m2"]
    from vae_jax.evaluation import evaluate

    state = jax.tree.map(lambda x: x, run.restore())
    state = dataclasses.replace(state, params=jax.tree.map(lambda x: x * np.nan, state.params))
    metrics = evaluate(run.model, state, run.batches("test", 60, 60), key=KEY).metrics
    assert np.isnan(metrics["elbo"].value)
    assert metrics["elbo"].n == 60 or np.isnan(metrics["elbo"].value)


def test_probes_and_clusters_read_known_labels_alone(partly):
    _, runs = partly
    found = vj.evaluate_run(runs["m2"], metrics=["knn", "probe_logistic", "clustering"], write=False)
    run = runs["m2"]
    known = int((run.source("test").arrays["label"][run.rows("test", 60)] >= 0).sum())
    train = int((run.source("train").arrays["label"] >= 0).sum())
    for name in ("knn", "probe_logistic"):
        assert found["metrics"][name]["n"] == known
        assert found["protocol"][name].startswith(f"learned from the mean codes of {train} labelled")
        assert f"{60 - known} of 60 examples have no known label" in found["protocol"][name]
    assert found["metrics"]["cluster_accuracy"]["n"] == known


def test_commands_name_no_class_for_what_is_unknown(partly, tmp_path, capsys):
    from vae_jax.pages.panels import _called

    _, runs = partly
    assert _called(-1, ("cat", "dog"), "label") == "unknown"
    line = refusal(vj.arithmetic, runs["m2"].path, from_=-1, to=3, split="train", n=2)
    assert "choose of 0, 1, 2" in line
    assert "-1, 0" not in line
    moved = vj.arithmetic(runs["m2"].path, from_=0, to=3, split="train", n=2)
    assert (runs["m2"].source("train").arrays["label"][moved.index] == 0).all()
    page = vj.report(runs["m2"].path, out=tmp_path / "page.html")
    assert page is not None


def test_prepared_folders_keep_unknown_labels(tmp_path):
    file = saved(tmp_path, images=IMAGES[:60], labels=PARTLY[:60])
    report = data.prepare("npz", file, str(tmp_path / "prepared"))
    for pipe in ("device", "grain"):
        source = data.load(DataConfig("npz", source=str(report.folder), pipeline=pipe, batch_size=4), "train")
        assert source.info.unlabeled
        assert len(source.labeled) == (labels.of(source) >= 0).sum()


def test_the_experiment_needs_no_network_and_no_file(tmp_path):
    from vae_jax.runs import experiments

    config = experiments.load(experiments.find("m2_unlabelled"))
    config = dataclasses.replace(config, steps=2, mesh=MeshConfig(data=1))
    source, spec = training.prepare(config)
    assert spec.classes == 10
    assert len(source.labeled) == -(-source.size // 10)
    run = vj.train_run(config, tmp_path / "run", quiet=True)
    assert json.loads((run.path / "config.json").read_text())["data"]["name"].endswith("Digits")
    assert Run.load(run.path).source("train").info.unlabeled


@pytest.mark.slow
def test_m2_learns_from_a_tenth_of_the_labels_as_with_data_labels(tmp_path):
    from vae_jax.runs import experiments

    config = experiments.load(experiments.find("m2_unlabelled"))
    config = dataclasses.replace(config, mesh=MeshConfig(data=1), evaluation=Evaluation(batch_size=60))
    few = dataclasses.replace(config, data=DataConfig("digits", batch_size=50, labels=162))
    found = []
    for name, each in (("a", config), ("b", few)):
        run = vj.train_run(each, tmp_path / name, quiet=True)
        found.append(vj.evaluate_run(run, write=False)["metrics"]["accuracy"]["value"])
    assert min(found) > 0.8
    assert abs(found[0] - found[1]) < 0.08
