"""Data of one kind given to an experiment for another: one refusal, which names the experiment to train instead."""

import numpy as np
import pytest
from PIL import Image

import vae_jax as vj
from vae_jax.cli import main
from vae_jax.cli.options import parse_config
from vae_jax.errors import InputError
from vae_jax.runs import experiments
from vae_jax.tasks import training

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with photos/ of mixed size, patients.csv, series.npy, cells.npz, and rows.npy [N, D]."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "photos").mkdir()
    for i in range(30):
        Image.fromarray(RNG.integers(0, 256, (20 + i, 30, 3), np.uint8)).save(folder / "photos" / f"{i}.png")
    (folder / "patients.csv").write_text("age,kind\n" + "".join(f"{i / 7},{'ab'[i % 2]}\n" for i in range(40)))
    np.save(folder / "series.npy", RNG.normal(size=(40, 12, 2)))
    np.savez(folder / "cells.npz", counts=RNG.poisson(3.0, (40, 6)))
    np.save(folder / "rows.npy", RNG.normal(size=(40, 5)))
    return folder


@pytest.mark.parametrize(
    ("experiment", "typed", "part", "start"),
    [
        ("own_images", "--data patients.csv", "data.augment", "own_table"),
        ("own_images", "--data series.npy", "data.augment", "own_series"),
        ("own_images", "--data cells.npz", "data.augment", "counts_simulated"),
        ("own_images", "--data.name table --data.source rows.npy", "data.augment", "own_table"),
        ("beta_vae", "--data series.npy", "the network broadcast", "own_series"),
        ("own_table", "--data photos", "the likelihood table", "own_images"),
        ("own_table", "--data series.npy", "the likelihood table", "own_series"),
        ("own_series", "--data cells.npz --model.likelihood table", "the likelihood table", "counts_simulated"),
        ("counts_simulated", "--data photos", "the likelihood negative-binomial", "own_images"),
        ("counts_simulated", "--data patients.csv", "the likelihood negative-binomial", "own_table"),
        ("vae_digits", "--data patients.csv", "the likelihood bernoulli", "own_table"),
        ("vampprior_mnist", "--data series.npy", "the prior vamp", "own_series"),
    ],
)
def test_one_refusal_names_the_experiment_for_these_data(own, monkeypatch, capsys, experiment, typed, part, start):
    monkeypatch.chdir(own)
    assert main.run(["train", experiment, *typed.split(), "--workdir", "never"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    words = typed.partition(" --model")[0]
    assert line.endswith(f", which {part} does not take; use `vae-jax train {start} {words}`")
    assert not (own / "never").exists()
    # The advice is followed: nothing else is refused. Few examples have small batches.
    config = parse_config(
        experiments.load(experiments.find(start)), [*words.split(), "--data.batch-size", "8"], "train"
    )
    assert training.prepare(config)[0].size > 20


def test_a_sweep_and_python_say_the_same(own, monkeypatch, capsys):
    monkeypatch.chdir(own)
    assert main.run(["sweep", "own_table", "--seeds", "0:2", "--data", "photos"]) == 2
    assert "use `vae-jax train own_images --data photos`\n" in capsys.readouterr().err
    said = 'holds a table, which data.augment does not take; use `vj.experiment("own_table", data="patients.csv")`'
    with pytest.raises(InputError, match="holds a table") as error:
        vj.train_run(vj.experiment("own_images", data="patients.csv"), "never")
    assert str(error.value) == f"data patients.csv: {said}"
    with pytest.raises(InputError) as error:
        vj.train_run(vj.experiment("own_images"), "never", data=np.load("series.npy"))
    assert str(error.value).endswith(
        'they are series, which data.augment does not take; use `vj.experiment("own_series")`'
    )
