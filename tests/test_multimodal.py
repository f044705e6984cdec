"""Image and label of one code: how experts are fused, what a missing modality changes, and bounds that are exact."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from scipy.special import logsumexp
from scipy.stats import norm

from vae_jax import spec
from vae_jax.distributions.experts import Mixture, product
from vae_jax.distributions.gaussian import DiagGaussian
from vae_jax.errors import InputError
from vae_jax.likelihoods import GaussianOptimal
from vae_jax.models import Multimodal
from vae_jax.networks import MLP

SHAPE, B, D, K = (4, 3, 1), 6, 2, support.FACTS["classes"]
CONFIG = Multimodal(D, MLP((8,)), width=6)
KEY = jax.random.key(5)


def gaussians(count: int, seed: int = 0) -> list[DiagGaussian]:
    rng = np.random.default_rng(seed)
    return [DiagGaussian(*jnp.asarray(rng.normal(size=(2, B, D)), jnp.float32)) for _ in range(count)]


@pytest.fixture(scope="module", params=["poe", "moe"])
def built(request):
    model = dataclasses.replace(CONFIG, fusion=request.param).build(support.spec(SHAPE))
    batch = support.images(B, SHAPE)
    batch["x"] = jnp.round(batch["x"])
    params, state = model.init(jax.random.key(0), batch)
    group = dict(params["vae"])
    # Decoders that use the code, and experts near the prior, so that few importance samples are enough.
    for name, factor in {"decoder": 1.5, "label_decoder": 2.0, "encoder": 0.2, "label_encoder": 0.3}.items():
        group[name] = jax.tree.map(lambda w, s=factor: s * w, group[name])
    # Experts of little precision, or a product would be narrower than p(z|x, y) and its weights heavy-tailed.
    vague = jnp.asarray([0.0] * D + [2.0 if request.param == "poe" else 0.0] * D)
    group["encoder"]["out"] = group["encoder"]["out"] | {"bias": vague}
    group["label_encoder"]["layer1"] = group["label_encoder"]["layer1"] | {"b": vague}
    return model._replace(terms=jax.jit(model.terms)), {"vae": group}, state, batch


def evaluation(model):
    return support.context(model, B, train=False)


def test_a_product_of_gaussians_is_their_normalized_product():
    """log of the product of N(0, 1) and the experts minus log q is one constant, whatever z is."""
    for count in (1, 3):
        experts = gaussians(count)
        q = product(experts)
        z = jnp.asarray(np.random.default_rng(1).normal(size=(9, B, D)), jnp.float32)
        total = jax.vmap(DiagGaussian(*jnp.zeros((2, 1, D))).log_prob)(z)
        for e in experts:
            total += jax.vmap(e.log_prob)(z)
        constant = np.asarray(total - jax.vmap(q.log_prob)(z))
        np.testing.assert_allclose(constant, np.broadcast_to(constant[:1], constant.shape), atol=1e-4)
    by_hand = product([DiagGaussian(jnp.full((1, 1), 2.0), jnp.zeros((1, 1)))])
    np.testing.assert_allclose([by_hand.mean[0, 0], jnp.exp(by_hand.log_var[0, 0])], [1.0, 0.5])


def test_products_are_finite_where_the_experts_are_extreme():
    def total(mean, log_var):
        q = product([DiagGaussian(mean, log_var), DiagGaussian(jnp.ones((1, 1)), jnp.zeros((1, 1)))])
        return jnp.sum(q.mean + q.log_var)

    for mean in (-1e4, 0.0, 1e4):
        for log_var in (-1e4, 0.0, 1e4):
            value, grads = jax.value_and_grad(total, (0, 1))(jnp.full((1, 1), mean), jnp.full((1, 1), log_var))
            assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((value, grads)))
    # An expert of no precision is a missing one.
    vague = DiagGaussian(jnp.full((B, D), 3.0), jnp.full((B, D), 60.0))
    known = gaussians(1)[0]
    support.assert_trees_close(product([known, vague]), product([known]))


def test_a_mixture_is_the_mean_of_its_densities():
    experts = gaussians(3)
    z = jnp.asarray(np.random.default_rng(1).normal(size=(B, D)), jnp.float32)
    densities = [norm.pdf(z, e.mean, np.exp(0.5 * np.asarray(e.log_var))).prod(-1) for e in experts]
    np.testing.assert_allclose(Mixture(tuple(experts)).log_prob(z), np.log(np.mean(densities, 0)), rtol=1e-4)
    support.assert_trees_close(Mixture((experts[0], experts[0])).log_prob(z), experts[0].log_prob(z))


def test_the_bound_adds_up_over_labels(built):
    """sum_y p(x, y) = p(x): the k-sample bounds on each log p(x, y) against quadrature of int p(z) p(x|z) dz."""
    model, params, state, batch = built
    side = np.linspace(-6, 6, 121)
    z = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    log_prior = norm.logpdf(z).sum(-1) + 2 * math.log(side[1] - side[0])

    @jax.jit
    def log_likelihood(x):
        same = jnp.broadcast_to(x, (len(z), *SHAPE))
        return model.decode(params, state, jnp.asarray(z, jnp.float32)).log_prob(same)

    exact = logsumexp(np.stack([log_likelihood(x) for x in batch["x"]]) + log_prior, axis=1)
    ctx = evaluation(model)
    bound = jax.jit(lambda key, b: model.density.bound(params, state, key, b, ctx, 4000))
    image = {"x": batch["x"]}
    joint = np.stack([bound(KEY, image | {"label": jnp.full(B, y, jnp.int32)}) for y in range(K)])
    # Noise of 4000 samples per example; what is wrong with a formula is wrong in all of them.
    for found in (logsumexp(joint, axis=0), np.asarray(bound(KEY, image))):
        np.testing.assert_allclose(found, exact, atol=0.2)
        np.testing.assert_allclose(np.mean(found - exact), 0, atol=0.05)
    # ELBO(x, y) <= log p(x, y), in the mean over its noise.
    many = jax.jit(jax.vmap(lambda key: model.terms(params, state, key, batch, ctx)["elbo"]))(
        jax.random.split(KEY, 400)
    )
    own = joint[np.asarray(batch["label"]), np.arange(B)]
    assert np.all(np.mean(many, 0) < own + 4 * np.std(many, 0) / 20)


def test_without_the_label_the_model_is_a_vae_of_the_image(built):
    """The label's expert is dropped: elbo = E[log p(x|z)] - KL(q(z|x) || p(z)), and no label is asked for."""
    model, params, state, batch = built
    image = {"x": batch["x"]}
    keys = jax.random.split(KEY, 1000)
    terms = jax.jit(jax.vmap(lambda key: model.terms(params, state, key, image, evaluation(model))))(keys)
    assert "accuracy" not in terms
    q = model.encode(params, state, None, image).posterior
    mean, var = np.asarray(q.mean, np.float64), np.exp(np.asarray(q.log_var, np.float64))
    kl = 0.5 * np.sum(mean**2 + var - 1 - np.log(var), -1)
    np.testing.assert_allclose(np.mean(terms["rate"], 0), kl, rtol=1e-3)

    @jax.jit
    @jax.vmap
    def distortion(key):
        z = q.sample(jax.random.split(key, B))
        return -model.decode(params, state, z).log_prob(batch["x"])

    want = distortion(jax.random.split(jax.random.key(8), 1000))
    error = 5 * np.sqrt((np.var(want, 0) + np.var(terms["distortion"], 0)) / 1000)
    assert np.all(np.abs(np.mean(want, 0) - np.mean(terms["distortion"], 0)) < error)
    told = dict(batch) | {"label": (batch["label"] + 1) % K}
    support.assert_trees_equal(model.encode(params, state, None, batch), model.encode(params, state, None, told))


def test_the_loss_is_the_sum_of_its_bounds(built):
    """poe: joint, image and label; the label counts `label_weight` times. moe: the joint bound alone."""
    model, params, state, batch = built
    batch = {name: batch[name] for name in ("x", "label")}
    ctx = support.context(model, B)
    keys = jax.random.split(KEY, 500)
    value = jax.jit(jax.vmap(lambda key: model.loss(params, state, key, batch, ctx)[0]))(keys)
    fused = jax.jit(jax.vmap(lambda key: model.terms(params, state, key, batch, ctx)))(keys)
    label = np.mean(fused["distortion_label"])
    joint = np.mean(fused["distortion"]) + np.mean(fused["rate"]) + 9 * label
    if isinstance(fused.get("kl_per_dim"), jax.Array):  # a product: the other two bounds are in the loss as well
        image = {"x": batch["x"]}
        alone = jax.jit(jax.vmap(lambda key: model.terms(params, state, key, image, ctx)["elbo"]))(keys)
        assert np.mean(value) > joint - np.mean(alone)
        assert np.mean(value) < joint - np.mean(alone) + 10 * 3 * math.log(K) + 5
    else:
        assert abs(np.mean(value) - joint) < 5 * np.std(value) / math.sqrt(500) * 2


def test_unlabeled_images_count_beside_labeled_pairs(built):
    model, params, state, batch = built
    ctx = support.context(model, B)
    grad = jax.jit(jax.grad(lambda p, b: model.loss(p, state, KEY, b, ctx)[0]))
    whole = grad(params, batch)
    support.assert_trees_equal(whole, grad(params, dict(batch) | {"label": (batch["label"] + 1) % K}))
    other = grad(params, dict(batch) | {"x": 1 - batch["x"]})
    assert np.any(whole["vae"]["encoder"]["out"]["kernel"] != other["vae"]["encoder"]["out"]["kernel"])


def test_more_samples_tighten_the_importance_weighted_loss():
    batch = support.images(B, SHAPE)
    batch = {"x": jnp.round(batch["x"]), "label": batch["label"]}
    found = []
    for samples in (2, 12):
        config = dataclasses.replace(CONFIG, fusion="moe", bound="iwae", samples=samples, label_weight=1.0)
        model = config.build(support.spec(SHAPE))
        params, state = model.init(jax.random.key(0), batch)
        ctx = support.context(model, B)
        loss = jax.jit(jax.vmap(lambda key, m=model, p=params, c=ctx: m.loss(p, {}, key, batch, c)[0]))
        found.append(loss(jax.random.split(KEY, 300)))
    plain = dataclasses.replace(CONFIG, fusion="moe", label_weight=1.0).build(support.spec(SHAPE))
    elbo = jax.jit(jax.vmap(lambda key: plain.loss(params, state, key, batch, ctx)[0]))(jax.random.split(KEY, 300))
    assert np.mean(found[1]) < np.mean(found[0]) < np.mean(elbo)


def test_a_label_draws_its_own_codes_and_none_draws_the_prior(built):
    model, params, state, _ = built
    n = 5
    draw = jax.jit(lambda cond: model.sample(params, state, KEY, n, cond=cond).mean())
    prior = model.decode(params, state, jax.random.normal(KEY, (n, D))).mean()
    np.testing.assert_allclose(draw(None), prior, rtol=1e-5)
    np.testing.assert_allclose(draw(jnp.zeros((n, K))), prior, rtol=1e-5)
    first, second = (draw(jnp.tile(jnp.eye(K)[k], (n, 1))) for k in (0, 1))
    assert np.any(np.abs(first - prior) > 1e-4)
    assert np.any(np.abs(first - second) > 1e-4)


@pytest.mark.parametrize(
    ("config", "facts", "words"),
    [
        (CONFIG, {"examples": 10}, "the data have none"),
        (dataclasses.replace(CONFIG, bound="iwae"), support.FACTS, "with one sample is the elbo; set .*samples.* 2"),
        (dataclasses.replace(CONFIG, likelihood=GaussianOptimal()), support.FACTS, "gaussian-learned"),
    ],
)
def test_what_cannot_be_built_is_refused_in_words(config, facts, words):
    with pytest.raises(InputError, match=words):
        config.build(spec.images(*SHAPE, **facts))
