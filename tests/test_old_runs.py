"""Run folders made by commit 3247927, before the house was moved: they open, evaluate, sample and resume.

Each was trained for 40 steps on the digits with 16 hidden units: `vae_digits`, `m2_digits`, and a member of a sweep of
`vae_digits`. The numbers below are what that commit gave on two CPU cores.
"""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import vae_jax as vj
from vae_jax.cli.main import run as cli
from vae_jax.runs.config_file import FORMAT

RUNS = Path(__file__).parent / "runs"
# Metrics of the first 100 test images at step 40 (eval.json), and the last line of training after 20 more steps.
CONTINUED = {
    "vae": {"distortion": 41.75616, "rate": 0.5244306, "grad_norm": 4.824718},
    "m2": {"distortion": 39.94131, "rate": 1.052524, "cross_entropy": 2.139421, "grad_norm": 9.326255},
    "member": {"distortion": 41.75617, "rate": 0.5244405, "grad_norm": 4.824779},
}


@pytest.fixture(params=sorted(CONTINUED))
def old(request, tmp_path):
    """A copy of one of the folders: commands write into it."""
    return Path(shutil.copytree(RUNS / request.param, tmp_path / request.param))


def test_evaluates_to_the_same_numbers(old):
    held = json.loads((old / "eval.json").read_text())["metrics"]
    found = vj.evaluate_run(vj.Run.load(old), metrics=("elbo", "rate", "mse", "iwae"), k=(5,), write=False)["metrics"]
    assert set(found) == {"elbo", "rate", "mse", "iw_5"}
    for name, estimate in found.items():
        # float32 sums over another machine's vector width
        assert estimate["value"] == pytest.approx(held[name]["value"], rel=2e-5), name
        assert estimate["n"] == 100


def test_resumes_to_the_same_metrics(old):
    expected = CONTINUED[old.name]
    run = vj.resume(old, steps=60, quiet=True, **{"mesh.data": 1})
    last = [line for line in map(json.loads, (old / "metrics.jsonl").read_text().splitlines())
            if line["split"] == "train"][-1]  # fmt: skip
    assert run.config.steps == last["step"] == 60
    assert {name: last[name] for name in expected} == pytest.approx(expected, rel=1e-3)


def test_draws_and_encodes(old, tmp_path):
    out, codes = tmp_path / "samples.npz", tmp_path / "codes.npz"
    assert cli(["sample", str(old), "--n", "20", "--out", str(out)]) == 0
    assert cli(["encode", str(old), "--input", "digits", "--out", str(codes)]) == 0
    with np.load(out) as held:
        assert held["images"].shape == (20, 8, 8, 1)
        assert np.isfinite(held["images"]).all()
    run = vj.Run.load(old)
    state = run.restore()
    with np.load(codes) as held:
        again = run.model.encode(state.eval_params, state.model_state, None, run.examples("test", held["index"][:4]))
        np.testing.assert_allclose(held["mean"][:4], jax.device_get(again.z), rtol=1e-4, atol=1e-5)


def test_a_folder_of_before_the_format_number_is_rewritten_when_it_is_resumed_only(old):
    before = (old / "config.json").read_bytes()
    assert b'"format"' not in before
    vj.evaluate_run(vj.Run.load(old), metrics=("mse",), limit=5)
    assert (old / "config.json").read_bytes() == before
    vj.resume(old, steps=41, quiet=True, **{"mesh.data": 1})
    held = json.loads((old / "config.json").read_text())
    assert held["format"] == FORMAT
    assert "image_shape" not in held
    assert held["data_spec"]["x"]["shape"] == [8, 8, 1]
    assert vj.Run.load(old).config.steps == 41


@pytest.mark.parametrize("number", [FORMAT + 1, 99])
def test_a_format_that_is_not_known_is_refused(tmp_path, capsys, number):
    folder = Path(shutil.copytree(RUNS / "vae", tmp_path / "vae"))
    held = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"format": number, **held}))
    assert cli(["sample", str(folder)]) == 2
    assert capsys.readouterr().err == (
        f"vae-jax: {folder / 'config.json'}: format: {number} is of a newer version of vae_jax, and this one "
        f"({vj.__version__}) reads up to {FORMAT}; use the version in env.json, or a newer one\n"
    )
    (folder / "config.json").write_text(json.dumps({"format": FORMAT, **held}))
    assert vj.Run.load(folder).spec.x.shape == (8, 8, 1)
