"""Run folders that somebody edited, and data that changed after training: one line that names what."""

import json
import shutil

import numpy as np
import pytest
import support
from test_cli_look import config, make, snapshot

from vae_jax import data
from vae_jax.cli.main import run as cli
from vae_jax.data.config import DataConfig
from vae_jax.data.fingerprint import fingerprint
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.runs.config import Config, Evaluation, Logging
from vae_jax.runs.run import Run
from vae_jax.runs.training_data import spec_of

COMMANDS = {
    "eval": [],
    "sample": [],
    "reconstruct": [],
    "interpolate": [],
    "traverse": [],
    "encode": ["--input", "digits", "--out", "{out}/c.npz"],
    "decode": ["--input", "none.npz", "--out", "{out}/x.npz"],
    "fit-prior": [],
    "arithmetic": ["--from", "3", "--to", "8"],
    "report": [],
    "compare": ["{whole}"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("runs") / "run", config(VAE(3, MLP((8,)))))


def put(option, value):
    """Returns an edit that sets one entry of config.json; `...` deletes it."""

    def edit(values):
        *path, last = option.split(".")
        held = values
        for key in path:
            held = held[key]
        if value is ...:
            del held[last]
        else:
            held[last] = value
        return values

    return edit


EDITS = [
    (put("model.latent_dim", 0), "model.latent_dim: 0 is out of range; it must be 1 or more", 3),
    (put("model.latent_dim", None), "model.latent_dim: null is nothing, but it must be a whole number; write 10", 3),
    (put("model.latent_dim", "3"), 'latent_dim: "3" is text, but it must be a whole number; write 3 without quotes', 3),
    (put("model.latent_dim", 3.0), "model.latent_dim: 3.0 is a real number, but it must be a whole number; write 3", 3),
    (put("model.latent_dim", True), "latent_dim: true is a truth value, but it must be a whole number; write 1", 3),
    (put("model.latent_dim", ...), "model.latent_dim is missing; restore the file, or train again", 3),
    (put("optimizer.lr", "0.5"), 'optimizer.lr: "0.5" is text, but it must be a number; write 0.5 without quotes', 0.5),
    (put("optimizer.lr", 0), "optimizer.lr: 0.0 is out of range; it must be positive", 0.5),
    (put("optimizer.lr", float("inf")), "optimizer.lr: inf is not a number that can be used", 0.5),
    (put("data.dequantize", "False"), "but it must be true or false; write false without quotes", False),
    (put("data.binarize", "dynamc"), 'data.binarize: "dynamc" is text, but it must be one of', "none"),
    (
        put("model.network.hidden", 8),
        "model.network.hidden: 8 is a whole number, but it must be a list of whole numbers; write [8]",
        [8],
    ),
    (put("model.network.hidden", [8, "9"]), 'model.network.hidden[1]: "9" is text', [8]),
    (
        put("model.network.kind", "mlpp"),
        "model.network.kind: 'mlpp' is not the name of one; did you mean 'mlp'?",
        "mlp",
    ),
    (put("model.kind", ["vae"]), "model.kind: ['vae'] is not the name of one; ", "vae"),
    (put("model.network.kind", ...), "model.network.kind: None is not the name of one", "mlp"),
    (put("model.latent", 3), "model.latent: no such option; did you mean 'latent_dim'?", ...),
    (put("stepz", 3), "stepz: no such option; did you mean 'steps'?", ...),
    (
        put("data_spec.x.shape", [8, 8]),
        "data_spec.x.shape: [8, 8] is not [height, width, channels] of the training images",
        [8, 8, 1],
    ),
    (put("data_spec.x.shape", [8, 0, 1]), "data_spec.x.shape: [8, 0, 1] is not [height, width, channels]", [8, 8, 1]),
    (put("data_spec.x.shape", "8x8"), 'data_spec.x.shape: "8x8" is not [height, width, channels]', [8, 8, 1]),
    (put("data_spec.x.kind", "picture"), 'data_spec.x.kind: "picture" is text, but it must be one of', "image"),
    (put("data_spec.x.dtyp", "float32"), "data_spec.x.dtyp: no such entry; did you mean 'dtype'?", ...),
    (put("image_shape", [8, 8, 1]), "image_shape: describes the data, and so does data_spec; remove it", ...),
    (put("facts", {}), "facts: describes the data, and so does data_spec; remove it", ...),
    (put("experiment", 3), 'experiment: 3 is a whole number, but it must be text; write "custom", for example', "x"),
    (put("data_spec.exampels", 3), "data_spec.exampels: no such fact; did you mean 'examples'?", ...),
    (put("data_spec.factors", [2.5]), "data_spec.factors[0]: 2.5 is a real number, but it must be a whole number", []),
    (put("data_spec.classes", -1), "data_spec.classes: -1 is out of range; it must be 0 or more", 0),
    (put("data_spec", [1]), "data_spec: [1] is a list, but it must be an object", {"x": {"shape": [8, 8, 1]}}),
    (put("data_sha256", "abc"), "data_sha256: 'abc' is not a SHA-256 of 64 digits", ...),
    (
        put("expected", {"elbo": [1]}),
        "expected: elbo: give (value, tolerance of 0 or more, source)",
        {"elbo": [1, 1, "x"]},
    ),
]
WHOLE = [
    (lambda values: [values], "holds a list, not the options of a run; restore it, or train again"),
    (lambda values: None, "holds a NoneType, not the options of a run"),
    (put("model", ...), "model is missing"),
    (put("data_spec", ...), "data_spec is missing; restore the file, or train again"),
    (put("data", None), "data: null is nothing, but it must be an object"),
    (put("model.network", "mlp"), 'model.network: "mlp" is text, but it must be a network; write {"kind": "mlp"}'),
    (put("model", 3), 'model: 3 is a whole number, but it must be a model; write {"kind": "vae"}'),
]


def edited(made, folder, edit):
    path = shutil.copytree(made, folder / "edited")
    file = path / "config.json"
    file.write_text(json.dumps(edit(json.loads(file.read_text()))))
    return path


@pytest.mark.parametrize(
    ("edit", "said", "right"), [*EDITS, *((*e, None) for e in WHOLE)], ids=lambda v: "" if callable(v) else str(v)[:40]
)
def test_an_edited_config_is_one_line_and_can_be_mended(made, tmp_path, capsys, edit, said, right):
    path = edited(made, tmp_path, edit)
    before = snapshot(path)
    assert cli(["sample", str(path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"vae-jax: {path}/config.json: ")
    assert said in err
    assert err.count("\n") == 1
    assert snapshot(path) == before
    if right is not None:  # what the line says to write, or a value of that form, opens the run
        option = edit.__closure__[0].cell_contents
        file = path / "config.json"
        file.write_text(json.dumps(put(option, right)(json.loads(file.read_text()))))
        Run.load(path)


OLD = [
    (put("image_shape", [8, 8]), "image_shape: [8, 8] is not [height, width, channels]", [8, 8, 1]),
    (put("facts.exampels", 3), "facts.exampels: no such fact; did you mean 'examples'?", ...),
    (put("facts", [1]), "facts: [1] is a list, but it must be an object", {}),
]


@pytest.mark.parametrize(("edit", "said", "right"), OLD)
def test_an_edited_config_of_before_the_data_spec(made, tmp_path, capsys, edit, said, right):
    def old(values):
        spec = values.pop("data_spec")
        facts = {name: spec[name] for name in ("examples", "classes", "factors", "cond", "label_names")}
        return edit(values | {"image_shape": spec["x"]["shape"], "facts": facts})

    path = edited(made, tmp_path, old)
    assert cli(["sample", str(path)]) == 2
    assert said in capsys.readouterr().err
    file = path / "config.json"
    file.write_text(json.dumps(put(edit.__closure__[0].cell_contents, right)(json.loads(file.read_text()))))
    Run.load(path)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_so(made, tmp_path, capsys, command):
    path = edited(made, tmp_path, put("model.latent_dim", "3"))
    words = [w.format(out=tmp_path, whole=made) for w in COMMANDS[command]]
    before = snapshot(path)
    assert cli([command, str(path), *words]) == 2
    err = capsys.readouterr().err
    assert f'{path}/config.json: model.latent_dim: "3" is text' in err
    assert err.count("\n") == 1
    assert snapshot(path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["edited"]


def test_bytes_that_are_no_json(made, tmp_path, capsys):
    path = shutil.copytree(made, tmp_path / "edited")
    for text in (b"", b'{"steps": 4', b"\xff\xfe"):
        (path / "config.json").write_bytes(text)
        assert cli(["eval", str(path)]) == 2
        err = capsys.readouterr().err
        assert f"{path}/config.json: cannot be read (" in err
        assert err.count("\n") == 1


# --- data that changed


def arrays(n, side=6, classes=2, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return {"images": rng.integers(0, 256, (n, side, side), np.uint8), "labels": labels}


@pytest.fixture
def trained(tmp_path):
    """Returns (run folder, its data file) of a model of 40 labeled images."""
    file = tmp_path / "x.npz"
    np.savez(file, **arrays(40))
    c = Config(
        2,
        data=DataConfig("npz", str(file), batch_size=32),
        model=VAE(2, MLP((8,))),
        evaluation=Evaluation(batch_size=8),
        logging=Logging(1),
    )
    source = data.load(c.data, "train")
    sha256 = fingerprint(source)
    run = Run.create(tmp_path / "run", "mine", c, spec_of(source), data_sha256=sha256)
    support.checkpoint(run)
    return run.path, file


# Commands that read the data of a run, as they fit four test images.
LOOKING = {
    "eval": [],
    "reconstruct": ["--n", "4"],
    "interpolate": ["--indices", "0", "1"],
    "traverse": [],
    "report": [],
    "fit-prior": ["--components", "2"],
    "arithmetic": ["--from", "0", "--to", "1", "--n", "1"],
    "encode": ["--input", "npz", "--out", "{out}/c.npz"],
}


@pytest.mark.parametrize("command", LOOKING)
def test_data_of_another_form_are_refused_by_name(trained, capsys, command):
    path, file = trained
    words = [w.format(out=path.parent) for w in LOOKING[command]]
    before = snapshot(path)
    np.savez(file, **arrays(40, side=7))
    assert cli([command, str(path), *words]) == 2
    err = capsys.readouterr().err
    if command == "encode":
        assert "images are 7x7 with 1 channel" in err
    else:
        assert err == (
            f"vae-jax: {path}: was trained on 6x6x1 images with 2 classes, but the data ({file}) are now 7x7x1 images "
            "with 2 classes; restore those data, or train again on these\n"
        )
    assert snapshot(path) == before
    np.savez(file, **arrays(40))
    assert cli([command, str(path), *words]) == 0


def test_other_classes_and_no_labels_are_other_data(trained, capsys):
    path, file = trained
    for change, said in (
        (arrays(40, classes=3), "6x6x1 images with 3 classes"),
        ({"images": arrays(40)["images"]}, "now 6x6x1 images;"),
    ):
        np.savez(file, **change)
        assert cli(["eval", str(path)]) == 2
        assert said in capsys.readouterr().err


def test_more_data_of_the_same_form_are_measured_and_said(trained, capsys):
    path, file = trained
    assert cli(["eval", str(path)]) == 0
    assert "data_now" not in json.loads((path / "eval.json").read_text())["protocol"]
    np.savez(file, **arrays(80))
    assert cli(["eval", str(path), "--metrics", "mse"]) == 0
    run, old = Run.load(path), json.loads((path / "config.json").read_text())["data_sha256"]
    now, new = run.source("train").size, fingerprint(run.source("train"))
    text = (
        f"{now} training examples, {run.spec.examples} when the run was trained; other training data than the run was "
        f"trained on (SHA-256 {new[:12]} now, {old[:12]} then)"
    )
    assert f"data: {text}" in " ".join(capsys.readouterr().out.split())
    values = json.loads((path / "eval.json").read_text())
    assert values["metrics"]["mse"]["n"] == 80 - now
    assert values["protocol"]["data_now"] == text
    assert values["metrics"]["elbo"]["protocol"].keys() == {"data_now", "data_sha256"}, "of another test split"


def test_replaced_data_of_the_same_form_and_number_are_said(trained, capsys):
    path, file = trained
    held = np.load(file)
    images = held["images"].copy()
    run = Run.load(path)
    # A pixel of a training image; the test split is the same.
    train = run.source("train").arrays["image"]
    row = next(i for i in range(40) if np.array_equal(images[i], train[0].reshape(6, 6)))
    options = {"images": images, "labels": held["labels"]}
    images[row, 0, 0] ^= 1
    np.savez(file, **options)
    assert cli(["eval", str(path), "--metrics", "mse"]) == 0
    said = json.loads((path / "eval.json").read_text())["protocol"]["data_now"]
    assert said.endswith(f", {run.data_sha256[:12]} then)")
    assert "other training data than the run was trained on (SHA-256 " in said


@pytest.mark.parametrize("known", [True, False], ids=["hash", "count"])
def test_changed_data_that_were_split_by_row_are_not_measured_as_held_out(trained, capsys, known):
    path, file = trained
    values = json.loads((path / "config.json").read_text())
    values["data"]["protocol"] = "random-tenth"
    source = data.load(DataConfig("npz", str(file), batch_size=1, protocol="random-tenth"), "train")
    values["data_spec"]["examples"], values["data_sha256"] = source.size, fingerprint(source)
    if not known:  # as version 0.1 wrote it
        del values["data_sha256"]
        values["data"]["protocol"] = "standard"
    (path / "config.json").write_text(json.dumps(values))
    before = snapshot(path)
    np.savez(file, **(arrays(40, seed=1) if known else arrays(50)))
    assert cli(["eval", str(path)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith(f"vae-jax: {path}: its data ({file}) changed since training (")
    assert "(SHA-256 " in err if known else "(45 training examples, 36 when the run was trained)" in err
    assert err.endswith("may now be in the test split; restore those data, or train again on these\n")
    assert snapshot(path) == before
    assert cli(["eval", str(path), "--split", "train"]) == 0
    np.savez(file, **arrays(40))
    assert cli(["eval", str(path)]) == 0  # as the line says


def test_a_limit_does_not_hide_that_data_were_split_by_row(trained, capsys):
    path, file = trained
    values = json.loads((path / "config.json").read_text())
    values["data"] |= {"protocol": "random-tenth", "limit": 20}
    options = DataConfig("npz", str(file), batch_size=1, protocol="random-tenth", limit=20)
    source = data.load(options, "train")
    values["data_spec"]["examples"], values["data_sha256"] = source.size, fingerprint(source)
    (path / "config.json").write_text(json.dumps(values))
    assert cli(["eval", str(path)]) == 0
    np.savez(file, **arrays(50))
    capsys.readouterr()
    assert cli(["eval", str(path)]) == 2
    assert "protocol random-tenth splits them by row number" in capsys.readouterr().err


def test_fewer_data_than_a_batch_are_measured_and_none_are_named(trained, capsys):
    path, file = trained
    np.savez(file, **arrays(20))
    assert cli(["eval", str(path)]) == 0
    capsys.readouterr()
    file.unlink()
    assert cli(["eval", str(path)]) == 2
    err = capsys.readouterr().err
    assert f"{path}: its data cannot be loaded as they were in training; restore them (data.source: no file" in err
    assert err.count("\n") == 1


def test_a_split_that_the_data_have_not(trained, capsys):
    path, _ = trained
    assert cli(["eval", str(path), "--split", "validation"]) == 2
    assert capsys.readouterr().err == (
        f"vae-jax: --split validation: the data of {path} have no such split; use --split test or train\n"
    )
    for split in ("test", "train"):
        assert cli(["eval", str(path), "--split", split]) == 0
