"""The contract of every registered component. A new entry of a registry is tested without another line.

Each entry of MODELS, NETWORKS, LIKELIHOODS, POSTERIORS, PRIORS, QUANTIZERS, GENERATORS, OBJECTIVES, GRADIENTS and
SCHEDULES is built once in a small model, whose other parts are the first of each registry that go with it; a few
combinations show that the pieces do not depend on each other. The files test_contract*.py run these functions, each on
a part of the cases, so that they can run beside each other.
"""

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import support
import toys

from vae_jax import prng, spaces, train
from vae_jax.evaluation.needs import has_bound, has_joint
from vae_jax.likelihoods import LIKELIHOODS, AutoregressivePixels, GaussianOptimal, GaussianPixelwise
from vae_jax.model import features_of
from vae_jax.models import MODELS, VAE, VQVAE, Autoencoder
from vae_jax.models.stage2 import GENERATORS
from vae_jax.models.stage2.config import PriorCondition
from vae_jax.networks import MLP, NETWORKS, DeepConv, LeNet, PooledConv
from vae_jax.objectives import GRADIENTS, OBJECTIVES, Beta, Elbo
from vae_jax.posteriors import POSTERIORS
from vae_jax.priors import PRIORS, Normal
from vae_jax.quantizers import QUANTIZERS
from vae_jax.schedules import SCHEDULES, Cyclical

B, D = 4, 3
SMALL = MLP(hidden=(16,))
# Leaves that get no gradient by design: case -> substrings of their paths. Say why beside each.
NO_GRADIENT: dict[str, tuple[str, ...]] = {}


# Steps after which every leaf gets a gradient: the output starts at 0, and so do the gates of its blocks.
LATE = {"generator-diffusion": 12, "generator-flow-matching": 4}


def cases() -> dict[str, tuple]:
    """Returns name -> (model config, image shape)."""
    tiny, small = (6, 5, 1), (16, 16, 1)
    found = {f"model-{n}": (support.small(cls, D, SMALL), tiny) for n, cls in MODELS.items()}
    found |= {f"network-{n}": (support.around(D, support.shrink(cls())), small) for n, cls in NETWORKS.items()}
    tables = {
        "likelihood": LIKELIHOODS,
        "posterior": POSTERIORS,
        "prior": PRIORS,
        "objective": OBJECTIVES,
        "gradient": GRADIENTS,
    }
    for part, table in tables.items():
        found |= {
            f"{part}-{n}": (support.fitting(D, SMALL, **{part: support.shrink(cls())}), tiny)
            for n, cls in table.items()
        }
    found |= {
        f"quantizer-{n}": (VQVAE(4, support.GRID, quantizer=small_codes(cls())), tiny) for n, cls in QUANTIZERS.items()
    }
    label = PriorCondition("label")
    found |= {f"generator-{n}": (support.second(cls(), condition=label), tiny) for n, cls in GENERATORS.items()}
    found |= {f"schedule-{n}": (VAE(D, SMALL, objective=Beta(cls())), tiny) for n, cls in SCHEDULES.items()}
    # Of likelihoods an autoencoder sees only parameters, a running state, and whether it is a density.
    some = ("bernoulli", "gaussian-learned", "gaussian-optimal", "ms-ssim")
    found |= {f"ae-likelihood-{n}": (Autoencoder(D, SMALL, LIKELIHOODS[n]()), tiny) for n in some}
    # A user's models, whose latents are no vectors.
    found |= {"model-grid": (toys.Grid(), tiny), "model-levels": (toys.Levels(), tiny)}
    return unique(found) | {
        "deep-conv+pixelwise+rgb": (VAE(D, support.shrink(DeepConv()), GaussianPixelwise()), (16, 16, 3)),
        "lenet+nearest+odd": (VAE(D, support.shrink(LeNet(upsample="nearest"))), (9, 7, 1)),
        "pooled+group+optimal+cyclical": (
            VAE(D, support.shrink(PooledConv(norm="group")), GaussianOptimal(), Normal(0.5, 2.0), Beta(Cyclical(40))),
            (10, 12, 2),
        ),
        "ae-mask": (Autoencoder(D, SMALL, corruption="mask"), tiny),
        "ae-gaussian": (Autoencoder(D, SMALL, corruption="gaussian"), tiny),
    }


def small_codes(quantizer):
    """Returns a quantizer with few codes."""
    few = {"codes": 8, "bits": 3, "levels": (3, 2)}
    names = {f.name for f in dataclasses.fields(quantizer)}
    return dataclasses.replace(quantizer, **{name: value for name, value in few.items() if name in names})


def unique(found: dict[str, tuple]) -> dict[str, tuple]:
    """Returns the cases without those that another one equals: the default of each registry makes the same model."""
    kept: dict[str, tuple] = {}
    for name, case in found.items():
        if case not in kept.values():
            kept[name] = case
    return kept


CASES = cases()
# Functions that look at one side of a model only, and the cases in which that side differs.
ONLY = {
    "test_bfloat16_keeps_float32_results": ("model-", "network-", "likelihood-"),
    "test_finite_where_a_part_strays": ("model-", "likelihood-", "posterior-", "prior-"),
    "test_finite_far_from_the_data": ("model-", "network-", "likelihood-", "ae-"),
    "test_seeds_and_strengths_are_an_axis": ("model-", "objective-", "prior-", "posterior-"),
}


# Functions that hold what is the same code for all components, compile much for it, and run in the suite on these
# cases alone; `make test-slow` has the others.
IN_SUITE = {
    # Every operation is a program of its own.
    "test_loss_is_finite_and_the_same_jitted_and_eager": (
        "model-", "network-mlp", "likelihood-gaussian-learned", "posterior-full-gaussian", "posterior-categorical",
        "prior-mog", "objective-factor", "gradient-rloo", "schedule-linear",
    ),
    # Two programs more: of models, of a draw by rejection, of a running state, of a critic, of a strength.
    "test_seeds_and_strengths_are_an_axis": (
        "model-", "posterior-von-mises", "prior-resampled", "objective-factor", "objective-beta",
    ),
}  # fmt: skip


def select(function: str, *prefixes: str, but: tuple[str, ...] = ()) -> list:
    """Returns the cases of a test function whose names start with one of the prefixes and with none of `but`."""
    only, now = ONLY.get(function, ("",)), IN_SUITE.get(function, ("",))
    found = [n for n in CASES if n.startswith(prefixes or "") and not n.startswith(but) and n.startswith(only)]
    return [pytest.param(n, marks=[] if n.startswith(now) else pytest.mark.slow) for n in found]


def functions(*prefixes: str, but: tuple[str, ...] = ()) -> dict:
    """Returns the test functions of this file that have any of these cases, by name."""
    found = {n: f for n, f in globals().items() if n.startswith("test_")}
    return {n: f for n, f in found.items() if select(n, *prefixes, but=but)}


class Built:
    """One case with the two programs that the tests share: compiling is what this file spends its time on."""

    def __init__(self, config, shape):
        self.config, self.shape = config, shape
        self.model = config.build(support.spec(shape))
        # Of likelihoods of counts, on counts.
        self.counts = getattr(getattr(config, "likelihood", None), "counts", False)
        self.batch = support.images(B, shape, counts=self.counts)
        self.stochastic = getattr(config, "corruption", "any") != "none"
        self.coupled = getattr(getattr(config, "objective", None), "couples", False)
        if hasattr(config, "quantizer"):
            self.stochastic = config.quantizer.draws
            # The entropy of how often each code is chosen is that of the batch.
            self.coupled = getattr(config.quantizer, "entropy", 0.0) > 0
        if isinstance(config, VAE):
            # Draws of the prior, a permutation or a probe are noise even beside a deterministic code.
            self.stochastic = config.objective.noisy or not config.posterior.deterministic
        self.latents = self.model.about.latents
        self.samples = max(getattr(getattr(config, p, None), "samples", 1) for p in ("objective", "gradient"))
        tx = gradient_recorder(lr=1e-2)
        self.raw_init = train.make_init(self.model, tx, ema=True)
        self.init = jax.jit(self.raw_init)
        self.start = self.init(jax.random.key(0), self.batch)
        self.traces = 0
        step = self.raw_step = train.make_train_step(self.model, tx, ema_decay=0.9)

        def counted(state, batch):
            assert not self.traces, "a test gives the step arguments of other shapes or types: it is compiled again"
            self.traces += 1
            return step(state, batch)

        self.step = jax.jit(counted)
        self.evaluate = jax.jit(self._evaluate)
        self._abstract: dict[str, Any] = {}
        self.params, self.state = self.start.params, self.start.model_state
        # A conditional model decodes a code only with its features.
        told = features_of(self.model)
        self.cond = None if told is None else told(self.params, self.state, self.batch)

    def abstract(self, name: str, function, *args):
        """Returns the shapes of what a function gives, traced once, under jax's own check that no key is used twice."""
        if name not in self._abstract:
            self._abstract[name] = checked(function, *args)
        return self._abstract[name]

    def context(self, train: bool, **hyper):
        return support.context(self.model, B, train=train, **hyper)

    def latent(self, value: float):
        """Returns latents of B examples whose entries are all equal."""
        return spaces.shaped(self.latents, jnp.full((B, spaces.size(self.latents)), value))

    def _evaluate(self, key, batch, index, hyper):
        ctx = self.context(train=False)._replace(index=index, hyper=hyper)
        return (
            self.model.terms(self.params, self.state, key, batch, ctx),
            *self.model.loss(self.params, self.state, key, batch, ctx),
        )


def gradient_recorder(lr: float) -> optax.GradientTransformation:
    """Returns gradient descent with bounded steps, whose state is the last gradient."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda grads, state, params=None: (jax.tree.map(lambda g: -lr * jnp.tanh(g), grads), grads),
    )


def checked(function, *args):
    """Returns the shapes of what a function gives; a key that is drawn from twice raises KeyReuseError."""
    with jax.debug_key_reuse(True):
        # A fresh jit: a cached trace would not be looked at again.
        return jax.eval_shape(jax.jit(lambda *a: function(*a)), *args)


@functools.cache
def built(name: str) -> Built:
    return Built(*CASES[name])


def test_shapes(name):
    """init, loss, terms, encode, decode, sample and the bound trace abstractly and have the documented shapes."""
    case = built(name)
    model, key = case.model, jax.random.key(1)
    params, state = abstract_init(case)
    assert isinstance(params, dict)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))

    loss = functools.partial(model.loss, ctx=case.context(train=True))
    value, aux = jax.eval_shape(loss, params, state, key, case.batch)
    chex.assert_shape(value, ())
    assert value.dtype == jnp.float32
    chex.assert_trees_all_equal_shapes_and_dtypes(aux.state, state)
    # A second stage does not decode while it trains.
    wanted = {"loss"} if hasattr(case.config, "first") else {"loss", "distortion"}
    assert wanted <= set(aux.metrics)
    assert all(m.dtype == jnp.float32 for m in aux.metrics.values())

    terms = abstract_terms(case)
    assert "mse" in terms
    for term, leaf in terms.items():
        # A term of several levels is a tree.
        chex.assert_shape(jax.tree.leaves(leaf), (B, leaf.shape[-1]) if term == "kl_per_dim" else (B,))

    for keys in (None, jax.random.split(key, B)):
        encoding = jax.eval_shape(model.encode, params, state, keys, case.batch)
        wanted = jax.tree.map(
            lambda space: jax.ShapeDtypeStruct((B, *space.shape), jnp.int32 if space.nominal else jnp.float32),
            case.latents,
        )
        chex.assert_trees_all_equal_shapes_and_dtypes(encoding.z, wanted)

    def decoded(params, state, z):
        return looks(model.decode(params, state, z, cond=case.cond), B, case.shape)

    *pictures, log_prob = jax.eval_shape(decoded, params, state, encoding.z)
    chex.assert_shape(pictures, (B, *case.shape))
    chex.assert_shape(log_prob, (B,))
    assert {leaf.dtype for leaf in (*pictures, log_prob)} == {jnp.dtype(jnp.float32)}
    if model.prior is not None:
        chex.assert_shape(abstract_sample(case)[:3], (DRAWN, *case.shape))
    if has_bound(model):
        chex.assert_shape(abstract_bound(case), (B,))
    if has_joint(model):
        chex.assert_shape(abstract_joint(case), (B,))


DRAWN = B + 3  # samples of the prior


def looks(p_x, n: int, shape: tuple[int, ...]) -> tuple:
    """Returns the mean, mode, a draw and the log-probability of zeros under n distributions of images."""
    keys = jax.random.split(jax.random.key(2), n)
    return p_x.mean(), p_x.mode(), p_x.sample(keys), p_x.log_prob(jnp.zeros((n, *shape)))


# What is traced for its shapes and for its keys, once for both.


def abstract_init(case: Built):
    return case.abstract("init", case.model.init, jax.random.key(1), case.batch)


def abstract_terms(case: Built):
    terms = functools.partial(case.model.terms, ctx=case.context(train=False))
    return case.abstract("terms", terms, case.params, case.state, jax.random.key(1), case.batch)


def abstract_sample(case: Built):
    def sample(params, state, key):
        return looks(case.model.sample(params, state, key, DRAWN, temperature=0.7), DRAWN, case.shape)

    return case.abstract("sample", sample, case.params, case.state, jax.random.key(1))


def abstract_bound(case: Built):
    bound = functools.partial(case.model.density.bound, ctx=case.context(train=False), k=3)
    return case.abstract("bound", bound, case.params, case.state, jax.random.key(1), case.batch)


def abstract_joint(case: Built):
    joint = functools.partial(joint_parts, case.model)
    return case.abstract("joint", joint, case.params, case.state, jax.random.key(1), case.batch)


def joint_parts(model, params, state, key, batch) -> tuple:
    """Returns log p(z), log p(x|z) and log p(x'|z) [B], z and x' drawn from the model."""
    joint = model.density.joint(params, state, batch)
    keys = jax.random.split(key, 2 * B)
    z = joint.sample_prior(keys[:B])
    drawn = model.density.joint(params, state, {**batch, **joint.sample_data(keys[B:], z)})
    return joint.prior.log_prob(z), joint.log_likelihood(z), drawn.log_likelihood(z)


def test_loss_is_finite_and_the_same_jitted_and_eager(name):
    case = built(name)
    _, metrics = case.step(case.start, case.batch)
    chex.assert_tree_all_finite(metrics)
    ctx, key = case.context(train=True)._replace(step=case.start.step), prng.step_key(case.start.key, case.start.step)
    eager, aux = case.model.loss(case.params, case.state, key, case.batch, ctx)
    assert eager == aux.metrics["loss"]
    metrics.pop("grad_norm")
    support.assert_trees_close(metrics, aux.metrics, rtol=1e-4, atol=1e-4)


def test_the_key_decides_the_noise(name):
    """Same key, same bits; another key, other gradients exactly when the model draws noise."""
    case = built(name)
    rekeyed = dataclasses.replace(case.start, key=jax.random.key(77))
    first, again, other = (case.step(s, case.batch) for s in (case.start, case.start, rekeyed))
    support.assert_trees_equal(first, again)
    assert (first[1]["grad_norm"] != other[1]["grad_norm"]) == case.stochastic


def test_no_key_is_used_twice(name):
    """Traced under jax's own check: initialization, a step, evaluation, the bound and samples.

    It sees a key that is drawn from twice. It does not see the same number folded into one key twice.
    """
    case = built(name)
    with pytest.raises(jax.errors.KeyReuseError):
        checked(lambda k: jax.random.normal(k) + jax.random.normal(k), jax.random.key(1))
    checked(case.raw_step, case.start, case.batch)
    abstract_init(case)
    abstract_terms(case)
    if case.model.prior is not None:
        abstract_sample(case)
    if has_bound(case.model):
        abstract_bound(case)
    if has_joint(case.model):
        abstract_joint(case)


def test_every_leaf_gets_a_gradient(name):
    case = built(name)
    # Not at step 0: what a KL warm-up multiplies by 0 there is alive later.
    later = dataclasses.replace(case.start, step=jnp.asarray(5, jnp.int32))
    for _ in range(LATE.get(name, 0)):
        later, _ = case.step(later, case.batch)
    grads = case.step(later, case.batch)[0].opt_state
    chex.assert_tree_all_finite(grads)
    dead = [jax.tree_util.keystr(path) for path, g in jax.tree_util.tree_leaves_with_path(grads) if not np.any(g)]
    allowed = NO_GRADIENT.get(name, ())
    assert [leaf for leaf in dead if not any(part in leaf for part in allowed)] == []


def test_steps_keep_the_structure_and_trace_once(name):
    case = built(name)
    state = case.start
    steps = 3 + LATE.get(name, 0)
    for i in range(steps):
        state, metrics = case.step(state, support.images(B, case.shape, seed=i, counts=case.counts))
        chex.assert_tree_all_finite(metrics)
    assert case.traces == 1
    chex.assert_trees_all_equal_shapes_and_dtypes(state, case.start)
    assert int(state.step) == steps
    # A first stage stays, bit for bit, and everything else moves.
    for entry in case.model.training.frozen:
        support.assert_trees_equal(state.model_state[entry], case.start.model_state[entry])
    support.assert_trees_equal((state.key, state.hyper), (case.start.key, case.start.hyper))
    for moved in (state.params, state.ema):
        for path, leaf in jax.tree_util.tree_leaves_with_path(jax.tree.map(jnp.subtract, moved, case.start.params)):
            assert np.any(leaf), f"{jax.tree_util.keystr(path)} did not move"


def test_evaluation_of_an_example_ignores_the_others(name):
    """Terms and loss of a batch are those of its examples one by one, under the keys of their indices."""
    case = built(name)
    key, index, hyper = jax.random.key(4), jnp.asarray([7, 2, 11, 3], jnp.int32), case.start.hyper
    terms, value, aux = case.evaluate(key, case.batch, index, hyper)
    losses = []
    for i in range(B):
        # The example alone, as often as the compiled batch is long.
        alone = jax.tree.map(lambda x, i=i: jnp.repeat(x[i : i + 1], B, axis=0), case.batch)
        terms_i, value_i, _ = case.evaluate(key, alone, jnp.repeat(index[i : i + 1], B), hyper)
        support.assert_trees_close(
            jax.tree.map(lambda t: t[0], terms_i), jax.tree.map(lambda t, i=i: t[i], terms), rtol=1e-4, atol=1e-4
        )
        losses.append(value_i)
    if not case.coupled:
        np.testing.assert_allclose(value, np.mean(losses), rtol=1e-5)
    # Evaluation neither learns nor corrupts: the running state stays, and loss and terms tell one story.
    support.assert_trees_equal(aux.state, case.state)
    if case.samples == 1 and "distortion" in aux.metrics:
        np.testing.assert_allclose(aux.metrics["distortion"], jnp.mean(terms["distortion"]), rtol=1e-5)


def test_metrics_are_unweighted_nats(name):
    """elbo = -(distortion + rate) whatever beta is; only `loss` is weighted."""
    case = built(name)
    key, index, hyper = jax.random.key(4), jnp.arange(B, dtype=jnp.int32), case.start.hyper
    terms, value, aux = case.evaluate(key, case.batch, index, hyper)
    metrics = aux.metrics
    assert metrics["loss"] == value
    if "distortion" not in metrics:  # a second stage, whose loss is that of its prior alone
        if "rate" in metrics and case.config.generator.likelihood == "exact":
            np.testing.assert_allclose(metrics["rate"], jnp.mean(terms["rate"]), rtol=1e-5)
        if "rate" in terms:
            np.testing.assert_allclose(terms["elbo"], -(terms["distortion"] + terms["rate"]), rtol=1e-5)
        return
    if "rate" not in terms:
        if not hasattr(case.config, "objective"):
            np.testing.assert_allclose(value, metrics["distortion"])
        return
    np.testing.assert_allclose(terms["elbo"], -(terms["distortion"] + terms["rate"]), rtol=1e-5)
    np.testing.assert_allclose(metrics["elbo"], -(metrics["distortion"] + metrics["rate"]), rtol=1e-5)
    if case.samples == 1:
        np.testing.assert_allclose(metrics["elbo"], jnp.mean(terms["elbo"]), rtol=1e-5)
    if "kl_per_dim" in terms:
        np.testing.assert_allclose(jnp.sum(terms["kl_per_dim"], -1), terms["rate"], rtol=1e-5)
        if case.samples == 1:
            np.testing.assert_allclose(jnp.sum(metrics["kl_per_dim"]), metrics["rate"], rtol=1e-5)
    if isinstance(case.config, VAE) and type(case.config.objective) in (Elbo, Beta):
        np.testing.assert_allclose(value, metrics["distortion"] + metrics["beta"] * metrics["rate"], rtol=1e-5)
        _, heavy, aux = case.evaluate(key, case.batch, index, {**hyper, "beta": jnp.asarray(1e3, jnp.float32)})
        # A rate without closed form is one sample's estimate, which near 0 may be negative.
        assert (heavy > value) == (metrics["rate"] > 0)
        support.assert_trees_close(
            {m: aux.metrics[m] for m in ("elbo", "distortion", "rate")},
            {m: metrics[m] for m in ("elbo", "distortion", "rate")},
        )


def test_bfloat16_keeps_float32_results(name):
    """In bfloat16 only the networks are: parameters, terms and loss are float32, finite and near the float32 ones."""
    case = built(name)
    model = dataclasses.replace(case.config, precision="bfloat16").build(support.spec(case.shape))
    shapes, _ = jax.eval_shape(model.init, jax.random.key(0), case.batch)
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}
    key, index = jax.random.key(4), jnp.arange(B, dtype=jnp.int32)
    loss = jax.jit(functools.partial(model.loss, ctx=case.context(train=False)))
    value, aux = loss(case.params, case.state, key, case.batch)
    _, reference, reference_aux = case.evaluate(key, case.batch, index, case.start.hyper)
    chex.assert_trees_all_equal_dtypes((value, aux), (reference, reference_aux))
    np.testing.assert_allclose(value, reference, rtol=0.03)
    # Of a mean over all pixels the roundings may cancel, in seven digits, on one machine or another.
    pairs = zip(jax.tree.leaves((value, aux.metrics)), jax.tree.leaves((reference, reference_aux.metrics)), strict=True)
    assert any(jnp.any(low != full) for low, full in pairs), "the compute type did not reach the networks"


def test_finite_far_from_the_data(name):
    """Codes that drive the decoder to outputs beyond 1e4 give finite log-probabilities, means and gradients."""
    case = built(name)
    if spaces.is_nominal(case.latents):
        far_entries(case)
        return
    decode = jax.jit(case.model.decode)
    probe = decode(case.params, case.state, case.latent(1.0), cond=case.cond)
    if isinstance(probe, AutoregressivePixels):
        probe = probe.given(case.batch["x"])  # its own leaves are the parameters, not the decoder's outputs
    spread = max(float(jnp.max(jnp.abs(jax.tree.leaves(probe)[0]))), 1e-2)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def log_prob(z):
        p_x = case.model.decode(case.params, case.state, z, cond=case.cond)
        return jnp.sum(p_x.log_prob(case.batch["x"])), p_x.mean()

    for scale in (1e4 / spread, -1e4 / spread):
        (value, mean), grad = log_prob(case.latent(scale))
        chex.assert_tree_all_finite((value, mean, grad))


def far_entries(case: Built) -> None:
    """Checks codes that are indices, of which none is far: the entries that they name are."""

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def log_prob(params, state):
        p_x = case.model.decode(params, state, case.latent(1))
        return jnp.sum(p_x.log_prob(case.batch["x"])), p_x.mean()

    def scaled(scale, path, leaf):
        # Codebooks are in the state or in the parameters.
        return leaf * np.asarray(scale, leaf.dtype) if "quantizer" in jax.tree_util.keystr(path) else leaf

    for scale in (1e4, -1e4):
        far = functools.partial(scaled, scale)
        params, state = jax.tree_util.tree_map_with_path(far, (case.params, case.state))
        chex.assert_tree_all_finite(log_prob(params, state))


def strayed(tree, scale: float):
    """Returns the parameters of one part with its outputs `scale` times as large.

    Networks: the last layer's weights times `scale`, its biases +-scale in turn. Other leaves (the log scales of a
    prior or a likelihood): +-scale in turn.
    """

    def swing(leaf):
        # Of the leaf's own type, not of a Python number's: the step would be compiled again for that.
        return np.where(np.arange(leaf.size).reshape(leaf.shape) % 2, -scale, scale).astype(leaf.dtype)

    if not isinstance(tree, dict):
        return swing(tree)
    if "w" in tree or "kernel" in tree:
        return {n: scale * np.asarray(leaf) if n in ("w", "kernel") else swing(leaf) for n, leaf in tree.items()}
    layers = [n for n in tree if n == "out" or (isinstance(tree[n], dict) and "w" in tree[n])]
    last = max(layers, default="")
    return {n: strayed(leaf, scale) if not layers or n == last else leaf for n, leaf in tree.items()}


def test_finite_where_a_part_strays(name):
    """Loss, rate and every gradient stay finite where outputs of encoder, decoder, prior, posterior or likelihood are
    100 and 1e4 times too large. Not the gradient's norm, whose square overflows from 1.8e19 on: there a run does stop.
    """
    case = built(name)
    head = "vae" if "vae" in case.params else "prior"
    for group, own in case.params[head].items():
        # Six couplings, each 1e4 times what it gets from the one before, leave float32 whatever their scales are.
        compounds = name == "prior-flow" and group == "prior"
        for scale in (1.0, 100.0) if compounds else (1.0, 100.0, 1e4, -1e4):
            params = case.params | {head: case.params[head] | {group: strayed(own, scale)}}
            after, metrics = case.step(dataclasses.replace(case.start, params=params), case.batch)
            metrics.pop("grad_norm")
            found = jax.tree_util.tree_leaves_with_path({"metrics": metrics, "gradient": after.opt_state})
            bad = [jax.tree_util.keystr(path) for path, leaf in found if not np.all(np.isfinite(leaf))]
            assert not bad, f"{group} x {scale:g}: {bad}"


def test_seeds_and_strengths_are_an_axis(name):
    """A vmapped sweep over seeds and hyper-parameters equals its members run alone."""
    case = built(name)
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    strengths = {n: jnp.asarray([0.5, 1.0, 8.0]) * value for n, value in case.model.training.hyper.items()}
    many = jax.jit(jax.vmap(case.raw_init, (0, None)))(keys, case.batch)
    many = dataclasses.replace(many, hyper=strengths)
    run_many = jax.jit(jax.vmap(case.raw_step, (0, None)))
    alone = []
    for i in range(3):
        start = case.init(keys[i], case.batch)
        state = dataclasses.replace(start, hyper={n: value[i] for n, value in strengths.items()})
        for _ in range(2):
            state, metrics = case.step(state, case.batch)
        alone.append((state, metrics))
    for _ in range(2):
        many, metrics = run_many(many, case.batch)
    # Rounding relative to the largest entries of a leaf: gradients of 10 beside some near 0.
    support.assert_trees_close((many, metrics), jax.tree.map(lambda *x: jnp.stack(x), *alone), rtol=1e-4, atol=5e-5)
    if "beta" in strengths:
        assert len(np.unique(metrics["beta"])) == 3
