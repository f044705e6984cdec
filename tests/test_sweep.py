"""Sweeps: members equal single runs, one that diverges costs nobody else, resume is exact, and the command."""

import csv
import dataclasses
import json
import os
import re
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support

import vae_jax as vj
from vae_jax.cli import main
from vae_jax.cli.sweep import read_plan, take_own
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError
from vae_jax.evaluation import reading
from vae_jax.models import MODELS, VAE
from vae_jax.networks import MLP
from vae_jax.objectives import OBJECTIVES, Beta
from vae_jax.runs import config as configs
from vae_jax.runs import experiments as index
from vae_jax.runs.config import Config, Evaluation, Logging
from vae_jax.runs.run import Run
from vae_jax.tasks import training
from vae_jax.tasks.sweeps import plan as plans
from vae_jax.tasks.sweeps import table
from vae_jax.tasks.sweeps.group import open_member, train_group
from vae_jax.tasks.sweeps.plan import make_members, parse_seeds, parse_vary, program_of, traced_options
from vae_jax.tasks.sweeps.record import Sweep
from vae_jax.tasks.sweeps.run import plan, sweep_run
from vae_jax.train import LearningRate, Optimizer
from vae_jax.train.population import member_mesh
from vae_jax.train.signals import Interrupted

SMALL = Config(
    steps=6,
    data=DataConfig("digits", batch_size=8),
    model=VAE(latent_dim=2, network=MLP((8,)), objective=Beta(beta=1.0)),
    logging=Logging(log_every=2, checkpoint_every=3, figures_minutes=0.0, tensorboard=False),
    evaluation=Evaluation(limit=20, batch_size=20),
)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr(training, "_figures", lambda run, state, step, *more: None)


def make(seeds=(0,), base=SMALL, metrics=(), strategy="vmap", **vary) -> Sweep:
    """Returns a sweep over Python values; `__` in a name stands for a dot."""
    values = {name.replace("__", "."): found for name, found in vary.items()}
    texts = {option: tuple(map(str, found)) for option, found in values.items()}

    def configure(chosen):
        config = base
        for option, text in chosen.items():
            config = configs.put(config, option, values[option][texts[option].index(text)])
        return config

    return Sweep("small", tuple(make_members(seeds, texts, configure)), tuple(seeds), texts, metrics, strategy)


def train_members(sweep: Sweep, folder):
    """Returns (runs, what came of them) of a sweep that is one group."""
    groups = plan(sweep)
    assert len(groups.members) == 1
    (source,) = groups.sources.values()
    runs: list[Run] = []
    for member in sweep.members:
        lead = runs[0] if runs else None
        runs.append(open_member(folder / member.name, "small", member.config, source, lead))
    said: list[str] = []
    out = train_group(runs, folder / "population", strategy=sweep.strategy, report=lambda *a: None, say=said.append)
    return runs, out, said


# --- the program


def eight(strategy="vmap") -> Sweep:
    """Returns 2 seeds x 2 betas x 2 learning rates, with all that an optimizer may do."""
    schedule = LearningRate("warmup-cosine", warmup_steps=2)
    # Four steps per line: dispatches of 1, 1 and 2 steps, whose means have to be weighted.
    logging = dataclasses.replace(SMALL.logging, log_every=4, checkpoint_every=6)
    optimizer = Optimizer(schedule=schedule, clip=1.0)
    base = dataclasses.replace(SMALL, optimizer=optimizer, logging=logging, ema_decay=0.9)
    return make((0, 3), base, strategy=strategy, model__objective__beta=[1.0, 4.0], optimizer__lr=[1e-3, 1e-2])


@pytest.fixture(scope="module")
def singles(tmp_path_factory):
    """Returns number -> run of its own, for the first and the last member."""
    folder, members = tmp_path_factory.mktemp("singles"), eight().members
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_figures", lambda run, state, step, *more: None)
        return {
            number: training.train_run(
                configs.put(members[number].config, "mesh.data", 1), "single", folder / str(number)
            )
            for number in (0, 7)
        }


@pytest.mark.parametrize("strategy", ["vmap", "map"])
def test_a_member_equals_the_single_run_of_its_seed_and_options(tmp_path, strategy, singles):
    sweep = eight(strategy)
    runs, out, said = train_members(sweep, tmp_path)
    assert len(runs) == 8
    assert "8 member(s) as one program" in said[0]
    assert "on 8 devices" in said[0]
    for number, single in singles.items():
        support.assert_trees_close(out.states[number], single.restore(), rtol=1e-4, atol=1e-5)
        lines, want = (
            [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
            for run in (runs[number], single)
        )
        assert [line["step"] for line in lines] == [line["step"] for line in want] == [4, 6]
        for a, b in zip(lines, want):
            assert a.keys() == b.keys()
            np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-4)
            assert a["beta"] == b["beta"]
    # What a member keeps in its folder is what the population had.
    support.assert_trees_equal(Run.load(runs[5].path).restore(), out.states[5])
    # Every member is another run.
    losses = {float(jnp.sum(jax.tree.leaves(state.params)[0])) for state in out.states}
    assert len(losses) == 8


@pytest.mark.parametrize("strategy", ["vmap", pytest.param("map", marks=pytest.mark.slow)])
def test_a_member_that_diverges_is_masked_and_the_others_go_on(tmp_path, strategy):
    sound = make((0,), strategy=strategy, optimizer__lr=[1e-3, 2e-3, 3e-3])
    mixed = make((0,), strategy=strategy, optimizer__lr=[1e-3, 1e30, 3e-3])
    _, want, _ = train_members(sound, tmp_path / "sound")
    runs, got, said = train_members(mixed, tmp_path / "mixed")
    assert want.diverged == {}
    assert list(got.diverged) == [1]
    step, names = got.diverged[1]
    assert 2 <= step <= 3
    assert "loss" in names
    assert any(f"member 1: the loss became NaN or Inf at step {step}" in text for text in said)
    for number in (0, 2):
        support.assert_trees_close(got.states[number], want.states[number], rtol=1e-6, atol=1e-7)
    assert int(got.states[1].step) == step - 1  # the last good state, not the bad one
    assert [int(state.step) for state in got.states] == [6, step - 1, 6]
    steps = [json.loads(line)["step"] for line in (runs[1].path / "metrics.jsonl").read_text().splitlines()]
    assert all(s < step for s in steps)


def test_a_kill_between_the_last_step_and_the_checkpoints_of_members_costs_no_step(tmp_path, monkeypatch):
    def killed(run, state):
        raise KeyboardInterrupt

    sweep = make((0, 1), configs.put(SMALL, "logging.checkpoint_every", 5))
    with monkeypatch.context() as patch:
        patch.setattr("vae_jax.tasks.sweeps.group._save", killed)
        with pytest.raises(KeyboardInterrupt):
            train_members(sweep, tmp_path)
    runs, out, said = train_members(sweep, tmp_path)
    assert "resuming at step 6" in said
    for run, state in zip(runs, out.states, strict=True):
        support.assert_trees_equal(run.restore(), state)
        assert [line["step"] for line in lines(run.path)] == [2, 4, 6]


def test_the_lines_of_a_lost_population_are_kept_aside(tmp_path):
    sweep = make((0, 1))
    runs, _, said = train_members(sweep, tmp_path)
    assert not any("has no checkpoint" in text for text in said)
    before = [(run.path / "metrics.jsonl").read_bytes() for run in runs]
    for folder in (tmp_path / "population", *(run.path / "checkpoints" for run in runs)):
        shutil.rmtree(folder)
    runs, _, said = train_members(sweep, tmp_path)
    assert [text for text in said if "warning" in text] == [
        f"warning: {run.path}: has no checkpoint, so that it starts at step 0 again; metrics.jsonl is kept as "
        "metrics-lost-1.jsonl"
        for run in runs
    ]
    assert [(run.path / "metrics-lost-1.jsonl").read_bytes() for run in runs] == before


def test_members_live_on_as_many_devices_as_divide_them():
    devices = jax.devices()
    assert [member_mesh(n, devices).size for n in (1, 2, 6, 7, 8, 9, 16)] == [1, 2, 6, 7, 8, 3, 8]
    assert member_mesh(6, devices[:4]).size == 3


# --- which members are one program


def test_seeds_and_traced_options_are_one_program_and_others_queue():
    sweep = make((0, 1), model__objective__beta=[1.0, 4.0], model__latent_dim=[2, 3], optimizer__lr=[1e-3, 1e-2])
    groups = plan(sweep).members
    assert len(groups) == 2
    assert sorted(i for group in groups for i in group) == list(range(16))
    for group in groups:
        assert len({sweep.members[i].config.model.latent_dim for i in group}) == 1
    apart = [
        make((0,), optimizer__weight_decay=[0.0, 1e-2]),
        make((0,), evaluation__limit=[10, 20]),
        make((0,), steps=[4, 6]),
        make((0,), data__batch_size=[4, 8]),
    ]
    assert [len(plan(sweep).members) for sweep in apart] == [2, 2, 2, 2]


def traced_cases():
    """Returns name -> model config of every objective and model with traced options."""
    found = {f"objective-{n}": support.fitting(3, MLP((4,)), objective=cls()) for n, cls in OBJECTIVES.items()}
    found |= {f"model-{n}": support.small(cls, 3, MLP((4,))) for n, cls in MODELS.items() if n != "vae"}
    built = {n: dataclasses.replace(SMALL, model=c) for n, c in found.items()}
    return {n: c for n, c in built.items() if traced(c)}


def traced(config):
    model = config.model.build(support.spec((6, 5, 1)))
    return [option for option in traced_options(config, model) if option.startswith("model.")]


@pytest.mark.parametrize("config", traced_cases().values(), ids=list(traced_cases()))
def test_a_traced_option_is_no_part_of_the_program(config):
    """Two values give one program, letter by letter: nothing but the value in the state differs."""

    def program(config):
        model = config.model.build(support.spec((6, 5, 1)))
        batch = support.images(4, (6, 5, 1))
        params, state = jax.eval_shape(model.init, jax.random.key(0), batch)

        def both(params, state, ctx):
            index = jnp.arange(4)
            ctx = ctx._replace(index=index)
            seen = {name: batch[name] for name in ("x", "label", "factors")}
            out = model.terms(params, state, jax.random.key(1), seen, ctx._replace(train=False))
            return model.loss(params, state, jax.random.key(1), batch, ctx), out

        ctx = support.context(model, 4)
        lowered = jax.jit(lambda p, s, h: both(p, s, ctx._replace(hyper=h))).lower(params, state, ctx.hyper)
        return lowered.as_text(), {name: float(value) for name, value in ctx.hyper.items()}

    other = config
    for option in traced(config):
        other = configs.put(other, option, 1.5 + 2.0 * configs.get(config, option))
    (text, values), (again, changed) = program(config), program(other)
    assert values != changed
    assert text == again
    model = config.model.build(support.spec((6, 5, 1)))
    assert program_of(config, model) == program_of(other, model)


# --- a whole sweep


def states_of(folder):
    names = sorted(p.parent.name for p in folder.glob("*/config.json"))
    return {name: Run.load(folder / name).restore() for name in names}


def test_resume_goes_on_bit_for_bit_and_repeats_nothing(tmp_path, monkeypatch):
    base = configs.put(SMALL, "mesh.data", 1)
    vary = {"model__latent_dim": [2, 3]}
    sweep = make((0, 1), base, **vary)
    sweep_run(sweep, tmp_path / "whole")

    def stop(at):
        return lambda step, metrics: os.kill(os.getpid(), signal.SIGTERM) if step >= at else None

    folder = tmp_path / "cut"
    for resume, at in ((False, 4), (True, 8)):  # within the first program, and within the second
        with pytest.raises(Interrupted) as caught:
            sweep_run(sweep, folder, resume=resume, report=stop(at))
        assert caught.value.exit_code == 143
    rows = json.loads((folder / "sweep.json").read_text())["members"]
    assert {row["state"] for row in rows if row["group"] == 0} == {"done"}
    assert {row["state"] for row in rows if row["group"] == 1} == {"training"}
    said: list[str] = []
    values = sweep_run(sweep, folder, resume=True, say=said.append)
    assert [text for text in said if "resuming at step" in text] == ["resuming at step 2"]
    assert not (folder / "population").exists()
    whole, cut = states_of(tmp_path / "whole"), states_of(folder)
    assert len(whole) == 4
    for name, state in whole.items():
        support.assert_trees_equal(cut[name], state)
        for line, want in zip(lines(folder / name), lines(tmp_path / "whole" / name), strict=True):
            # A mean is summed over other chunks, so its last digit may differ.
            assert line.keys() == want.keys()
            np.testing.assert_allclose(line["loss"], want["loss"], rtol=1e-6)
    first = json.loads((tmp_path / "whole" / "sweep.json").read_text())
    assert values["table"] == first["table"]
    assert [row["metrics"] for row in values["members"]] == [row["metrics"] for row in first["members"]]
    # A finished sweep is left alone.
    monkeypatch.setattr("vae_jax.tasks.sweeps.run.train_group", None)
    monkeypatch.setattr("vae_jax.tasks.sweeps.run.evaluate_run", None)
    assert sweep_run(sweep, folder, resume=True)["table"] == first["table"]
    refusals = [
        (make((0, 1, 2), base, **vary), "seeds: 0,1 -> 0,1,2"),
        (make((0, 1), base, model__latent_dim=[2, 4]), "vary: model.latent_dim=2,3 -> model.latent_dim=2,4"),
        (dataclasses.replace(sweep, metrics=("elbo",)), "metrics:  -> elbo"),
        (dataclasses.replace(sweep, strategy="map"), "strategy: vmap -> map"),
        (make((0, 1), configs.put(base, "steps", 8), **vary), "(steps: 6 -> 8)"),
    ]
    for other, message in refusals:
        with pytest.raises(InputError, match="cannot resume with other options") as refused:
            sweep_run(other, folder, resume=True)
        assert message in str(refused.value)
    with pytest.raises(InputError, match="not a sweep's folder"):
        sweep_run(sweep, tmp_path / "nowhere", resume=True)


def lines(folder):
    """Returns a member's metric lines without the speed."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images_per_s"} for line in found]


def test_a_plan_has_plain_values_however_its_members_were_made(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8))
    found = DataConfig("npz", tmp_path / "x.npz", batch_size=np.int64(8))  # type: ignore[arg-type]
    config = dataclasses.replace(SMALL, steps=np.int64(6), data=found)
    groups = plan(Sweep("small", (plans.Member("a", config, {}),), (0,), {}))
    (member,) = groups.sweep.members
    assert (type(member.config.steps), type(member.config.data.batch_size)) == (int, int)
    assert member.config.data.source == str(tmp_path / "x.npz")
    assert list(groups.sources) == [member.config.data]


def test_a_sweep_with_a_member_that_diverges_is_finished_and_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    sweep = make((0, 1), optimizer__lr=[1e-3, 1e30])
    values = sweep_run(sweep, tmp_path / "sweep")
    assert [row["state"] for row in values["members"]] == ["done", "done", "diverged", "diverged"]
    assert values["members"][2]["diverged"]["step"] == values["members"][2]["step"] + 1
    lost = [row for row in values["table"] if row["values"]["optimizer.lr"] == "1e+30"]
    assert all(row["n"] == 0 and row["mean"] is None and row["diverged"] == 2 for row in lost)
    assert all(np.isfinite(row["mean"]) for row in values["table"] if row not in lost)
    table.print_table(values)
    out = capsys.readouterr().out
    assert re.search(r"1e\+30\W+0\W+2\W", out)
    assert "lr=1e+30_seed=1 diverged: the loss was not finite at step" in out
    # The folder is that of a run that did not get to its end.
    assert main.run(["eval", str(tmp_path / "sweep" / "lr=1e+30_seed=0")]) == 2
    assert "unfinished, at step" in capsys.readouterr().err


def test_streamed_data_are_trained_run_by_run(tmp_path):
    config = configs.put(configs.put(SMALL, "data.pipeline", "grain"), "mesh.data", 1)
    sweep = make((0,), config, model__objective__beta=[1.0])
    values = sweep_run(sweep, tmp_path / "sweep")
    assert [row["state"] for row in values["members"]] == ["done"]
    assert np.isfinite(values["members"][0]["metrics"]["elbo"]["value"])


def test_evaluations_that_members_do_not_make_are_said(capsys):
    config = configs.put(SMALL, "logging.eval_every", 3)
    plan(make((0, 1), config))
    said = '**{"logging.eval_every": 3} is not used, for members of a sweep are not evaluated while they train'
    assert capsys.readouterr().err == f"note: {said}\n"


# --- the command


def run(*argv: str) -> int:
    return main.run(["sweep", "vae_digits", *argv])


def test_two_seeds_by_two_betas_from_end_to_end(tmp_path, capsys):
    folder = tmp_path / "sweep"
    options = ["--model.objective", "beta", "--seeds", "0:2", "--vary", "model.objective.beta=1,4", "--smoke"]
    options += ["--workdir", str(folder), "--model.network.hidden", "8", "--model.latent-dim", "2"]
    assert run(*options) == 0
    out = capsys.readouterr().out
    assert "4 members (2 x 2 seeds) in 1 program(s)" in out
    assert "mean ± sd" in out
    members = sorted(p.parent.name for p in folder.glob("*/config.json"))
    assert members == ["beta=1_seed=0", "beta=1_seed=1", "beta=4_seed=0", "beta=4_seed=1"]
    for name in members:
        found = {p.name for p in (folder / name).iterdir()}
        assert found >= {"config.json", "env.json", "metrics.jsonl", "checkpoints", "eval.json", "figures"}
        assert json.loads((folder / name / "eval.json").read_text())["step"] == 2
    assert {p.name for p in (folder / "figures").iterdir()} == {"rate_distortion.png", "metrics.png"}
    assert all(p.stat().st_size > 5_000 for p in (folder / "figures").iterdir())
    with (folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    elbo = {row["model.objective.beta"]: row for row in rows if row["metric"] == "elbo"}
    for beta in ("1", "4"):
        held = [json.loads((folder / f"beta={beta}_seed={s}" / "eval.json").read_text()) for s in (0, 1)]
        values = [result["metrics"]["elbo"]["value"] for result in held]
        np.testing.assert_allclose(float(elbo[beta]["mean"]), np.mean(values))
        np.testing.assert_allclose(float(elbo[beta]["sd"]), np.std(values, ddof=1))
        assert float(elbo[beta]["best"]) == max(values)
        assert int(elbo[beta]["best_seed"]) == int(np.argmax(values))
    # Members are run folders like any other; measured again, each gives the numbers that the shared program gave.
    member = folder / "beta=4_seed=1"
    before = json.loads((member / "eval.json").read_text())
    assert main.run(["eval", str(member)]) == 0
    after = json.loads((member / "eval.json").read_text())
    for name, metric in before["metrics"].items():
        np.testing.assert_allclose(after["metrics"][name]["value"], metric["value"], rtol=1e-5)
    assert main.run(["compare", *(str(folder / name) for name in members[1:3])]) == 0
    out = capsys.readouterr().out
    assert "model.objective.beta" in out
    assert main.run(["sample", str(member), "--n", "4", "--out", str(tmp_path / "samples.npz")]) == 0
    assert main.run(["eval", str(folder)]) == 2
    assert f"not a run folder, but it holds 4; name one, as in {folder / members[0]}" in capsys.readouterr().err
    assert run(*options) == 2
    assert "already there; continue it with --resume" in capsys.readouterr().err
    assert run(*options, "--resume") == 0
    assert run(*options, "--resume", "--steps", "9") == 0  # --smoke makes two steps of any number
    assert run(*options, "--resume", "--optimizer.eps", "1e-7") == 2
    assert "cannot resume with other options (optimizer.eps: 1e-08 -> 1e-07)" in capsys.readouterr().err


def test_a_metric_that_members_refuse_costs_nothing_else(tmp_path, capsys, monkeypatch):
    from vae_jax.evaluation import measures

    def refuse(subject):
        raise InputError("refused: no such thing")

    monkeypatch.setattr("vae_jax.evaluation.measures.refuse", refuse, raising=False)
    entry = measures.Measure("vae_jax.evaluation.measures:refuse", "refuses", "", "none")
    monkeypatch.setitem(measures.MEASURES, "refuse", entry)
    folder = tmp_path / "sweep"
    assert run("--seeds", "0", "--metrics", "mse,refuse", "--smoke", "--workdir", str(folder)) == 2
    assert capsys.readouterr().err == "vae-jax: --metrics: refused: no such thing\n"
    values = json.loads((folder / "sweep.json").read_text())
    assert set(values["members"][0]["metrics"]) == {"mse", "elbo", "rate", "distortion"}
    # `refuse` gave nothing, so all that was measured and that has a better side is shown.
    assert set(table.main_metrics(values)) == {"mse", "elbo", "distortion"}


def test_members_wear_only_targets_that_are_theirs(tmp_path, monkeypatch):
    """A member that is still the experiment keeps its targets; other steps or a varied option drop them."""
    written = index.load(index.find("vae_mnist"))
    assert written.expected

    def targets(*words: str, smoke: bool = False) -> list[bool]:
        own, rest = take_own(list(words))
        plan = read_plan(written, "vae_mnist", own, rest, smoke=smoke)
        return [member.config.expected == written.expected for member in plan.members]

    rate = written.optimizer.lr
    assert targets("--seeds", "0:2") == [True, True]
    assert targets("--vary", f"optimizer.lr={rate},0.5") == [True, False]
    assert targets("--seeds", "0:2", "--steps", "7") == [False, False]
    assert targets("--seeds", "0", smoke=True) == [False]
    made: list = []
    monkeypatch.setattr("vae_jax.api.run_sweep", lambda plan, *a, **k: made.append(plan) or ({}, None))
    vj.sweep("vae_mnist", vary={"optimizer.lr": (rate, 0.5)})
    vj.sweep("vae_mnist", steps=7)
    seen = [member.config.expected for plan in made for member in plan.members]
    assert seen == [written.expected, {}, {}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to sweep over; give --seeds 0:8, or --vary OPTION=A,B, or both"),
        (["--seeds", "3:3"], "--seeds: 3:3 is empty; the end must lie above the start"),
        (["--seeds", "8:0"], "--seeds: 8:0 is empty"),
        (["--seeds", "0:9:0"], "--seeds: 0:9:0 has a step of 0"),
        (["--seeds", "one"], "--seeds: 'one' is neither a seed nor a range"),
        (["--seeds", "0,-3"], "--seeds: '-3' is neither a seed nor a range"),
        (["--seeds", "0,1,0"], "--seeds: seed 0 is given twice"),
        (["--seeds", "0:3,2"], "--seeds: seed 2 is given twice"),
        (["--seeds", "2147483648"], "--seeds: 2147483648 is out of range; seeds lie below 2147483648"),
        (["--seeds", "0:2147483649:2147483647"], "--seeds: 0:2147483649:2147483647 is out of range; seeds lie below"),
        (["--seeds", "0:1000000000000"], "--seeds: 0:1000000000000 is out of range; seeds lie below 2147483648"),
        (["--seeds", "0:1" + 5000 * "0"], "is out of range; seeds lie below 2147483648"),
        (["--seeds", "0:2147483648"], "--seeds: 2,147,483,648 seeds are too many; give at most 10,000, as in 0:10000"),
        (["--seeds", "0:10000,10000"], "--seeds: 10,001 seeds are too many; give at most 10,000"),
        (["--seeds"], "--seeds: needs a value"),
        (["--seeds", "0", "--seeds", "1"], "--seeds: was given twice"),
        (["--seeds", "0", "--seed", "1"], "--seed: a sweep takes --seeds"),
        (["--seed", "1"], "--seed: a sweep takes --seeds"),
        (["--vary", "seed=1,2"], "--vary seed=1,2: seeds are given by --seeds"),
        (["--vary", "model.latent_dim"], "--vary model.latent_dim: write option=value,value"),
        (["--vary", "model.latent_dim=2,,3"], "write option=value,value"),
        (["--vary", "model.latent_dim=2,2"], "--vary model.latent_dim: value 2 is given twice"),
        (["--vary", "model.latent_dim=2", "model.latent-dim=3"], "--vary model.latent_dim: is given twice"),
        (["--vary", "optimizer.lr=1e-3,0.001"], "--vary optimizer.lr: 1e-3 and 0.001 are the same value here"),
        (["--vary", "model.laten_dim=2,3"], "did you mean '--model.latent-dim'?"),
        (["--vary", "model.objective=elbo,betta"], "no such objective; did you mean 'beta'?"),
        (
            ["--vary", "model.objective.beta=1,4"],
            "the chosen objective does not have beta; use --model.objective beta --model.objective.beta 1",
        ),
        (["--vary", "model.latent_dim=2,0"], "model.latent_dim: 0 is out of range"),
        (["--vary", "optimizer.lr=1e-3,fast"], "'fast' is not a number"),
        (["--vary", "model.network=mlp,conv64"], "multiples of 16, the images are 8x8"),
        (["--seeds", "0:2", "--metrics", "ebo"], "--metrics: no metric 'ebo'; did you mean"),
        (["--seeds", "0:2", "--strategy", "vmapp"], "--strategy vmapp: no such strategy; did you mean 'vmap'?"),
        (["--seeds", "0:2", "--seedz", "1"], "--seedz: no such option; did you mean '--seeds'?"),
        (["--seeds", "0:2", "--stepz", "1"], "no such option; did you mean '--steps'?"),
        (["--seeds", "0:2", "--distributed"], "--distributed: a sweep is made by one process"),
        (
            ["--seeds", "0:2", "--stage1", "runs/a b"],
            "--stage1: members of a sweep do not start from a run; train them one by one, as with `vae-jax train "
            "vae_digits --stage1 'runs/a b' --seed 0`, then `vae-jax compare` their folders",
        ),
        (["--seeds", "0:2", "--init-from=a"], "as with `vae-jax train vae_digits --init-from a --seed 0`"),
        (["--seeds", "0:2", "--mesh.fsdp", "2"], "mesh.fsdp: 2 would split a member over devices"),
        (["--seeds", "0:2", "--resume"], "runs/vae_digits-sweep: no run to resume"),
        (["--seeds", "0:2", "--resume", "--workdir", "gone"], "gone: not a sweep's folder (no such folder)"),
        (["again", "--seeds", "0:2"], "sweep: 'again' is no option"),
        (
            ["--model.network.hidden", "8", "--seeds", "0", "1"],
            "--seeds: takes one value, so that '1' belongs to no option; leave it out, or use commas: --seeds 0,1",
        ),
        (["--seeds", "0:2", "--model.network.hidden", "8", "--smoke", "4"], "--smoke: takes no value, so that '4'"),
    ],
    ids=lambda v: " ".join(v)[:50] if isinstance(v, list) else "",
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    assert run(*options) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_help_and_a_missing_experiment(capsys):
    assert main.run(["sweep", "--help"]) == 0
    assert "--vary" in capsys.readouterr().out
    assert main.run(["sweep", "--seeds", "0:2"]) == 2
    assert "sweep: which experiment?" in capsys.readouterr().err
    assert main.run(["sweep", "vae_digit", "--seeds", "0:2"]) == 2
    assert "did you mean 'vae_digits'?" in capsys.readouterr().err
    assert main.run(["sweep", "my file.py", "--seeds", "0:2", "--stage1", "a"]) == 2
    assert "`vae-jax train 'my file.py' --stage1 a --seed 0`" in capsys.readouterr().err


# --- words and numbers


def test_seeds_and_values_as_they_are_written():
    assert parse_seeds("0:8") == tuple(range(8))
    assert parse_seeds("0:8:2,9") == (0, 2, 4, 6, 9)
    assert parse_seeds("5, 3") == (5, 3)
    assert parse_vary(["a.b-c=1, 2", "--d=x"]) == {"a.b_c": ("1", "2"), "d": ("x",)}
    names = [m.name for m in make((0,), model__objective__beta=[1.0, 4.0], model__latent_dim=[2]).members]
    assert names == ["beta=1.0_latent_dim=2_seed=0", "beta=4.0_latent_dim=2_seed=0"]
    assert plans.short_names({"optimizer.lr": (), "critic_optimizer.lr": ()}) == {
        "optimizer.lr": "optimizer.lr",
        "critic_optimizer.lr": "critic_optimizer.lr",
    }
    member = make((0,), model__network__hidden=[(8, 8)]).members[0]
    assert member.config.model.network.hidden == (8, 8)
    assert "/" not in member.name


def test_the_python_face_gives_what_the_command_gives(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = {"model.network": "mlp", "model.network.hidden": (8,), "model.latent_dim": 2, "steps": 2}
    words = ["--model.network", "mlp", "--model.network.hidden", "8", "--model.latent-dim", "2", "--steps", "2"]
    found = vj.sweep("vae_digits", seeds=range(2), vary={"optimizer.lr": (1e-3, 1e-2)}, quiet=True, **small)
    assert run("--seeds", "0:2", "--vary", "optimizer.lr=0.001,0.01", "--quiet", *words) == 0
    held = json.loads((tmp_path / "runs" / "vae_digits-sweep-2" / "sweep.json").read_text())
    assert (tmp_path / "runs" / "vae_digits-sweep" / "lr=0.01_seed=1" / "eval.json").is_file()
    assert found["table"] == held["table"]
    with pytest.raises(vj.InputError, match=r"no metric 'elbow'.*elbo"):
        vj.sweep("vae_digits", metrics=("elbow",), quiet=True)


def test_more_of_some_metrics_is_better_less_of_others_and_some_only_say_where_a_model_is():
    assert all(reading.better(name) == "more" for name in ("elbo", "iw_50", "ais", "psnr", "mig", "knn", "coverage"))
    less = ("mse", "iw_50_bits_per_dim", "bits_per_dim", "frechet_distance", "bdmc_gap", "inference_gap", "jemmig")
    assert all(reading.better(name) == "less" for name in (*less, "mmd_polynomial", "calibration_error"))
    assert all(reading.better(name) is None for name in ("rate", "active_units", "total_correlation"))


def test_the_table_is_mean_spread_and_best_over_the_seeds_that_ended():
    def member(value, seed, **metrics):
        found = {name: {"value": v} for name, v in metrics.items()}
        state = "done" if metrics else "diverged"
        return {"values": {"o": value}, "seed": seed, "metrics": found, "state": state}

    members = [
        member("a", 0, elbo=-3.0, mse=0.2, rate=1.0),
        member("a", 1, elbo=-1.0, mse=0.1, rate=3.0),
        member("a", 2),
        member("b", 0, elbo=-5.0, mse=None, rate=2.0),
    ]
    found = {(row["values"]["o"], row["metric"]): row for row in table.rows({"members": members})}
    a = found["a", "elbo"]
    assert (a["n"], a["mean"], a["best"], a["best_seed"], a["diverged"]) == (2, -2.0, -1.0, 1, 1)
    assert a["sd"] == pytest.approx(2**0.5)
    assert (found["a", "mse"]["best"], found["a", "mse"]["best_seed"]) == (0.1, 1)
    assert found["a", "rate"]["best"] is None
    assert (found["b", "elbo"]["sd"], found["b", "elbo"]["mean"]) == (None, -5.0)
    assert (found["b", "mse"]["n"], found["b", "mse"]["mean"]) == (0, None)


def test_figures_of_words_and_of_two_options():
    from vae_jax.figures.sweep import against, rate_distortion

    def member(objective, beta, seed):
        values = {"model.objective": objective, "model.latent_dim": beta}
        metrics = {"elbo": {"value": -20.0 - seed}, "rate": {"value": 2.0}, "distortion": {"value": 18.0 + seed}}
        return {"values": values, "seed": seed, "metrics": metrics, "state": "done"}

    members = [member(o, b, s) for o in ("elbo", "beta") for b in ("2", "64") for s in (0, 1)]
    vary = {"model.objective": ["elbo", "beta"], "model.latent_dim": ["2", "64"]}
    sweep = {"experiment": "x", "seeds": [0, 1], "vary": vary, "members": members}
    axes = against(sweep, ["elbo"]).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["elbo", "beta"]
    assert len(axes.get_legend().get_texts()) == 2
    assert len(rate_distortion(sweep).axes[0].get_legend().get_texts()) == 5
    turned = sweep | {"vary": dict(reversed(vary.items()))}
    assert against(turned, ["elbo"]).axes[0].get_xscale() == "log"
    alone = sweep | {"vary": {}, "members": [m | {"values": {}} for m in members[:2]]}
    assert [label.get_text() for label in against(alone, ["elbo"]).axes[0].get_xticklabels()] == ["0", "1"]
