"""The benchmark's arithmetic, its table, and that the parts which need no torch run."""

from __future__ import annotations

import io
import json
import math

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from benchmarks import flops, jobs, report
from vae_jax import models, networks, spec
from vae_jax.model import Context


def dot_flops(jaxpr) -> int:
    """Counts the matrix products of a jaxpr, those inside its calls too."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, right = (v.aval.shape for v in equation.invars)
            if min(len(left), len(right)) < 2:
                continue  # sums of pixels are written as products with ones; they are not the step's arithmetic
            total += 2 * math.prod(left + right) // math.prod(left[axis] for axis in contracted)
        for value in jax.tree.leaves(tuple(equation.params.values()), is_leaf=lambda v: hasattr(v, "jaxpr")):
            body = getattr(value, "jaxpr", value)
            total += dot_flops(body) if hasattr(body, "eqns") else 0
    return total


def test_mlp_flops_are_those_of_the_traced_step():
    model = models.VAE(20, networks.MLP((512, 512))).build(spec.images(28, 28, 1))
    batch = {"x": jnp.zeros((4, 28, 28, 1))}
    params, state = jax.eval_shape(model.init, jax.random.key(0), batch)

    def loss(params, state, key):
        return model.loss(params, state, key, batch, Context(jnp.int32(0), jnp.arange(4), {"beta": 1.0}))[0]

    traced = jax.make_jaxpr(jax.grad(loss))(params, state, jax.random.key(0))
    assert dot_flops(traced.jaxpr) == flops.mlp_step(4)


def test_conv_flops_by_hand():
    # 4x4x1 image, one stage of 2 channels with a 2x2 kernel, code 2*2*2 = 8, width 3, latent 1, batch 1.
    conv = 2 * (2 * 2) * (2 * 2) * 1 * 2
    inner = 2 * (8 * 3 + 3 * 2) + 2 * (1 * 3 + 3 * 8)
    assert flops.conv64_step(1, 4, (1, 2), 2, 3, 1) == 3 * (2 * conv + inner) - conv


def canned() -> dict:
    def side(rate, key, **more):
        return {key: [rate, rate + 2, rate + 1], "memory_gib": 0.5, **more}

    extra = {"gflops": 90.0, "peak_gflops": 180.0, "compile_s": 2.0}
    mlp = [
        {"ours": side(20_000, "images_per_s", **extra), "torch-memory": side(rate, "images_per_s"), "torch-loader": e}
        for rate, e in ((8_000, {"error": "no pillow"}), (9_000, side(2_000, "images_per_s")), (10_000, {"error": "?"}))
    ]
    conv = [{"ours": side(12, "steps_per_s", **extra), "torch-conv": {"error": "torch is not installed"}}]
    sweep = {"lines": [{"batch": 16, "images_per_s": 3000.0, "compile_s": 1.0}]}
    startup = {"seconds": {"python": [0.1], "import": [0.3], "help": [0.1, 2.4, 2.5]}}
    return {"mlp": mlp, "conv": conv, "sweep": sweep, "startup": startup, "train": {"memory_gib": 0.9}}


def test_summary_and_table_of_canned_results():
    raw = canned()
    summary = report.summarize(raw)
    assert summary["mlp"]["ratio"]["torch-memory"] == pytest.approx(20_001 / 9_001)
    assert summary["mlp"]["ratio"]["torch-loader"] == pytest.approx(20_001 / 2_001)
    assert summary["mlp"]["share_of_peak"] == 0.5
    assert summary["conv"]["ratio"] == {}
    assert report.errors(raw) == ["no pillow", "?", "torch is not installed"]
    text = io.StringIO()
    Console(file=text, width=120).print(report.table(summary, "title"))
    lines = {line.split("│")[1].strip(): line for line in text.getvalue().splitlines() if line.count("│") > 3}
    assert "2.22x" in lines["MLP VAE: ours / torch-memory"]
    assert "met" in lines["MLP VAE: ours / torch-memory"]
    assert "missed" in lines["vae-jax --help"]
    json.dumps(summary)


def test_a_job_runs_in_its_own_process():
    (line,) = jobs.ours("mlp", rounds=2, quick=True, steps=2)
    assert len(line["images_per_s"]) == 2
    assert 0.05 < line["memory_gib"] < 1.5
    assert line["compile_s"] > 0


def test_what_cannot_run_is_named():
    with pytest.raises(jobs.Failed, match=r"no nothing\.py"):
        jobs.peer("nothing.py", "images_per_s")
    with pytest.raises(jobs.Failed, match="boom"):
        jobs.execute(["-c", "raise SystemExit('boom')"])
