"""Whatever the end of a run would refuse is refused before its first step, and the advice of each line works."""

import json

import numpy as np
import pytest
import support

from vae_jax.cli.main import run as cli
from vae_jax.tasks import training

SMALL = ["--model.network.hidden", "8", "--model.latent-dim", "2", "--steps", "2", "--data.batch-size", "8"]
SMALL += ["--evaluation.limit", "8", "--evaluation.k", "--quiet", "--mesh.data", "1", "--logging.tensorboard", "False"]


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr(training, "_figures", lambda run, state, step, *more: None)


def images(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8), np.uint8)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Returns name -> (options of a data set, the splits that it has)."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("data")
    made = {
        "digits": (["--data.name", "digits"], {"train", "validation", "test"}),
        "digits full": (["--data.name", "digits", "--data.protocol", "full"], {"train", "test"}),
    }
    parts = {"plain": (), "train": ("train",), "held": ("train", "validation"), "all": ("train", "validation", "test")}
    for name, splits in parts.items():
        file = folder / f"{name}.npz"
        np.savez(file, **{f"{split}_images": images(20) for split in splits} or {"images": images(20)})
        made[f"npz {name}"] = (["--data.name", "npz", "--data.source", str(file)], set(splits) or {"train", "test"})
        root = folder / name
        for split in splits or (".",):
            (root / split).mkdir(parents=True, exist_ok=True)
            for i, pixels in enumerate(images(20)):
                Image.fromarray(pixels).save(root / split / f"{i}.png")
        source = ["--data.name", "image_folder", "--data.source", str(root)]
        made[f"folder {name}"] = (source, set(splits) or {"train", "test"})
    return made


NAMES = ["digits", "digits full"]
NAMES += [f"{kind} {name}" for kind in ("npz", "folder") for name in ("plain", "train", "held", "all")]


@pytest.mark.parametrize("name", support.slow_but(("digits full", "npz plain", "npz all", "folder held"), NAMES))
def test_a_split_that_is_not_there_is_refused_before_the_first_step(sets, name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options, has = sets[name]
    for split in ("train", "validation", "test"):
        curve = "1" if "validation" in has else "0"
        words = ["train", "vae_digits", *options, *SMALL, "--evaluation.split", split, "--logging.eval-every", curve]
        if split in has:
            continue
        for command in (words, ["sweep", *words[1:], "--seeds", "0:2"]):
            assert cli(command) == 2
            err = capsys.readouterr().err
            assert f"evaluation.split: {options[1]!r} has no {split} split under protocol" in err
            assert err.count("\n") == 1
            assert list(tmp_path.iterdir()) == []
        advice, _, protocols = err.strip().partition("; use --evaluation.split ")[2].partition(", or ")
        assert set(advice.split(" or ")) == has
        advised = {"digits full": "standard", "npz plain": "held-out", "folder plain": "held-out"}.get(name)
        assert protocols == (f"--data.protocol {advised}" if advised else "")
    # The advice works to the end of the run, and each split that is there is evaluated.
    split = next(s for s in ("validation", "test", "train") if s in has)
    assert cli([*words, "--evaluation.split", split, "--workdir", "run"]) == 0
    assert json.loads((tmp_path / "run" / "eval.json").read_text())["split"] == split


def test_a_protocol_with_a_validation_split_is_offered():
    from vae_jax.data import DATASETS, DataConfig
    from vae_jax.data.source import Info, Source
    from vae_jax.errors import InputError, on_command_line
    from vae_jax.runs.config import Config, Evaluation
    from vae_jax.tasks import preflight

    tried = []

    def load(options, split):
        tried.append((options.protocol, split))
        if options.protocol == "vampprior":  # which needs another binarization
            raise InputError("data.binarize: does not fit")
        return source

    info = Info("mnist", (28, 28, 1), {"train": 60_000, "test": 10_000}, "standard", "")
    source = Source(info, "train", 60_000, {}, lambda a, i: {}, ())  # type: ignore[arg-type]
    config = Config(data=DataConfig("mnist"), evaluation=Evaluation("validation"))
    with on_command_line():
        said = str(preflight._no_split(config, source, load))
    assert tried == [(protocol, "validation") for protocol in DATASETS["mnist"].validated]
    protocols = " or ".join(name for name in DATASETS["mnist"].validated if name != "vampprior")
    assert said.endswith(f"use --evaluation.split test or train, or --data.protocol {protocols}")


def test_bounds_that_the_model_has_not(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", "vae_digits", *SMALL, "--model", "ae"]
    assert cli([*words, "--evaluation.k", "5"]) == 2
    err = capsys.readouterr().err
    assert "evaluation.k: 5 samples of a bound on log p(x), but this model does not have one (a point code" in err
    assert "write --evaluation.k without numbers" in err
    assert list(tmp_path.iterdir()) == []
    assert cli([*words, "--evaluation.k", "--workdir", "run"]) == 0


def test_a_held_out_split_that_the_likelihood_cannot_score(tmp_path, capsys, monkeypatch):
    """The training images keep clear of 0 and 1, a test image does not: its loss would be infinite."""
    monkeypatch.chdir(tmp_path)
    inside = np.random.default_rng(0).uniform(0.1, 0.9, (20, 8, 8)).astype(np.float32)
    outside = inside.copy()
    outside[3, 4, 5] = 1.0
    np.savez("x.npz", train_images=inside, test_images=outside)
    words = [
        "train",
        "vae_digits",
        "--data.name",
        "npz",
        "--data.source",
        "x.npz",
        "--model.likelihood",
        "beta",
        *SMALL,
    ]
    assert cli(words) == 2
    assert "values of exactly 0 or 1 were seen, but the beta likelihood takes (0, 1)" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("mig", "--metrics: mig: needs generative factors, which the data set 'digits' does not provide; leave it out"),
        ("disentanglement", "needs generative factors, which the data set 'digits' does not provide; leave it out"),
        ("udr", "--metrics: udr: compares several runs, which `vae-jax eval RUN --others RUN ...` names; leave"),
        (
            "anomaly",
            "--metrics: anomaly: needs another data set, which `vae-jax eval RUN --outliers DATA` names; leave",
        ),
    ],
)
def test_metrics_that_no_member_of_a_sweep_can_have(tmp_path, capsys, monkeypatch, metric, said):
    monkeypatch.chdir(tmp_path)
    words = ["sweep", "vae_digits", *SMALL, "--seeds", "0:2"]
    assert cli([*words, "--metrics", f"elbo,{metric}"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_bounds_of_a_sweep_of_autoencoders(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["sweep", "vae_digits", *SMALL, "--model", "ae", "--seeds", "0"]
    assert cli([*words, "--metrics", "mse,iwae"]) == 2
    assert (
        "--metrics: iwae: needs a bound on log p(x) (no point code, and a normalized likelihood), which"
        in capsys.readouterr().err
    )
    assert cli([*words, "--metrics", "mse"]) == 0  # as the line says


def test_the_range_is_that_of_all_images():
    from vae_jax.data.source import Info, from_arrays
    from vae_jax.runs.run import data_range

    pixels = np.full((12_000, 1, 1, 1), 0.5, np.float32)
    pixels[11_000] = 1.0
    source = from_arrays(Info("npz", (1, 1, 1), {"train": 12_000}, "full", ""), "train", {"image": pixels})
    assert data_range(source) == (0.5, 1.0)
