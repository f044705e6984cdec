"""Adversarial losses: density ratios and gradients by hand, groups that cannot reach each other, a game that ends."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import support

from vae_jax import prng, train
from vae_jax.distributions import dense
from vae_jax.errors import InputError
from vae_jax.model import Aux, Model, Training
from vae_jax.models import M2, VAE, Autoencoder
from vae_jax.models.wrappers import Adversary, with_adversary
from vae_jax.networks import MLP
from vae_jax.objectives import IWAE, Factor, Terms, WaeGAN
from vae_jax.objectives.critic import cross_entropy, logit
from vae_jax.runs import idle
from vae_jax.runs.config import Config
from vae_jax.runs.run import Run
from vae_jax.train import sharding
from vae_jax.train.optimizers import Optimizer, make_optimizer

KEY = jax.random.key(5)


def model_of(loss, init=lambda key, batch: ({}, {}), hyper=None) -> Model:
    """Returns a model that can be trained and nothing else."""
    unused = [lambda *args, **kwargs: None] * 3
    return Model(init, loss, *unused, support.about(), Training(hyper or {}))


def game(o, prior_mean=0.0, rate=0.0) -> Model:
    """Returns a model whose parameters `z` are the codes themselves, played against by the objective's critic."""

    def loss(params, state, key, batch, ctx):
        z = params["z"]
        # A rate with a slope of .1 along every code: what the encoder would learn without the critic.
        t = Terms(None, z, None, None, jnp.zeros(len(z)), rate + 0.1 * jnp.sum(z, -1), None)
        per_example, metrics = o.loss(t, ctx)
        return jnp.mean(per_example), Aux(state, metrics, {"z": z})

    def prior(key, n):
        return prior_mean + jax.random.normal(key, (n, 1))

    critic = Adversary(
        "critic",
        lambda key, batch: o.critic_init(key, batch["x"].shape[-1]),
        lambda phi, seen: o.critic_cost(phi, seen.outputs["z"], seen.ctx),
        lambda phi, seen: cross_entropy(phi, *o.critic_pair(seen.key, seen.outputs["z"], prior)),
    )
    return with_adversary(model_of(loss, hyper=o.hyper()), critic)


def played(model, z, critic, **hyper):
    """Returns ((value, metrics), gradients by group) of one step."""
    batch = {"x": z}
    ctx = model.context(batch)
    ctx = ctx._replace(hyper={**ctx.hyper, **{n: jnp.asarray(v, jnp.float32) for n, v in hyper.items()}})

    def value(params):
        loss, aux = model.loss(params, {}, KEY, batch, ctx)
        return loss, aux.metrics

    return jax.jit(jax.value_and_grad(value, has_aux=True))({"z": z, "critic": critic})


def correlated(key, n, rho=0.9):
    e = jax.random.normal(key, (n, 2))
    return jnp.stack([e[:, 0], rho * e[:, 0] + (1 - rho**2) ** 0.5 * e[:, 1]], -1)


def test_the_critic_finds_the_total_correlation_of_a_gaussian():
    """-1/2 ln(1 - rho^2) = 0.8304 for rho = 0.9, from the critic's logits after a short training."""
    o = Factor(hidden=(64, 64))
    critic, tx = o.critic_init(jax.random.key(0), 2), optax.adam(2e-3)

    def loss(critic, key):
        z = correlated(jax.random.fold_in(key, 0), 512)
        return cross_entropy(critic, *o.critic_pair(jax.random.fold_in(key, 1), z, None))

    def update(carry, key):
        critic, state = carry
        grads, metrics = jax.grad(loss, has_aux=True)(critic, key)
        updates, state = tx.update(grads, state)
        return (optax.apply_updates(critic, updates), state), metrics

    keys = jax.random.split(jax.random.key(1), 800)
    (critic, _), metrics = jax.jit(lambda c, k: jax.lax.scan(update, (c, tx.init(c)), k))(critic, keys)
    assert abs(metrics["critic_loss"][0] - np.log(2)) < 0.2
    assert metrics["critic_accuracy"][-1] > 0.7
    tc = jnp.mean(logit(critic, correlated(jax.random.key(2), 50_000)))
    assert abs(float(tc) - 0.8304) < 0.06


def test_factor_gives_each_group_its_own_gradient():
    """The critic's gradient is that of its cross-entropy, whatever gamma; the code's has nothing of it."""
    o = Factor(hidden=(16,))
    critic, rate = o.critic_init(jax.random.key(0), 3), jnp.arange(6.0)
    z = jax.random.normal(jax.random.key(1), (6, 3))
    model = game(o, rate=rate)
    (value, metrics), heavy = played(model, z, critic, gamma=7.0)
    _, alone = played(model, z, critic, gamma=0.0)
    jax.tree.map(np.testing.assert_array_equal, heavy["critic"], alone["critic"])
    np.testing.assert_array_equal(alone["z"], jnp.full((6, 3), np.float32(0.1) / 6))

    def net(critic, z):
        hidden = z @ critic["layer0"]["w"] + critic["layer0"]["b"][None]
        hidden = jnp.where(hidden > 0, hidden, 0.2 * hidden)
        return (hidden @ critic["layer1"]["w"] + critic["layer1"]["b"][None])[:, 0]

    np.testing.assert_allclose(heavy["z"] - alone["z"], jax.grad(lambda z: 7 * jnp.mean(net(critic, z)))(z), atol=1e-6)
    np.testing.assert_allclose(metrics["tc"], jnp.mean(net(critic, z)), rtol=1e-4)
    # The value is the model's loss alone.
    np.testing.assert_allclose(value, jnp.mean(rate + 0.1 * jnp.sum(z, -1) + 7 * net(critic, z)), rtol=1e-5)
    assert metrics["loss"] == value


def test_the_adversarial_critic_learns_the_ratio_and_the_encoder_fools_it():
    """By hand for a linear critic D = sigmoid(w z + b): both gradients, and neither reaches the other group."""
    o, n = WaeGAN(lam=2.0, hidden=()), 8
    z = jax.random.normal(jax.random.key(0), (n, 1))
    critic = {"layer0": {"w": jnp.asarray([[0.7]]), "b": jnp.asarray([0.1])}}
    (loss, metrics), grads = played(game(o, prior_mean=1.0), z, critic)
    p = 1.0 + jax.random.normal(prng.site_key(prng.site_key(KEY, "critic"), "prior"), (n, 1))
    sigmoid = jax.nn.sigmoid
    fake, real = 0.7 * z + 0.1, 0.7 * p + 0.1
    np.testing.assert_allclose(loss, -2 * jnp.mean(jnp.log(sigmoid(fake))), rtol=1e-5)
    np.testing.assert_allclose(grads["z"], -2 * (1 - sigmoid(fake)) * 0.7 / n, rtol=1e-4)
    slope = 0.5 * (jnp.mean((sigmoid(real) - 1) * p) + jnp.mean(sigmoid(fake) * z))
    np.testing.assert_allclose(grads["critic"]["layer0"]["w"], slope[None, None], rtol=1e-4)
    entropy = -0.5 * (jnp.mean(jnp.log(sigmoid(real))) + jnp.mean(jnp.log(1 - sigmoid(fake))))
    np.testing.assert_allclose(metrics["critic_loss"], entropy, rtol=1e-5)
    np.testing.assert_allclose(metrics["critic_accuracy"], 0.5 * (np.mean(real > 0) + np.mean(fake < 0)), rtol=1e-6)


def leaky(group: str) -> Adversary:
    """Returns an adversary that reads everything it is given, in both of its terms."""

    def everything(phi, seen):
        leaves = [*jax.tree.leaves(phi), *jax.tree.leaves(seen.params), seen.outputs["z"]]
        return sum(jnp.sum(jnp.square(leaf)) for leaf in leaves), {}

    return Adversary(
        group,
        lambda key, batch: {"w": jnp.ones(3)},
        lambda phi, seen: (everything(phi, seen)[0] + jnp.zeros(len(seen.batch["x"])), {}),
        lambda phi, seen: (1000.0 * everything(phi, seen)[0], {}),
    )


def test_no_term_reaches_the_group_of_another():
    """Gradients exactly: of theta those of model + cost, of each phi those of its own loss, whatever a player reads."""
    base = VAE(2, MLP((8,))).build(support.spec((4, 4, 1)))
    batch = support.images(4, (4, 4, 1))
    first, second = leaky("one"), leaky("two")
    model = with_adversary(with_adversary(base, first), second)
    params, state = model.init(KEY, batch)
    assert params.keys() == {"vae", "one", "two"}
    ctx = model.context(batch)

    def grads_of(loss):
        return jax.jit(jax.grad(lambda params: loss(params, state, KEY, batch, ctx)[0]))(params)

    got = grads_of(model.loss)
    for group in ("one", "two"):
        np.testing.assert_array_equal(got[group]["w"], 2000.0 * np.ones(3), group)

    def paid(params, *args):
        # Of all that the players read, only the outputs are not stopped.
        value, aux = base.loss(params, *args)
        return value + 2.0 * jnp.sum(jnp.square(aux.outputs["z"])), aux

    want = grads_of(paid)["vae"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), got["vae"], want)
    # The model is evaluated, encodes and samples as before.
    assert model.terms is base.terms
    assert model.prior is base.prior


def test_a_group_is_not_given_twice():
    model = with_adversary(
        VAE(2, MLP((8,)), objective=Factor(hidden=(4,))).build(support.spec((4, 4, 1))), leaky("critic")
    )
    with pytest.raises(ValueError, match="parameter group 'critic' already"):
        model.init(KEY, support.images(4, (4, 4, 1)))


def generator_game() -> Model:
    """Returns the game of a generator N(m, 1) against a linear critic that knows N(3, 1).

    The log density ratio of two unit normals is linear in x, so the critic's best answer to m is exactly
    w = 3 - m, b = (m^2 - 9) / 2, and the only equilibrium is m = 3, w = b = 0.
    """

    def loss(params, state, key, batch, ctx):
        noise = prng.normal(prng.example_keys(prng.site_key(key, "noise"), ctx.index), (1,))
        x = params["generator"]["m"] + noise
        return jnp.zeros(()), Aux(state, {"m": params["generator"]["m"]}, {"x_hat": x})

    critic = Adversary(
        "critic",
        lambda key, batch: jax.tree.map(jnp.zeros_like, dense.init(key, (1, 1))),
        lambda phi, seen: (jax.nn.softplus(-logit(phi, seen.outputs["x_hat"])), {}),
        lambda phi, seen: cross_entropy(phi, seen.batch["x"], seen.outputs["x_hat"]),
    )
    return with_adversary(model_of(loss, lambda key, batch: ({"generator": {"m": jnp.zeros(())}}, {})), critic)


def test_a_game_ends_where_the_critic_is_at_chance():
    model, n = generator_game(), 256
    x = 3.0 + jax.random.normal(jax.random.key(1), (200, n, 1))
    # Each player has an optimizer of its own: the critic's is four times as fast, and clipped.
    fast = Optimizer("sgd", lr=0.4, b1=0.0, clip=5.0)
    tx = make_optimizer({"generator": Optimizer("sgd", lr=0.1, b1=0.0), "critic": fast}, 1000)
    state = train.make_init(model, tx)(jax.random.key(0), {"x": x[0]})
    step = train.make_train_step(model, tx)

    def update(state, i):
        return step(state, {"x": x[i % len(x)]})

    state, metrics = jax.jit(lambda s: jax.lax.scan(update, s, jnp.arange(4000)))(state)
    # ln 2 and one half at the start, where the critic knows nothing.
    assert metrics["critic_loss"][0] == pytest.approx(np.log(2), abs=1e-6)
    m = float(jnp.mean(metrics["m"][-2000:]))
    # 200 batches of 256: the data's own mean has the error 1 / sqrt(51,200).
    assert m == pytest.approx(float(jnp.mean(x)), abs=0.05)
    assert float(jnp.mean(metrics["critic_loss"][-2000:])) == pytest.approx(np.log(2), abs=0.01)
    assert max(abs(float(w)) for w in jax.tree.leaves(jax.tree.map(jnp.squeeze, state.params["critic"]))) < 0.3


def test_devices_and_microbatches_play_the_same_game():
    """One step of two players on eight devices, under pmap, and in two microbatches, is that of one batch."""
    model, batch = generator_game(), {"x": 3.0 + jax.random.normal(jax.random.key(2), (16, 1))}
    tx = optax.sgd(0.5)
    state = train.make_init(model, tx)(jax.random.key(0), batch)
    # After one step the critic is no longer 0, so that the second gives both players a gradient.
    start, _ = jax.jit(train.make_train_step(model, tx))(state, batch)
    want = jax.jit(train.make_train_step(model, tx))(start, batch)[0].params
    assert want["generator"]["m"] != start.params["generator"]["m"]
    halves = jax.jit(train.make_train_step(model, tx, accumulate=2))(start, batch)[0].params
    mesh = train.make_mesh(train.MeshConfig())
    placed = jax.jit(train.make_train_step(model, tx))(
        jax.device_put(start, sharding.replicated(mesh)), jax.device_put(batch, sharding.batch_sharding(mesh))
    )[0].params
    mapped = jax.pmap(train.make_train_step(model, tx, axis_name="batch"), axis_name="batch", in_axes=(None, 0))(
        start, jax.tree.map(lambda x: x.reshape(8, 2, 1), batch)
    )[0].params
    for got in (halves, placed, jax.tree.map(lambda x: x[0], mapped)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)


def test_a_cost_is_one_number_per_example():
    """A scalar would train as well, with another weight on several devices."""
    base, batch = VAE(2, MLP((8,))).build(support.spec((4, 4, 1))), support.images(4, (4, 4, 1))
    model = with_adversary(base, leaky("disc")._replace(cost=lambda phi, seen: (jnp.mean(seen.outputs["z"]), {})))
    params, state = model.init(KEY, batch)
    with pytest.raises(InputError, match=r"'disc' returned the shape \(\) for 4 examples; return one loss per example"):
        model.loss(params, state, KEY, batch, model.context(batch))


@dataclass(frozen=True)
class Played:
    """A VAE of a user's own with a second player."""

    def build(self, spec):
        return with_adversary(VAE(2, MLP((8,))).build(spec), leaky("disc"))


def test_every_adversary_trains_with_the_optimizer_of_critics(tmp_path):
    run = Run(tmp_path, "played", Config(model=Played(), critic_optimizer=Optimizer(lr=0.25)), support.spec((4, 4, 1)))
    assert run.optimizer_options == {"disc": "critic_optimizer", "vae": "optimizer"}
    assert run.optimizers["disc"].lr == 0.25
    # The option is read, although no objective of the package says so.
    idle.refuse([run.config], Config(model=Played()), ["critic_optimizer.lr"])


def wrapped(**terms):
    """Returns ((value, aux), gradients) of one step of a small VAE against the adversary `disc` with these terms."""
    base, batch = VAE(2, MLP((8,))).build(support.spec((4, 4, 1))), support.images(4, (4, 4, 1))
    model = with_adversary(base, leaky("disc")._replace(**terms))
    params, state = model.init(KEY, batch)
    return jax.value_and_grad(model.loss, has_aux=True)(params, state, KEY, batch, model.context(batch))


@pytest.mark.parametrize("offset", [3e9, np.inf])
def test_the_value_is_that_of_the_model_however_large_the_adversarys_loss(offset):
    """An offset of 3e9 would round the value away, an infinite one would make it NaN; neither has a gradient."""
    (value, aux), grads = wrapped(
        cost=lambda phi, seen: (jnp.zeros(4), {}),
        loss=lambda phi, seen: (offset + jnp.sum(phi["w"]), {"disc_loss": phi["w"][0]}),
    )
    assert float(value) == float(aux.metrics["loss"])
    assert 5 < float(value) < 50
    np.testing.assert_array_equal(grads["disc"]["w"], np.ones(3))


@pytest.mark.parametrize(
    ("name", "paid", "learned"),
    [("rate", {"rate": 0.0}, {}), ("loss", {}, {"loss": 0.0}), ("gap", {"gap": 0.0}, {"gap": 1.0})],
)
def test_an_adversary_does_not_overwrite_a_metric(name, paid, learned):
    """Names of the model, the model's loss, and its own two terms; another name is logged."""
    terms = {"cost": lambda phi, seen: (jnp.zeros(4), paid), "loss": lambda phi, seen: (jnp.sum(phi["w"]), learned)}
    with pytest.raises(ValueError, match=f"adversary of 'disc' gives the metric '{name}', which is taken: rename it"):
        wrapped(**terms)
    paid, learned = {f"disc_{n}": v for n, v in paid.items()}, {f"disc_own_{n}": v for n, v in learned.items()}
    (_, aux), _ = wrapped(**terms)
    assert (paid | learned).items() <= aux.metrics.items()


def test_each_adversary_has_keys_of_its_own():
    """Two of one architecture start with other weights and draw other noise; `site` names another step key."""

    def noisy(group, site=None):
        def loss(phi, seen):
            return jnp.sum(phi["w"]), {f"{group}_noise": jax.random.normal(seen.key)}

        own = leaky(group)._replace(init=lambda key, batch: {"w": jax.random.normal(key, (3,))}, site=site)
        return own._replace(cost=lambda phi, seen: (jnp.zeros(4), {}), loss=loss)

    base, batch = VAE(2, MLP((8,))).build(support.spec((4, 4, 1))), support.images(4, (4, 4, 1))
    model = with_adversary(with_adversary(base, noisy("one")), noisy("two", site="other"))
    params, state = model.init(KEY, batch)
    _, aux = model.loss(params, state, KEY, batch, model.context(batch))
    for group, site in (("one", "one"), ("two", "other")):
        init, step = prng.site_key(KEY, group), prng.site_key(KEY, site)
        np.testing.assert_array_equal(params[group]["w"], jax.random.normal(init, (3,)), group)
        assert float(aux.metrics[f"{group}_noise"]) == float(jax.random.normal(step)), group


@pytest.mark.parametrize(
    ("config", "k"),
    [(Autoencoder(2, MLP((8,))), 1), (VAE(2, MLP((8,))), 1), (VAE(2, MLP((8,)), objective=IWAE(k=3)), 3)],
)
def test_outputs_are_the_decoded_samples(config, k):
    """z [K * B, n] and p(x|z) of the same rows: a discriminator may decode, compare or reshape them."""
    model, batch = config.build(support.spec((4, 4, 1))), support.images(4, (4, 4, 1))
    params, state = model.init(KEY, batch)
    outputs = model.loss(params, state, KEY, batch, model.context(batch))[1].outputs
    assert outputs["z"].shape == (4 * k, 2)
    decoded = model.decode(params, state, outputs["z"]).mean()
    np.testing.assert_allclose(outputs["likelihood"].mean(), decoded, rtol=1e-5, atol=1e-6)
    assert len(np.unique(outputs["z"][:, 0])) == 4 * k


def test_an_output_that_the_model_does_not_give_is_refused_by_name():
    base = M2(2, MLP((8,))).build(support.spec((4, 4, 1))._replace(classes=3))
    batch = {**support.images(4, (4, 4, 1)), "label": jnp.arange(4) % 3}
    for model, given in ((base, "none"), (base._replace(loss=seen_code(base.loss)), "code")):
        player = with_adversary(model, leaky("disc"))
        params, state = player.init(KEY, batch)
        said = f"does not give the output 'z', which the adversary of 'disc' reads; it gives {given}: use another"
        with pytest.raises(InputError, match=said):
            player.loss(params, state, KEY, batch, player.context(batch))
    # The advice is good: a loss that adds the output is played against.
    player = with_adversary(base._replace(loss=seen_code(base.loss, "z")), leaky("disc"))
    value, _ = player.loss(params, state, KEY, batch, player.context(batch))
    assert np.isfinite(value)


def seen_code(loss, name="code"):
    """Returns the loss with one more output, of zeros."""

    def with_output(*args):
        value, aux = loss(*args)
        return value, aux._replace(outputs={**aux.outputs, name: jnp.zeros((4, 2))})

    return with_output
