"""Semi-supervised learning: the labeled subset, the bounds of M2 and what its classifier may see."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from scipy.special import logsumexp

from vae_jax import data, prng, spec
from vae_jax.data import labels as labels_lib
from vae_jax.data.pipeline import make_batch_fn, make_transform
from vae_jax.data.stream import GrainStream
from vae_jax.errors import InputError
from vae_jax.likelihoods import GaussianOptimal, MsSsim
from vae_jax.models import M2, VAE, Classifier
from vae_jax.models.condition import Condition
from vae_jax.networks import MLP
from vae_jax.runs import config as configs
from vae_jax.runs.config import Config

pytestmark = pytest.mark.usefixtures("command_line")  # whose words the messages below are

SHAPE, B, D, K = (4, 3, 1), 6, 2, support.FACTS["classes"]
NET = MLP((8,))
KEY = jax.random.key(5)
DIGITS = data.DataConfig("digits", batch_size=32, labels=57, binarize="dynamic")


@pytest.fixture(scope="module")
def built():
    model = M2(D, NET, width=5).build(support.spec(SHAPE))
    batch = support.images(B, SHAPE)
    params, state = model.init(jax.random.key(0), batch)
    # A decoder that uses class and code, and posteriors near the prior, so that few importance samples are enough.
    group = dict(params["vae"])
    for name, factor in {"decoder": 2.0, "join": 0.3}.items():
        group[name] = jax.tree.map(lambda w, s=factor: s * w, group[name])
    model = model._replace(terms=compiled(model.terms), encode=jax.jit(model.encode))
    return model, {"vae": group}, state, batch


def compiled(function):
    """Returns a function whose last argument is a Context, compiled: `ctx.train` is a Python bool."""
    by_train = {
        train: jax.jit(lambda *a, train=train: function(*a[:-1], a[-1]._replace(train=train)))
        for train in (False, True)
    }
    return lambda *args: by_train[args[-1].train](*args[:-1], args[-1]._replace(train=None))


def only(params, label):
    """Returns the parameters with a classifier that is certain of one label."""
    head = params["vae"]["classifier"]["out"]
    head = {"kernel": jnp.zeros_like(head["kernel"]), "bias": 1e4 * jnp.eye(K)[label]}
    return {"vae": params["vae"] | {"classifier": params["vae"]["classifier"] | {"out": head}}}


def test_the_labeled_subset_is_balanced_and_fixed_by_its_seed():
    source = data.load(DIGITS, "train")
    label = source.arrays["label"][source.labeled]
    assert np.bincount(label).tolist() == [6] * 7 + [5] * 3
    assert len(set(source.labeled.tolist())) == 57
    for other in (dict(batch_size=8), dict(binarize="none"), dict(pipeline="grain")):
        again = data.load(dataclasses.replace(DIGITS, **other), "train")
        np.testing.assert_array_equal(again.labeled, source.labeled)
    moved = data.load(dataclasses.replace(DIGITS, label_seed=1), "train")
    assert set(moved.labeled.tolist()) != set(source.labeled.tolist())
    assert data.load(dataclasses.replace(DIGITS, labels=None), "train").labeled is None
    assert data.load(DIGITS, "test").labeled is None
    assert "57 are labelled" in data.load(DIGITS, "test").info.protocol_text


def test_pairs_are_labeled_examples_beside_each_image_and_no_other_label_is_there():
    source = data.load(DIGITS, "train")
    arrays, key = source.arrays, jax.random.key(3)
    batch_fn = jax.jit(make_batch_fn(source, DIGITS))
    plain = data.load(dataclasses.replace(DIGITS, labels=None), "train")
    plain_fn = jax.jit(make_batch_fn(plain, DIGITS))
    seen = []
    for step in range(8):
        batch, without = batch_fn(arrays, key, step), plain_fn(arrays, key, step)
        assert "label" not in batch
        # Pairing moves neither order nor noise of the images.
        np.testing.assert_array_equal(batch["x"], without["x"])
        seen.append((np.asarray(batch["paired_x"]), np.asarray(batch["paired_label"])))
    images, found = (np.concatenate(part) for part in zip(*seen, strict=True))
    gray = arrays["image"][source.labeled] / 255.0
    own = arrays["label"][source.labeled]
    for image, label in zip(images, found, strict=True):
        # A draw of a gray image is 0 where it is 0 and 1 where it is 1: it must come from an image of that label.
        possible = np.all((image <= (gray > 0)) & (image >= (gray == 1)), axis=(1, 2, 3))
        assert label in own[possible]
    # In epochs of their own: 256 draws of 57 examples take each 4 or 5 times.
    counts = np.bincount(found, minlength=10)
    assert np.all(counts >= 4 * np.bincount(own))
    assert np.all(counts <= 5 * np.bincount(own))


def test_the_pixels_of_each_labeled_partner_have_noise_of_their_own():
    """One labeled image stands beside many, epoch after epoch: it is binarized afresh each time."""
    config = data.DataConfig("digits", batch_size=B, labels=10, binarize="dynamic")
    transform = make_transform(data.load(config), config)
    gray = jnp.full((B, 8, 8, 1), 128, jnp.uint8)
    label = jnp.zeros(B, jnp.int32)
    batch = {"image": gray, "index": jnp.arange(B), "paired_image": gray, "paired_label": label, "paired_index": label}
    first, later = (
        transform(jax.random.key(0), batch | {"visit": jnp.arange(B, dtype=jnp.uint32) + n}) for n in (0, B)
    )
    seen = np.concatenate([first["x"], first["paired_x"], later["paired_x"]]).reshape(3 * B, -1)
    assert len(np.unique(seen, axis=0)) == 3 * B


def test_grain_gives_the_same_pairs():
    source, key = data.load(DIGITS, "train"), jax.random.key(3)
    batch_fn, apply = jax.jit(make_batch_fn(source, DIGITS)), jax.jit(make_transform(source, DIGITS))
    stream = GrainStream(source, DIGITS, key, step=44)  # crosses an epoch of the 1,437 images
    for step in range(44, 47):
        support.assert_trees_equal(apply(key, next(stream)), batch_fn(source.arrays, key, step))
    stream.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(labels=0), "data.labels: 0 is not positive"),
        (dict(labels=9), "data.labels: 9 examples cannot show 10 classes; use 10 or more"),
        (dict(labels=1437), "use .* or less"),
        (dict(labels=10, label_seed=-1), "data.label_seed: -1 is out of range"),
        (dict(labels=10, name="npz", source="unlabeled.npz"), "'npz' has no labels"),
    ],
)
def test_impossible_subsets_are_refused_in_words(change, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("unlabeled.npz", images=np.random.default_rng(0).random((40, 4, 4)) > 0.5)
    with pytest.raises(InputError, match=words):
        data.load(dataclasses.replace(DIGITS, **change), "train")


def test_labels_that_are_computed_are_computed_without_the_images():
    source = data.load(data.DataConfig("sprites", labels=30), "train")
    assert np.bincount(np.asarray(source.fetch({}, source.labeled)["label"])).tolist() == [10] * 3


def test_choose_takes_the_remainder_from_the_first_classes():
    label = np.repeat(np.arange(4), 10)
    rows = labels_lib.choose(label, 11, 4, seed=0)
    assert np.bincount(label[rows]).tolist() == [3, 3, 3, 2]


def test_the_unlabeled_bound_is_the_sum_over_classes(built):
    """U(x) = sum_y q(y|x) (L(x, y) + log q(y|x)), each L taken from a classifier that is certain of y."""
    model, params, state, batch = built
    ctx = support.context(model, B, train=False)
    terms = model.terms(params, state, KEY, batch, ctx)
    # -L(x, y): the unlabeled bound where q(y|x) is one-hot, with no entropy.
    each = np.stack([model.terms(only(params, k), state, KEY, batch, ctx)["elbo"] for k in range(K)])
    from_network = NET.encoder(K, jnp.float32).apply({"params": params["vae"]["classifier"]}, batch["x"])
    q = np.asarray(jax.nn.softmax(from_network), np.float64).T
    assert 0.001 < q.min() < 0.3  # neither one-hot nor uniform: the test can fail
    np.testing.assert_allclose(terms["elbo"], np.sum(q * (each - np.log(q)), 0), rtol=1e-5)
    # The best q(y|x) would be the softmax of -L: no q does better.
    assert np.all(np.asarray(terms["elbo"]) <= logsumexp(each, 0) + 1e-3)


def test_a_certain_classifier_leaves_the_labeled_bound(built):
    """With q(y|x) = 1[y = y'] the unlabeled bound is E[log p(x|y', z)] - KL - log K, from the parts themselves."""
    model, params, state, batch = built
    label = 2
    ctx = support.context(model, B, train=False)
    terms = model.terms(only(params, label), state, KEY, batch, ctx)
    y = jnp.tile(jnp.eye(K)[label], (B, 1))
    q = model.encode(only(params, label), state, None, batch).posterior
    keys = prng.example_keys(prng.site_key(KEY, "posterior"), ctx.index)
    z = q.sample(jax.vmap(jax.random.fold_in, (0, None))(keys, label))
    distortion = -model.decode(params, state, z, cond=y).log_prob(batch["x"])
    mean, var = np.asarray(q.mean, np.float64), np.exp(np.asarray(q.log_var, np.float64))
    kl = 0.5 * np.sum(mean**2 + var - 1 - np.log(var), -1)
    np.testing.assert_allclose(terms["distortion"], distortion, rtol=1e-5)
    np.testing.assert_allclose(terms["rate"], kl + math.log(K), rtol=1e-4)


def test_the_loss_is_the_three_terms_with_their_weights(built):
    model, params, state, batch = built
    ctx = support.context(model, B, beta=1.5, alpha=7.0)
    value, aux = model.loss(params, state, KEY, batch, ctx)
    free = {name: v for name, v in batch.items() if not name.startswith("paired") and name != "label"}
    only_u, aux_u = model.loss(params, state, KEY, free, ctx._replace(train=False))
    np.testing.assert_allclose(only_u, aux_u.metrics["distortion"] + 1.5 * aux_u.metrics["rate"], rtol=1e-5)
    without = model.loss(params, state, KEY, batch, support.context(model, B, beta=1.5, alpha=0.0))[0]
    np.testing.assert_allclose(value - without, 7.0 * aux.metrics["cross_entropy"], rtol=1e-4)
    assert without > only_u  # the labeled bound of gray images is a positive number of nats


def test_log_p_lies_between_the_elbo_and_the_exact_sum(built):
    """The bound sums classes exactly: it tends to log sum_y p(y) int p(z) p(x|y, z) dz, here by quadrature over z."""
    model, params, state, batch = built
    batch = batch | {"x": jnp.round(batch["x"])}
    side = np.linspace(-6, 6, 121)
    z = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    log_prior = -0.5 * np.sum(z**2, -1) - math.log(2 * math.pi) + 2 * math.log(side[1] - side[0])
    codes, images = jnp.asarray(z, jnp.float32), batch["x"]

    @jax.jit
    def each(x, y):
        cond, same = jnp.broadcast_to(y, (len(z), K)), jnp.broadcast_to(x, (len(z), *SHAPE))
        return model.decode(params, state, codes, cond=cond).log_prob(same)

    classes = np.stack([[each(x, y) for y in jnp.eye(K)] for x in images])
    exact = logsumexp(classes + log_prior - math.log(K), axis=(1, 2))
    ctx = support.context(model, B, train=False)
    bound = np.asarray(jax.jit(lambda k: model.density.bound(params, state, k, batch, ctx, 4000))(KEY))
    # Noise of 4000 samples per example; what is wrong with a formula is wrong in all of them.
    np.testing.assert_allclose(bound, exact, atol=0.2)
    np.testing.assert_allclose(np.mean(bound - exact), 0, atol=0.05)
    keys = jax.random.split(KEY, 300)
    elbo = jax.jit(jax.vmap(lambda k: model.terms(params, state, k, batch, ctx)["elbo"]))(keys)
    assert np.all(np.mean(elbo, 0) < exact)


def test_training_sees_no_label_but_the_pairs(built):
    model, params, state, batch = built
    ctx = support.context(model, B)
    grad = jax.jit(jax.grad(lambda p, b: model.loss(p, state, KEY, b, ctx)[0]))
    other = dict(batch) | {"label": (batch["label"] + 1) % K}
    support.assert_trees_equal(grad(params, batch), grad(params, other))
    with pytest.raises(InputError, match="come without"):
        model.loss(params, state, KEY, {"x": batch["x"]}, ctx)


def test_codes_and_classes_come_from_the_image_alone(built):
    model, params, state, batch = built
    told = dict(batch) | {"label": (batch["label"] + 1) % K}
    for keys in (None, jax.random.split(KEY, B)):
        support.assert_trees_equal(model.encode(params, state, keys, batch), model.encode(params, state, keys, told))
    np.testing.assert_array_equal(
        model.condition.features(params, state, batch), model.condition.features(params, state, told)
    )
    np.testing.assert_array_equal(model.condition.features(params, state, {"label": jnp.asarray([2])})[0], [0, 0, 1])
    guess = jnp.argmax(model.condition.features(params, state, batch), -1)
    right = model.terms(params, state, KEY, dict(batch) | {"label": guess}, support.context(model, B, train=False))
    assert np.all(np.asarray(right["accuracy"]) == 1)


def test_the_classifier_learns_from_labeled_examples_alone():
    model = Classifier(D, NET, width=5).build(support.spec(SHAPE))
    batch = support.images(B, SHAPE)
    params, state = model.init(jax.random.key(0), batch)
    ctx = support.context(model, B)
    grad = jax.jit(jax.grad(lambda p, b: model.loss(p, state, KEY, b, ctx)[0]))
    other = dict(batch) | {"x": 1 - batch["x"]}
    support.assert_trees_equal(grad(params, batch), grad(params, other))

    def cross_entropy(p):
        logits = NET.encoder(K, jnp.float32).apply({"params": p}, batch["paired_x"])
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(B), batch["paired_label"]])

    support.assert_trees_close(
        grad(params, batch)["vae"]["classifier"], jax.grad(cross_entropy)(params["vae"]["classifier"])
    )


def test_finite_where_the_networks_give_ten_thousand(built):
    model, params, state, batch = built
    ctx = support.context(model, B)
    grad = jax.jit(jax.value_and_grad(lambda p: model.loss(p, state, KEY, batch, ctx)[0]))
    for label in range(K):
        value, grads = grad(only(params, label))
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((value, grads)))


@pytest.mark.parametrize(
    ("model", "facts", "words"),
    [
        (M2(), {"examples": 10}, "learns from labels"),
        (M2(likelihood=GaussianOptimal()), support.FACTS, "gaussian-learned"),
        (M2(likelihood=MsSsim()), support.FACTS, "bernoulli"),
        (M2(network=MLP(dropout=0.5)), support.FACTS, "dropout"),
    ],
)
def test_what_cannot_be_built_is_refused_in_words(model, facts, words):
    with pytest.raises(InputError, match=words):
        model.build(spec.images(28, 28, 1, **facts))


def test_a_conditional_model_needs_every_label():
    config = Config(data=DIGITS, model=VAE(condition=Condition("label")))
    with pytest.raises(InputError, match=r"data\.labels: .* use --model m2"):
        configs.check(config)
    configs.check(Config(data=DIGITS, model=M2()))
    with pytest.raises(InputError, match=r"model\.alpha: -1"):
        configs.check(Config(data=DIGITS, model=M2(alpha=-1.0)))
