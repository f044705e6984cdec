"""What a user types under another name: each message names the neighbor that is meant, and following it works."""

import re
import shlex

import numpy as np
import pytest

from vae_jax import spec
from vae_jax.cli import main
from vae_jax.cli.options import parse_config
from vae_jax.errors import InputError, nearest, shown
from vae_jax.runs import experiments as index
from vae_jax.runs.config import Config, get
from vae_jax.runs.run import Run

GOOD = "from vae_jax.runs.config import Config\n\n\ndef get_config():\n    return Config()\n"


def _refused(capsys, *argv: str) -> str:
    assert main.run(list(argv)) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("vae-jax: ")
    return err


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Options


@pytest.mark.parametrize(
    ("experiment", "typed", "meant"),
    [
        ("beta_vae", "--beta 4", "--model.objective.beta"),
        ("vae_digits", "--lr 1e-3", "--optimizer.lr"),
        ("vae_digits", "--learning-rate 1e-3", "--optimizer.lr"),
        ("vae_digits", "--batch-size 32", "--data.batch-size"),
        ("vae_digits", "--batch_size 32", "--data.batch-size"),
        ("vae_digits", "--bs 32", "--data.batch-size"),
        ("vae_digits", "--latent-dim 3", "--model.latent-dim"),
        ("vae_digits", "--z-dim 3", "--model.latent-dim"),
        ("vae_digits", "--hidden 16", "--model.network.hidden"),
        ("vae_digits", "--iterations 7", "--steps"),
        ("vae_digits", "--num-workers 2", "--data.workers"),
        ("vae_digits", "--binarize none", "--data.binarize"),
    ],
)
def test_a_short_name_is_the_option_that_ends_so(capsys, experiment, typed, meant):
    option, value = typed.split()
    line = _refused(capsys, "train", experiment, option, value)
    assert f"{option}: no such option; did you mean '{meant}'?" in line
    parse_config(index.load(index.find(experiment)), [meant, value], "train")  # is read


def test_other_options_that_end_so_are_named_too(capsys):
    assert "'--optimizer.lr'? (or --critic-optimizer.lr)" in _refused(capsys, "train", "vae_digits", "--lr", "1")


@pytest.mark.parametrize(
    ("typed", "option", "component", "value"),
    [
        ("--beta 4", "model.objective", "beta", "4"),
        ("--kl-weight 4", "model.objective", "beta", "4"),
        ("--model.objective.beta 4", "model.objective", "beta", "4"),
        ("--free-nats 2", "model.objective", "free-bits", "2"),
        ("--cycles 2", "model.objective.schedule", "cyclical", "2"),
        ("--pseudo-inputs 9", "model.prior", "vamp", "9"),
    ],
)
def test_an_option_of_a_component_that_was_not_chosen(capsys, typed, option, component, value):
    line = _refused(capsys, "train", "vae_digits", *typed.split())
    words = re.search(r"; use (--.*?)( \(|$)", line)[1].split()
    field = words[2].removeprefix("--")
    assert words[:2] == [f"--{option}", component]
    config = parse_config(index.load(index.find("vae_digits")), words, "train")
    assert str(float(get(config, field.replace("-", "_")))) == str(float(value))


def test_an_option_of_an_absent_part_is_not_offered(capsys):
    """An autoencoder has no posterior: options inside of one cannot be followed."""
    line = _refused(capsys, "train", "ae_mnist", "--anneal-steps", "5")
    assert "--model.posterior" not in line


@pytest.mark.parametrize(
    ("typed", "meant"), [("--dataset", "--data"), ("--data-dir", "--data"), ("--output-dir", "--workdir")]
)
def test_options_that_are_outside_of_the_config(capsys, typed, meant):
    assert f"did you mean '{meant}'?" in _refused(capsys, "train", "vae_digits", typed, "x")


def test_options_of_other_commands_and_values(capsys):
    assert "known: batch-size, draw, input, out, seed, split, step" in _refused(capsys, "encode", "--lr", "3")
    line = _refused(capsys, "train", "vae_digits", "--data.pipeline", "devic")
    assert "--data.pipeline: 'devic' is not one of its values; did you mean 'device'?" in line
    line = _refused(capsys, "train", "vae_digits", "--data.pipeline", "zzz")
    assert "'zzz' is not one of its values; known: auto, device, grain" in line


# Commands, lists, metrics


def test_help_is_a_command(capsys):
    assert main.run(["help"]) == 0
    assert capsys.readouterr().out.startswith("usage: vae-jax COMMAND")
    assert main.run(["help", "sweep"]) == 0
    assert capsys.readouterr().out.startswith("usage: vae-jax sweep EXP")
    assert "did you mean 'train'?" in _refused(capsys, "help", "trian")


def test_a_list_in_the_singular(capsys):
    assert "list: no kind 'metric'; did you mean 'metrics'?" in _refused(capsys, "list", "metric")
    assert "did you mean 'experiments'?" in _refused(capsys, "list", "experiment")
    assert main.run(["list", "metrics"]) == 0


def test_metrics_by_the_names_of_other_libraries():
    from vae_jax.evaluation import other_names
    from vae_jax.evaluation.settings import Settings
    from vae_jax.tasks.measuring import check_names

    with pytest.raises(InputError, match=r"no metric 'fid'; use metrics frechet_distance, with features FILE"):
        check_names(("fid",))
    with pytest.raises(InputError, match=r"no metric 'ratee'; did you mean 'rate'\?"):
        check_names(("ratee",))
    for words in other_names._NAMES.values():  # every metric that is offered exists, and every option
        names = re.search(r"--metrics (\w+)", words)[1]
        check_names((names,))
        for option in set(re.findall(r"--(\w+)", words)) - {"metrics"}:
            assert hasattr(Settings(), option)


def test_nearest_prints_few_names():
    known = [f"name_{i}" for i in range(59)]
    assert nearest("nam_7", known) == "did you mean 'name_7'?"
    assert nearest("zzz", known) == "known are name_0, name_1, name_10, name_11, name_12, ..."
    assert nearest("e_e_e_1", ["a_b_c_1", "a_1_c_d", *(f"{i:05}" for i in range(20))]).count(",") <= 4
    assert nearest("zzz", ("vmap", "map")) == "known: map, vmap"


def test_names_are_shown_in_one_line():
    assert shown("a\nb\x1b[1m\u202e c ä\udcff") == "a\\nb\\x1b[1m\\u202e c ä\\udcff"


# Experiments


def test_data_in_place_of_an_experiment(empty, capsys):
    (empty / "my photos").mkdir()
    np.savez(empty / "x.npz", images=np.zeros((4, 2, 2)))
    line = _refused(capsys, "train", "my photos")
    assert shlex.split(re.search(r"`(.*)`", line)[1]) == ["vae-jax", "train", "vae_digits", "--data", "my photos"]
    assert "did you mean `vae-jax train vae_digits --data x.npz`?" in _refused(capsys, "train", "x.npz")
    assert "it is a data set; did you mean `vae-jax train vae_mnist`?" in _refused(capsys, "train", "mnist")
    assert "did you mean `vae-jax train vae_digits --data sprites`?" in _refused(capsys, "train", "sprites")
    assert "did you mean `vae-jax train vae_digits --data PATH`?" in _refused(capsys, "train", "image_folder")
    assert "as in --data x.npz if these are data" in _refused(capsys, "train", "vae_digits", "x.npz")
    assert parse_config(Config(), ["--data", "x.npz"], "train").data.name == "npz"


def test_no_command_prints_all_experiments(empty, capsys):
    for argv in (["train"], ["sweep"], ["train", "qqq"], ["train", "--epochs", "5"]):
        line = _refused(capsys, *argv)
        assert "vae-jax list experiments" in line
        assert sum(name in line for name in index.all_experiments()) <= 5
    assert main.run(["list", "experiments"]) == 0


def test_paths_of_experiments_that_are_none(empty, capsys):
    (empty / "mine.py").write_text(GOOD)
    assert "mien.py: no such experiment file; did you mean 'mine.py'?" in _refused(capsys, "train", "mien.py")
    assert "no such experiment file; did you mean 'vae_mnist'?" in _refused(capsys, "train", "vae_mnist.py")
    assert "`vae-jax list experiments` shows what can be named" in _refused(capsys, "train", "nowhere/else.py")
    (empty / "folder.py").mkdir()
    assert "folder.py: is a folder, not an experiment file; `vae-jax list" in _refused(capsys, "train", "folder.py")
    (empty / "mine").mkdir()
    (empty / "mine/a.py").write_text(GOOD)
    assert "no such experiment; name one in it, as in mine/a.py" in _refused(capsys, "train", "mine/")
    for found in ("mine.py", "mine/a.py"):
        assert index.load(index.find(found)) == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config():\n    x = 1\n    raise ValueError('no')\n", "cannot be loaded (ValueError: no, line 3)"),
        ("def get_config():\n    return 1 / 0\n", "cannot be loaded (ZeroDivisionError: division by zero, line 2)"),
        ("def get_config(x):\n    return x\n", "missing 1 required positional argument: 'x')"),
        ("import no_such_module\n", "cannot be loaded (ModuleNotFoundError: No module named 'no_such_module', line 1)"),
        ("import sys\nsys.exit()\n", "cannot be loaded (SystemExit: , line 2)"),
        ("def get_config(:\n", "cannot be loaded (SyntaxError: "),
        ("get_config = 3\n", "needs a function get_config() that returns a vae_jax.config.Config"),
        ("", "needs a function get_config() that returns a vae_jax.config.Config"),
    ],
)
def test_a_file_that_cannot_be_loaded_says_where(empty, capsys, text, message):
    (empty / "mine.py").write_text(text)
    assert message in _refused(capsys, "train", "mine.py")
    (empty / "mine.py").write_text(GOOD)
    assert index.load(index.find("mine.py")) == Config()


def test_an_experiment_of_this_folder_that_hides_a_shipped_one_is_said(empty, capsys):
    assert index.load(index.find("vae_digits")).data.name == "digits"
    assert capsys.readouterr().err == ""
    (empty / "experiments").mkdir()
    (empty / "experiments/vae_digits.py").write_text(GOOD)
    assert index.load(index.find("vae_digits")) == Config()
    err = capsys.readouterr().err
    assert err == (
        "vae-jax: experiments/vae_digits.py is used in place of the experiment of this name that comes with vae_jax\n"
    )
    (empty / "experiments/own.py").write_text(GOOD)
    index.find("own")
    shipped = next(folder / "vae_digits.py" for folder in index.folders()[1:] if (folder / "vae_digits.py").is_file())
    (empty / "experiments/vae_digits.py").write_bytes(shipped.read_bytes())  # the same code hides nothing
    index.find("vae_digits")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", [(), ("--workdir", "runs/vae_digits")])
def test_a_resumed_experiment_that_hides_a_shipped_one_is_said_once(empty, capsys, monkeypatch, words):
    monkeypatch.setattr("vae_jax.cli.train._train", lambda config, name, path, flags, resume: print(path) or 0)
    (empty / "experiments").mkdir()
    (empty / "experiments/vae_digits.py").write_text(GOOD)
    Run.create(empty / "runs/vae_digits", "vae_digits", Config(), spec.images(8, 8, 1))
    assert main.run(["train", "vae_digits", "--resume", *words]) == 0
    assert capsys.readouterr() == (
        "runs/vae_digits\n",
        "vae-jax: experiments/vae_digits.py is used in place of the experiment of this name that comes with vae_jax\n",
    )


# The order and the form of words


def _advised(line: str) -> list[str]:
    """Returns the words of the command in backticks, without `vae-jax`."""
    return shlex.split(re.search(r"`vae-jax (.*)`", line)[1])


@pytest.mark.parametrize("command", ["train", "sweep --seeds 0:2"])
def test_an_experiment_after_options_is_put_first(empty, capsys, command):
    command, *words = [*command.split(), "--steps", "200"]
    line = _refused(capsys, command, *words, "vae_digits")
    typed = f"vae-jax {command} vae_digits {' '.join(words)}"
    assert line == f"vae-jax: {command}: put the experiment first: `{typed}`\n"
    assert "which experiment? as in" in _refused(capsys, command, *words, "--workdir", "vae_digits")
    # The advice is read: it names the experiment, and the next fault is another one.
    assert "--stepz: no such option" in _refused(capsys, *_advised(line), "--stepz", "3")
    assert not list(empty.iterdir())


def test_an_option_before_the_command(empty, capsys):
    line = _refused(capsys, "--steps", "200", "train", "vae_digits")
    assert line == "vae-jax: --steps: the command comes first, as in `vae-jax train vae_digits --steps 200`\n"
    assert "--stepz: no such option" in _refused(capsys, *_advised(line), "--stepz", "3")
    line = _refused(capsys, "--steps", "200")
    assert line == "vae-jax: --steps: the command comes first; `vae-jax --help` lists the commands\n"


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["r", "--metrics", "elbo", "iwae"], "elbo,iwae"),
        (["--metrics", "elbo,", "iwae", "rate", "--seed", "1", "r"], "elbo,iwae,rate"),
        (["--metrics", "elbo", "iwae", "runs/r"], "elbo,iwae"),
    ],
)
def test_metrics_with_blanks_between(empty, capsys, words, meant):
    assert _refused(capsys, "eval", *words) == (
        f"vae-jax: --metrics: separate metrics by commas; use --metrics {meant}\n"
    )
    assert "r: not a run folder" in _refused(capsys, "eval", "r", "--metrics", meant)


def test_required_options_are_named_without_their_help(empty, capsys):
    line = _refused(capsys, "decode", "r", "--input", "codes.npz")
    assert line == "vae-jax: --out: is required; add it, as in --out images.npz\n"
    assert "r: not a run folder" in _refused(capsys, "decode", "r", "--input=codes.npz", "--out", "images.npz")
    line = _refused(capsys, "encode", "r")
    assert line == ("vae-jax: --input and --out: are required; add them, as in --input images.npz --out codes.npz\n")
    assert "r: not a run folder" in _refused(capsys, "encode", "r", *line.split("as in ")[1].split())
    line = _refused(capsys, "score", "r", "--input", "images.npz")
    assert line == "vae-jax: --out: is required; add it, as in --out scores.csv\n"
    assert "r: not a run folder" in _refused(capsys, "score", "r", "--input", "images.npz", "--out", "scores.csv")
    for typed, what in ((["eval"], "run"), (["encode", "--out", "codes.npz"], "run"), (["baseline"], "data")):
        line = _refused(capsys, *typed)
        assert line.startswith(f"vae-jax: {typed[0]}: which {what}? as in `vae-jax {typed[0]} ")
    typed = " ".join(_advised(_refused(capsys, "encode")))
    assert typed == "encode runs/beta_vae --input images.npz --out codes.npz"
    assert _advised(_refused(capsys, "data", "prepare")) == ["data", "prepare", "mnist"]


def test_a_run_by_its_name_is_the_folder_in_runs(empty, capsys):
    assert "(no such folder); runs are made by" in _refused(capsys, "eval", "vae_digits")
    Run.create(empty / "runs/vae_digits", "vae_digits", Config(), spec.images(8, 8, 1))
    line = _refused(capsys, "eval", "vae_digits")
    assert line == "vae-jax: vae_digits: not a run folder (no such folder); did you mean 'runs/vae_digits'?\n"
    assert Run.load("runs/vae_digits").experiment == "vae_digits"


def test_data_that_are_not_there_name_no_unrelated_file(empty, capsys):
    for name in ("q.py", "runs", "scans"):
        (empty / name).mkdir()
    line = _refused(capsys, "train", "vae_digits", "--data", "nope/")
    known = "cifar10, color_sprites, counts, digits, fashion_mnist, mnist, sprites, wine"
    assert line.endswith(f"no such file, folder or data set; known: {known}\n")
    assert "did you mean 'scans'?" in _refused(capsys, "train", "vae_digits", "--data", "scan")
    assert parse_config(Config(), ["--data", "digits"], "train").data.name == "digits"
