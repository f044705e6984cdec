"""Second stages: training on the codes of a run, what is frozen, samples, and what is refused."""

import json
import shutil

import jax
import numpy as np
import pytest
import support
from options import cli, covers, differ, done, make, tiny
from scipy.stats import norm

import vae_jax as vj
from vae_jax import prng
from vae_jax.likelihoods import Gaussian
from vae_jax.models import VAE, VQVAE, Autoencoder, SecondStage
from vae_jax.models.stage2 import FlowMatching, Masked, Transformer
from vae_jax.models.stage2.config import PriorCondition
from vae_jax.networks import MLP, ResidualConv
from vae_jax.quantizers import FSQ, VQ
from vae_jax.runs.run import Run

FIRST = VQVAE(4, ResidualConv(8, 1, 1, 4), Gaussian(0.2), FSQ((4, 3)))
SECOND = SecondStage(generator=Transformer(8, 1, 2), condition=PriorCondition("label"))
PLACES = 16  # codes of one example: 4 x 4


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return make(tmp_path_factory.mktemp("runs") / "first", tiny(FIRST))


@pytest.fixture(scope="module")
def second(first, tmp_path_factory):
    """A second stage whose generator was moved away from its first weights, so that conditions and codes matter."""
    folder = tmp_path_factory.mktemp("runs") / "second"
    run = vj.train_run(tiny(SECOND, **{"optimizer.lr": 0.3}), folder, stage1=first.path, quiet=True)
    return Run.load(run.path)


@pytest.fixture
def experiment(tmp_path):
    """The file of an experiment that is `SECOND` on digits."""
    file = tmp_path / "prior.py"
    file.write_text(
        "from vae_jax.config import Config\nfrom vae_jax.data import DataConfig\n"
        "from vae_jax.models import SecondStage\nfrom vae_jax.models.stage2 import Transformer\n\n\n"
        "def get_config():\n    return Config(4, data=DataConfig('digits', batch_size=8), "
        "model=SecondStage(generator=Transformer(8, 1, 2)))\n"
    )
    return file


@covers("train", "stage1")
def test_a_second_stage_trains_on_the_codes_of_a_run_that_stays_as_it_is(first, experiment, tmp_path):
    done("train", experiment, "--stage1", first.path, "--workdir", tmp_path / "second", "--steps", 4, "--quiet")
    run, before = Run.load(tmp_path / "second"), first.restore()
    state = run.restore()
    held = state.model_state["first"]
    jax.tree.map(np.testing.assert_array_equal, held["params"], before.eval_params)
    assert run.config.model.first == FIRST
    assert run.stage1 is not None
    assert (run.stage1.path, run.stage1.step) == (str(first.path), 4)
    # Codes, pictures and reconstructions are those of the first stage.
    x = run.examples("test", np.arange(5))["x"]
    np.testing.assert_array_equal(vj.encode(run, x).mean, vj.encode(first, x).mean)
    np.testing.assert_array_equal(vj.reconstruct(run, x), vj.reconstruct(first, x))
    # Both stages are measured: the rate is that of the trained prior, not that of uniform codes.
    metrics = json.loads((run.path / "eval.json").read_text())["metrics"]
    assert {"elbo", "rate", "distortion", "usage", "perplexity", "bits_per_image"} <= metrics.keys()
    assert metrics["rate"]["value"] != pytest.approx(PLACES * np.log(12), rel=1e-3)
    assert metrics["rate"]["value"] == pytest.approx(PLACES * np.log(12), rel=0.3)


def test_a_run_needs_its_first_stage_no_more_once_it_has_begun(second, first, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(second.path, copy)
    held = json.loads((copy / "config.json").read_text())
    held["stage1"]["path"] = str(tmp_path / "gone")
    (copy / "config.json").write_text(json.dumps(held))
    run = vj.resume(copy, steps=6, quiet=True)
    assert int(run.state.step) == 6
    jax.tree.map(np.testing.assert_array_equal, run.state.model_state["first"]["params"], first.restore().eval_params)


def test_a_run_stopped_before_its_first_checkpoint_takes_the_same_weights_or_none(second, first, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(second.path, copy)
    shutil.rmtree(copy / "checkpoints")
    assert int(vj.resume(copy, quiet=True).state.step) == 4
    shutil.rmtree(copy / "checkpoints")
    held = json.loads((copy / "config.json").read_text())
    held["stage1"]["sha256"] = "0" * 64
    (copy / "config.json").write_text(json.dumps(held))
    with pytest.raises(vj.InputError, match="has other weights at step 4 than those that it was given"):
        vj.resume(copy, quiet=True)


def test_a_second_stage_can_start_with_the_weights_of_another(second, tmp_path):
    done("train", "--init-from", second.path, "--workdir", tmp_path / "again", "--steps", 1, "--quiet")
    again = Run.load(tmp_path / "again")
    assert again.stage1 == second.stage1
    assert again.config.model == second.config.model


@covers("sample", "guidance", "top-k", "top-p")
def test_samples_are_those_of_the_generator_with_its_choices(second, tmp_path):
    def images(*words):
        out = tmp_path / "s.npz"
        out.unlink(missing_ok=True)
        done("sample", second.path, "--n", 6, "--label", 3, "--out", out, *words)
        with np.load(out) as held:
            return held["images"]

    def wanted(temperature=1.0, **choices):
        state, model = second.restore(), second.model
        key = prng.site_key(jax.random.key(0), "prior")
        cond = np.eye(10, dtype=np.float32)[[3] * 6]
        params, held = state.eval_params, state.model_state
        z = model.prior.sample(params, held, key, 6, cond=cond, temperature=temperature, **choices)
        return np.asarray(model.decode(params, held, z).mean())

    plain = images()
    np.testing.assert_allclose(plain, wanted(), atol=1e-5)
    np.testing.assert_allclose(images("--guidance", 3), wanted(guidance=3.0), atol=1e-5)
    np.testing.assert_allclose(images("--top-k", 2, "--top-p", 0.9), wanted(top_k=2, top_p=0.9), atol=1e-5)
    assert differ(plain, images("--guidance", 3))
    # Of the most probable code alone there is one sample.
    greedy = images("--top-k", 1)
    np.testing.assert_array_equal(greedy, np.broadcast_to(greedy[:1], greedy.shape))
    np.testing.assert_array_equal(greedy, images("--temperature", 0))


@covers("sample", "prompt", "prompt-length")
def test_samples_continue_the_codes_of_images(second, tmp_path):
    x = second.examples("test", np.arange(3))["x"]
    np.savez(tmp_path / "x.npz", images=x)
    done("encode", second.path, "--input", tmp_path / "x.npz", "--out", tmp_path / "codes.npz")
    with np.load(tmp_path / "codes.npz") as held:
        codes = held["mean"]
    assert codes.dtype == np.int32
    drawn = vj.sample(second.path, 3, prompt=codes[:, :12])
    done("sample", second.path, "--n", 3, "--prompt", tmp_path / "codes.npz", "--prompt-length", 12,
         "--out", tmp_path / "s.npz")  # fmt: skip
    with np.load(tmp_path / "s.npz") as held:
        np.testing.assert_array_equal(held["images"], drawn)
    # Where all codes are given, nothing is drawn.
    whole = vj.sample(second.path, 3, prompt=codes)
    np.testing.assert_allclose(whole, vj.decode(second.path, codes), atol=1e-6)


def test_codes_are_whole_numbers_out_and_in(second):
    codes = vj.encode(second.path, second.examples("test", np.arange(2))["x"]).mean
    assert codes.dtype == np.int32
    for bad in (codes + 12, codes + 0.5):
        with pytest.raises(vj.InputError, match="is not an index into the codebook; use whole numbers from 0 to 11"):
            vj.decode(second.path, bad)


@covers("compress", "out", "split", "batch-size", "step")
@covers("decompress", "out", "pixels", "dpi", "step")
def test_a_compressed_file_holds_the_codes_bit_for_bit(second, tmp_path, capsys):
    file = tmp_path / "x.vjc"
    done("compress", second.path, "digits", "--split", "test", "--batch-size", 70, "--step", 4, "--out", file)
    said = capsys.readouterr().out
    assert "180 examples" in said
    assert "PNG of the same images, without loss" in said
    codes = vj.encode(second.path, "digits", split="test").mean
    done("decompress", second.path, file, "--pixels", "mode", "--step", 4, "--out", tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz") as held:
        np.testing.assert_array_equal(held["codes"], codes)
        np.testing.assert_allclose(held["images"], vj.decode(second.path, codes, pixels="mode"), atol=1e-6)
    done("decompress", second.path, file, "--dpi", 50, "--out", tmp_path / "y.png")
    # About as many bits as the prior says, and what a header takes.
    found = vj.load(second.path).compress("digits", split="test")
    assert found.data == file.read_bytes()
    assert 8 * len(found.data) < 1.02 * found.bits.sum() + 8 * 1000
    np.testing.assert_array_equal(vj.load(second.path).decompress(found.data).codes, codes)


def test_a_file_that_is_damaged_or_of_another_prior_is_refused_and_nothing_is_written(second, first, tmp_path, capsys):
    file, out = tmp_path / "x.vjc", tmp_path / "y.npz"
    done("compress", second.path, "digits", "--split", "test", "--out", file)
    held = file.read_bytes()
    file.write_bytes(held[:-30] + bytes([held[-30] ^ 1]) + held[-29:])
    assert str(file) in refused(capsys, "decompress", second.path, file, "--out", out)
    file.write_bytes(held)
    other = make(tmp_path / "other", tiny(SecondStage(FIRST, Transformer(8, 1, 2))))
    assert "another prior" in refused(capsys, "decompress", other.path, file, "--out", out)
    assert "no such file" in refused(capsys, "decompress", second.path, tmp_path / "no.vjc", "--out", out)
    assert "does not have a prior that draws" in refused(capsys, "compress", first.path, "digits", "--out", file)
    assert "end it with .vjc" in refused(capsys, "compress", second.path, "digits", "--out", tmp_path / "x.zip")
    assert not out.exists()
    assert file.read_bytes() == held


def refused(capsys, *words) -> str:
    assert cli(*words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


@covers("sample", "passes")
def test_what_the_generator_does_not_read_is_refused(second, first, tmp_path, capsys):
    plain = make(tmp_path / "plain", tiny(SecondStage(FIRST, Transformer(8, 1, 2))))
    assert "--passes: is not read by the prior of" in refused(capsys, "sample", second.path, "--passes", 3)
    assert "it must be 1 or more" in refused(capsys, "sample", second.path, "--top-k", 0)
    assert "above 0 and at most 1" in refused(capsys, "sample", second.path, "--top-p", 1.5)
    assert "has no condition to be guided by" in refused(capsys, "sample", plain.path, "--guidance", 2)
    assert "leave it out" in refused(capsys, "sample", plain.path, "--prompt-length", 2)
    with pytest.raises(vj.InputError, match="has 17 codes, but an example has 16"):
        vj.sample(second.path, 1, prompt=np.zeros(17, int))
    with pytest.raises(vj.InputError, match="at place 0, where codes are 0 to 11"):
        vj.sample(second.path, 1, prompt=np.full(3, 12))
    # A first stage alone draws no codes: it is told what does.
    assert "--stage1" in refused(capsys, "sample", first.path)


def test_a_run_that_cannot_be_the_first_stage_is_refused(first, second, experiment, tmp_path, capsys):
    out = ("--workdir", tmp_path / "out", "--quiet")
    vae = make(tmp_path / "vae", tiny(VAE(3, MLP((8,)))))
    cases = {
        "was trained on images (8, 8, 1), but these data are images": ("--stage1", first.path, "--data", "sprites"),
        "generates codes, but the latents of the first stage are real vectors": ("--stage1", vae.path),
        "is a second stage itself; name its own first stage": ("--stage1", second.path),
        "a second stage is trained on the codes of a trained run": (),
        "no such folder": ("--stage1", tmp_path / "nowhere"),
        "the first stage is as its run has it": ("--stage1", first.path, "--model.first.features", 8),
    }
    for words, given in cases.items():
        assert words in refused(capsys, "train", experiment, *given, *out)
    assert "has no first stage" in refused(capsys, "train", "vae_digits", "--stage1", first.path, *out)
    alone = "as with `vae-jax train EXP --stage1 RUN --seed 0`"
    assert alone in refused(capsys, "sweep", experiment, "--seeds", "0:2", *out[:2])
    assert not (tmp_path / "out").exists()


def same_first(second, first) -> None:
    """Asserts that the first stage in a run's newest checkpoint is that of another run, bit for bit."""
    held, before = second.restore().model_state["first"], first.restore()
    jax.tree.map(np.testing.assert_array_equal, held["params"], before.eval_params)
    jax.tree.map(np.testing.assert_array_equal, held.get("state", {}), before.model_state)


def test_no_mean_over_microbatches_moves_a_first_stage_with_a_state(tmp_path):
    vq = VQVAE(4, ResidualConv(8, 1, 1, 4), Gaussian(0.2), VQ(codes=8))
    first = make(tmp_path / "first", tiny(vq, ema_decay=0.5))
    config = tiny(SecondStage(generator=Transformer(8, 1, 2)), accumulate=2, **{"data.batch_size": 16})
    second = vj.train_run(config, tmp_path / "second", stage1=first.path, quiet=True)
    same_first(Run.load(second.path), first)


def test_a_flow_over_the_latents_of_a_vae_has_the_rate_of_both_distributions(tmp_path):
    """A flow that has not learned yet is a Gaussian with the moments of the latents."""
    first = make(tmp_path / "first", tiny(VAE(3, MLP((8,)))))
    config = tiny(SecondStage(generator=FlowMatching(8, 1)), **{"optimizer.lr": 1e-12})
    second = Run.load(vj.train_run(config, tmp_path / "second", stage1=first.path, quiet=True).path)
    same_first(second, first)
    state, batch = second.restore(), second.examples("test", np.arange(6))
    ctx = second.model.context(batch, train=False)
    terms = second.model.terms(state.eval_params, state.model_state, jax.random.key(3), batch, ctx)
    keys = prng.site_keys(prng.example_keys(jax.random.key(3), ctx.index), "encode")
    held = state.model_state["first"]
    code = first.model.encode(held["params"], held.get("state", {}), keys, batch)
    moments = state.model_state["latents"]
    log_p = norm.logpdf(np.asarray(code.z), moments["mean"], moments["std"]).sum(-1)
    np.testing.assert_allclose(terms["rate"], code.posterior.log_prob(code.z) - log_p, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(terms["elbo"], -(terms["distortion"] + terms["rate"]), rtol=1e-5)


def test_passes_are_those_of_the_generator(first, tmp_path):
    masked = make(tmp_path / "masked", tiny(SecondStage(FIRST, Masked(8, 1, 2, passes=PLACES))))
    one, own = (vj.sample(masked.path, 4, passes=passes) for passes in (1, None))
    assert differ(one, own)
    np.testing.assert_array_equal(own, vj.sample(masked.path, 4, passes=PLACES))


def test_a_prior_that_always_saw_its_condition_is_neither_guided_nor_does_without(tmp_path, capsys):
    always = SecondStage(FIRST, Transformer(8, 1, 2), PriorCondition("label", drop=0.0))
    run = make(tmp_path / "always", tiny(always))
    assert "knows no p(z) to be guided away from" in refused(capsys, "sample", run.path, "--guidance", 2)
    found = vj.load(run.path).compress("digits", split="test")
    np.testing.assert_array_equal(vj.load(run.path).decompress(found.data).codes, found.codes)
    labels = np.eye(10, dtype=np.float32)[run.examples("test", np.arange(180))["label"]]
    state = run.restore()
    coder = run.model.prior.coder(state.eval_params, state.model_state)
    np.testing.assert_allclose(found.bits, coder.bits(found.codes, labels), rtol=1e-5)


def test_a_point_code_has_no_rate(tmp_path):
    """Whatever density is fitted to points, the first stage could raise it by moving them closer together."""
    model = SecondStage(Autoencoder(3, MLP((8,))), FlowMatching(8, 1)).build(support.spec((8, 8, 1)))
    batch = support.images(4, (8, 8, 1))
    params, state = model.init(jax.random.key(0), batch)
    terms = model.terms(params, state, jax.random.key(1), batch, model.context(batch, train=False))
    assert terms.keys() == {"distortion", "mse"}


def test_a_run_goes_on_with_the_config_of_its_experiment(second):
    again = vj.train_run(tiny(SECOND, steps=5, **{"optimizer.lr": 0.3}), second.path, resume=True, quiet=True)
    assert int(again.state.step) == 5
    assert again.config.model.first == FIRST
