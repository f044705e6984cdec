"""The benchmark's arithmetic, its table, and that the parts which need no torch run."""

from __future__ import annotations

import importlib
import io
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from benchmarks import codes, flops, jobs, report
from benchmarks.sizes import QUANTIZE, SAMPLING
from vae_jax import models, networks, spec
from vae_jax.model import Context
from vae_jax.models.stage2 import Around, Choices, Transformer
from vae_jax.spaces import Codes


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
    ours = side(8e4, "vectors_per_s", **extra, extra_gib=0.21, matrix_gib=2.0)
    quantize = [
        {"ours": ours, "torch-library": side(1e4, "vectors_per_s", extra_gib=9.0), "torch-plain": {"error": "?"}}
    ]
    vq = [{"ours": side(7, "steps_per_s", compile_s=3.0), "torch-plain": side(7, "steps_per_s")}]
    sampling = {"tokens_per_s": {"cached": [400.0, 900.0, 500.0], "uncached": [100.0, 100.0, 50.0]}, "memory_gib": 0.4}
    pairs = {"mlp": mlp, "conv": conv, "quantize": quantize, "vq": vq}
    return {**pairs, "sampling": sampling, "sweep": sweep, "startup": startup, "train": {"memory_gib": 0.9}}


def printed(summary: dict, quick: bool = False) -> str:
    text = io.StringIO()
    Console(file=text, width=120).print(report.table(summary, "title", quick))
    return text.getvalue()


def test_summary_and_table_of_canned_results():
    raw = canned()
    summary = report.summarize(raw)
    assert summary["mlp"]["ratio"]["torch-memory"] == pytest.approx(20_001 / 9_001)
    assert summary["mlp"]["ratio"]["torch-loader"] == pytest.approx(20_001 / 2_001)
    assert summary["mlp"]["share_of_peak"] == 0.5
    assert summary["conv"]["ratio"] == {}
    assert report.errors(raw) == ["no pillow", "?", "torch is not installed"]
    text = printed(summary)
    lines = {line.split("│")[1].strip(): line for line in text.splitlines() if line.count("│") > 3}
    assert "2.22x" in lines["MLP VAE: ours / torch-memory"]
    assert "met" in lines["MLP VAE: ours / torch-memory"]
    assert "missed" in lines["vae-jax --help"]
    # A tenth of the matrix of all distances is the limit of ours; the peer has none.
    assert all(word in lines["quantize: peak over what was there, ours"] for word in ("0.210", "<= 0.2 GiB", "missed"))
    assert "9.000 GiB" in lines["quantize: peak over what was there, torch-library"]
    assert "met" in lines["VQ-VAE: ours / torch-plain"]
    assert "VQ-VAE: share of matmul peak" not in lines
    assert "9.00x" in lines["transformer prior: cached / uncached"]
    json.dumps(summary)
    # The caption has the sizes that were measured; targets are not for small ones.
    small = " ".join(printed(summary, quick=True).split())
    assert "met" in text
    assert not {"met", "missed", ">="} & set(small.split())
    for quick, shown in ((False, " ".join(text.split())), (True, small)):
        size, prior = QUANTIZE[quick], SAMPLING[quick]
        assert f"quantize: {size.vectors:,} vectors of length {size.features}, {size.codes:,} codes;" in shown
        assert f"transformer prior of {prior.side}x{prior.side} codes, batch {prior.batch}." in shown


def test_a_job_runs_in_its_own_process():
    (line,) = jobs.ours("mlp", rounds=2, quick=True, steps=2)
    assert len(line["images_per_s"]) == 2
    assert 0.05 < line["memory_gib"] < 1.5
    assert line["compile_s"] > 0


def test_what_cannot_run_is_named(monkeypatch):
    with pytest.raises(jobs.Failed, match=r"no nothing\.py"):
        jobs.peer("nothing.py")
    monkeypatch.setattr(importlib.util, "find_spec", {"torch": "there"}.get)
    with pytest.raises(jobs.Failed, match=r"vector_quantize_pytorch is not installed: pip install -e '\.\[bench\]'"):
        jobs.torch_quantize("library", 1, True)
    with pytest.raises(jobs.Failed, match="boom"):
        jobs.execute(["-c", "raise SystemExit('boom')"])


def test_the_quantizer_takes_a_tenth_of_all_distances():
    """As it is compiled for 65,536 vectors and 8,192 codes; nothing runs."""
    size = QUANTIZE[False]
    assert size.matrix_gib == 2.0
    assert codes.program_gib(codes.quantizer(size)) <= size.matrix_gib / 10


def test_full_passes_draw_the_codes_of_the_cache():
    """Both sides of the ratio of `sampling` make the same samples."""
    prior, around = Transformer(width=8, depth=1, heads=2), Around(Codes((2, 2, 1), 5))
    params = prior.init(jax.random.key(0), around)
    # Far from the start, where all codes are equally likely and a wrong pass would hardly show.
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(p.size), p.shape), params)
    cached = jax.jit(lambda key: prior.sample(params, key, 8, None, around, Choices()))
    full = jax.jit(lambda key: codes.full_passes(prior, params, key, 8, around))
    found = np.asarray(cached(jax.random.key(1)))
    np.testing.assert_array_equal(found, full(jax.random.key(1)))
    assert len(np.unique(found)) > 2
