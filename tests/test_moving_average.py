"""The moving average is what every measure and every command reads: runs whose last weights are all NaN work.

Nothing may read `state.params` after training. A number or a picture made of the last weights would be NaN here, and
the protocol that goes with it says which weights it is of.
"""

import base64
import dataclasses
import io
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from PIL import Image

from vae_jax.cli.main import run as cli
from vae_jax.data.config import DataConfig
from vae_jax.evaluation import METRICS, measures
from vae_jax.models import M2, VAE, Classifier, Multimodal
from vae_jax.models.condition import Condition
from vae_jax.networks import MLP
from vae_jax.priors import LearnedNormal
from vae_jax.runs.config import Config, Evaluation, Logging
from vae_jax.runs.run import Run
from vae_jax.runs.training_data import spec_of
from vae_jax.tasks import training
from vae_jax.tasks.held_out import HeldOut
from vae_jax.tasks.measuring import evaluate_run
from vae_jax.tasks.sweeps import run as sweeps_run
from vae_jax.train import MeshConfig
from vae_jax.train.metrics import MetricsWriter

DECAY = 0.75
SMALL = MLP((8,))
MODELS = {
    "vae": VAE(2, SMALL, prior=LearnedNormal()),  # a prior with parameters, so that NaN in them shows
    "other": VAE(2, SMALL),
    "conditional": VAE(2, SMALL, condition=Condition("label")),
    "classifier": Classifier(2, SMALL),
    "multimodal": Multimodal(2, SMALL),
    "m2": M2(2, SMALL),  # whose features are classes that its parameters guess
}
# A few images and steps of everything: what is measured does not matter here, only that it is measured on good weights.
QUICK = {"k": (3,), "chains": 2, "temperatures": 3, "leapfrog": 1, "local_steps": 2, "local_samples": 1}
QUICK |= {"samples": 20, "outlier_k": 2, "regret_steps": 2, "points": 30, "bins": 4}


def data_file(folder):
    """Writes 8x8 images that three factors determine, and returns the file; its test images are 40."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 120), ("test", 40)):
        factors = rng.integers((3, 4, 2), size=(n, 3))
        rows, columns = np.mgrid[:8, :8]
        light = np.exp(-((rows - 2 - factors[:, 0, None, None]) ** 2 + (columns - 2 - factors[:, 1, None, None]) ** 2))
        images = (0.5 + 0.5 * factors[:, 2, None, None]) * light
        arrays |= {f"{part}_images": (255 * images).astype(np.uint8)[..., None]}
        arrays |= {f"{part}_labels": factors[:, 0], f"{part}_factors": factors}
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Returns run folders whose parameters are NaN and whose moving average is good."""
    folder = tmp_path_factory.mktemp("runs")
    data = DataConfig("npz", source=str(data_file(folder)), batch_size=8, binarize="threshold")
    evaluation = Evaluation(batch_size=20, limit=40)
    base = Config(4, data=data, ema_decay=DECAY, evaluation=evaluation, logging=Logging(1), mesh=MeshConfig(data=1))
    made = {}
    for seed, (name, model) in enumerate(MODELS.items()):
        config = dataclasses.replace(base, seed=seed, model=model)
        source = training.prepare(config)[0]
        run = Run.create(folder / name, name, config, spec_of(source))
        start = run.init()
        support.checkpoint(run, state=dataclasses.replace(start, params=jax.tree.map(nan_like, start.params)))
        line = {"step": 4, "split": "train", "elbo": -40.0, "distortion": 39.0, "rate": 1.0, "beta": 1.0}
        (run.path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        made[name] = run
    return made


def nan_like(x: jax.Array) -> jax.Array:
    return jnp.full_like(x, jnp.nan)


def assert_finite(result, name: str) -> None:
    """Checks every number of the eval.json of a run, where one that is not finite is null."""
    for key, metric in result["metrics"].items():
        assert isinstance(metric["value"], int | float), key
    assert result["latents"].keys() == {"kl_per_dim", "variance_of_mean"}
    for key, values in result["latents"].items():
        if (name, key) == ("classifier", "kl_per_dim"):  # which has features, and no posterior
            assert values is None, key
        else:
            assert [type(value) for value in values] == [float, float], key


def arrays(path) -> dict[str, np.ndarray]:
    with np.load(path) as held:
        return {name: held[name] for name in held.files}


def assert_no_nan_pixels(data: bytes) -> None:
    """Pixels that are NaN are drawn in magenta."""
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert not (pixels == [255, 0, 255]).all(-1).any()


# `log_prob` belongs to baselines, which have no weights; bounds stand for `iw_<k>`; not every model has levels.
STANDARD = [name for name in METRICS if name not in ("iw_<k>", "log_prob", "kl/<level>")]
HOLDERS = {"accuracy": "classifier", "distortion_label": "multimodal", "coherence": "multimodal"}


def requests() -> list:
    """Returns what is requested: metrics of the standard evaluation and groups of measures, the members of one of which
    are measured together; alone they are slow."""
    names = [*STANDARD, "iwae", "iw_7", *measures.names()]
    made = {name: measures.expand((name,)) for name in dict.fromkeys(names)}
    together = {member for found in made.values() if len(found) > 1 for member in found}
    seen, params = set(), []
    for name, found in made.items():
        # The standard metrics of a run are made in one pass, whichever is requested.
        key = (found, HOLDERS.get(name), name in ("iwae", "iw_7"))
        again = key in seen or (len(found) == 1 and found[0] in together)
        params.append(pytest.param(name, marks=pytest.mark.slow if again else []))
        seen.add(key)
    return params


@pytest.mark.parametrize("metric", requests())
def test_measure(runs, metric):
    files = {"outliers": str(runs["vae"].config.data.source), "features": str(runs["classifier"].path)}
    read = {option for name in measures.expand((metric,)) for option in measures.MEASURES[name].reads}
    settings = {option: value for option, value in (QUICK | files).items() if option in read - {"k"}}
    k = QUICK["k"] if metric == "iwae" or "k" in read else None
    others = (runs["other"],) if "others" in read else ()
    name = HOLDERS.get(metric, "vae")
    run = runs[name]
    result = evaluate_run(run, metrics=(metric,), k=k, settings=settings, others=others, write=False)
    assert "refused" not in result
    assert result["metrics"]
    assert_finite(result, name)
    assert result["protocol"]["weights"] == f"moving average, decay {DECAY}"
    assert result["protocol"]["n"] == 40


# Command -> (run, its options); each writes {out}, arrays that must all be finite.
COMMANDS = {
    "sample": ("vae", "--n 9"),
    "sample a draw": ("vae", "--n 9 --pixels sample"),
    "sample a class": ("conditional", "--n 9 --label 1"),
    "sample of a classifier": ("classifier", "--n 9"),
    "reconstruct": ("vae", "--n 9"),
    "reconstruct a conditional": ("conditional", "--n 9"),
    "interpolate": ("vae", "--steps 3"),
    "interpolate a conditional": ("conditional", "--steps 3"),
    "traverse": ("vae", "--steps 3"),
    "traverse by quantiles": ("vae", "--steps 3 --quantiles True"),
    "arithmetic": ("vae", "--from 0 --to 2 --n 3"),
    "encode": ("vae", "--input {data} --draw True"),
    "encode a conditional": ("conditional", "--input {data}"),
    "encode of m2": ("m2", "--input {data}"),
    "reconstruct of m2": ("m2", "--n 9"),
    "decode": ("vae", "--input {codes}"),
    "decode a class": ("conditional", "--input {codes} --label 2"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_command(runs, tmp_path, command):
    np.savez(tmp_path / "codes.npz", mean=np.eye(3, 2, dtype=np.float32))
    name, options = COMMANDS[command]
    options = options.format(data=runs["vae"].config.data.source, codes=tmp_path / "codes.npz")
    out = tmp_path / "out.npz"
    assert cli([command.split()[0], str(runs[name].path), *options.split(), "--out", str(out)]) == 0
    held = arrays(out)
    for array, values in held.items():
        assert np.isfinite(values).all(), array
    assert np.ptp(held.get("images", held.get("mean"))) > 0  # a draw with probability NaN is a blank image


def test_eval_writes_which_weights_it_measured(runs, tmp_path, capsys):
    out = tmp_path / "eval.json"
    assert cli(["eval", str(runs["vae"].path), "--k", "3", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert_finite(result, "vae")
    assert result["protocol"]["weights"] == f"moving average, decay {DECAY}"
    assert f"moving average, decay {DECAY} weights" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["gmm", "flow", "two-stage"])
def test_fit_prior_and_samples_from_it(runs, tmp_path, kind):
    run = str(runs["vae"].path)
    options = ["--kind", kind, *(("--components", "2") if kind == "gmm" else ("--steps", "3"))]
    assert cli(["fit-prior", run, *options, "--out", str(tmp_path)]) == 0
    about = json.loads((tmp_path / f"{kind}.json").read_text())
    for part in ("train", "held_out"):
        assert isinstance(about["log_density"][part]["value"], float)
    fitted = ["--prior", str(tmp_path / f"{kind}.json")]
    assert cli(["sample", run, "--n", "9", *fitted, "--out", str(tmp_path / "out.npz")]) == 0
    assert np.isfinite(arrays(tmp_path / "out.npz")["images"]).all()


@pytest.mark.parametrize("name", ["vae", "conditional", "classifier", "multimodal"])
def test_report(runs, tmp_path, name):
    out = tmp_path / "report.html"
    assert cli(["report", str(runs[name].path), "--out", str(out)]) == 0
    text = out.read_text()
    assert f"moving average, decay {DECAY}" in text
    assert "not finite" not in text
    pictures = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", text)
    assert len(pictures) >= 3
    for picture in pictures:
        assert_no_nan_pixels(base64.b64decode(picture))


@pytest.mark.parametrize("name", ["vae", "conditional"])
def test_figures_of_training(runs, name, figures_of_training):
    run = runs[name]
    training._figures(run, run.restore(), 4)
    drawn = {path.stem: path.read_bytes() for path in (run.path / "figures").glob("*.png")}
    assert drawn.keys() >= {"samples", "reconstructions", "traversals", "kl_per_dim", "manifold"}
    for data in drawn.values():
        assert_no_nan_pixels(data)


def test_evaluation_during_training(runs, tmp_path):
    run, writer = runs["vae"], MetricsWriter(tmp_path, tensorboard=False)
    HeldOut(run, "test", writer, lambda state: None, print).measure(run.restore(), 4)
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert {"elbo", "mse", "active_units"} <= line.keys()
    assert None not in line.values()


EXPERIMENT = f"""
from vae_jax.runs.config import Config
from vae_jax.data.config import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP

def get_config():
    return Config(2, data=DataConfig("digits", batch_size=8), model=VAE(2, MLP((8,))), ema_decay={DECAY})
"""


def test_members_of_a_sweep_are_measured_on_their_moving_average(runs, tmp_path, monkeypatch):
    """The states come from the population, not from checkpoints: here with NaN in place of the last weights."""
    real = sweeps_run.train_group

    def spoiled(*args, **options):
        trained = real(*args, **options)
        states = [dataclasses.replace(s, params=jax.tree.map(nan_like, s.params)) for s in trained.states]
        return dataclasses.replace(trained, states=states)

    monkeypatch.setattr(sweeps_run, "train_group", spoiled)
    experiment = tmp_path / "mine.py"
    experiment.write_text(EXPERIMENT)
    words = ["--seeds", "0:2", "--smoke", "--quiet", "--mesh.data", "1", "--metrics", "elbo,knn"]
    assert cli(["sweep", str(experiment), *words, "--workdir", str(tmp_path / "sweep")]) == 0
    members = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["members"]
    assert len(members) == 2
    for member in members:
        assert all(isinstance(metric["value"], int | float) for metric in member["metrics"].values())
        held = json.loads((tmp_path / "sweep" / member["name"] / "eval.json").read_text())
        assert held["protocol"]["weights"] == f"moving average, decay {DECAY}"


def test_classes_of_images_without_labels_are_guessed_by_the_average(runs, tmp_path):
    """NaN in the parameters does not show in a class: its number is finite, and wrong."""
    run = runs["m2"]
    images = run.examples("test", np.arange(40))["x"]
    np.save(tmp_path / "images.npy", images)
    out = tmp_path / "codes.npz"
    assert cli(["encode", str(run.path), "--input", str(tmp_path / "images.npy"), "--out", str(out)]) == 0
    state = run.restore()
    want = np.asarray(run.model.condition.features(state.ema, state.model_state, {"x": jnp.asarray(images)}))
    assert want.argmax(-1).any()  # what NaN gives is class 0
    np.testing.assert_array_equal(arrays(out)["cond"], want)
