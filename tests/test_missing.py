"""Missing values: what is observed is all that is scored; pPCA with missing data is the oracle of a linear VAE."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import shrink

from vae_jax import prng, spec
from vae_jax.errors import InputError
from vae_jax.evaluation import imputation
from vae_jax.evaluation.likelihood import evaluate
from vae_jax.likelihoods import LIKELIHOODS, GaussianLearned
from vae_jax.models import MODELS, VAE, Autoencoder
from vae_jax.networks import MLP, Linear
from vae_jax.objectives import Geco
from vae_jax.train import TrainState, init_state

SHAPE, B = (4, 4, 2), 6
SMALL = MLP((8,))


def batch(seed: int = 0, share: float = 0.3, shape=SHAPE, n: int = B) -> dict[str, jax.Array]:
    """Returns a batch in (0, 1) whose first example is all there and whose second one is all missing."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.1, 0.9, (n, *shape)).astype(np.float32)
    x = np.rint(x * 255) / np.float32(255)
    mask = rng.uniform(size=x.shape) > share
    mask[0], mask[1] = True, False
    return {"x": jnp.asarray(x), "mask": jnp.asarray(mask)}


def whole(given):
    return {**given, "mask": jnp.ones_like(given["mask"])}


def per_entry():
    """Returns the names of the likelihoods that take a mask of two channels."""
    return [name for name, cls in LIKELIHOODS.items() if cls().takes_mask(2)]


def decoded(name: str, seed: int = 1):
    config = LIKELIHOODS[name]()
    out = jax.random.normal(jax.random.key(seed), (B, *SHAPE[:-1], config.outputs(SHAPE[-1])))
    return config, out, config.params_for(SHAPE)


# ---- likelihoods


def test_every_likelihood_of_independent_entries_takes_a_mask():
    # Of counts the total of what is observed is not that of x.
    counts = {name for name, cls in LIKELIHOODS.items() if cls.counts}
    assert set(LIKELIHOODS) - set(per_entry()) == {"logistic-mixture", "ms-ssim"} | counts
    assert len(counts) == 4
    mixture = LIKELIHOODS["logistic-mixture"]
    assert mixture().takes_mask(1)
    assert mixture(coupled=False).takes_mask(3)


@pytest.mark.parametrize("name", per_entry())
def test_the_masked_density_sums_over_what_is_observed(name):
    config, out, params = decoded(name)
    given = batch()
    p_x = config.build(out, params, config.init_state())
    got = jax.jit(lambda p, x, mask: p.log_prob(x, mask))(p_x, given["x"], given["mask"])
    # Entry by entry: an example with all others missing.
    flat = np.asarray(given["mask"]).reshape(B, -1)
    alone = jax.vmap(lambda m: p_x.log_prob(given["x"], jnp.broadcast_to(m, given["x"].shape)))
    each = np.asarray(alone(jnp.eye(flat.shape[1], dtype=bool).reshape(-1, 1, *SHAPE)))
    np.testing.assert_allclose(got, (each.T * flat).sum(1), rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(each.sum(0), p_x.log_prob(given["x"]), rtol=2e-5, atol=2e-5)
    assert got[1] == 0.0


@pytest.mark.parametrize("name", per_entry())
def test_a_mask_of_all_ones_changes_no_bit(name):
    config, out, params = decoded(name)
    given = whole(batch())

    def value(out, params, mask):
        more = {} if mask is None else {"mask": mask}
        p_x, state = config.fit(out, given["x"], params, config.init_state(), None, **more)
        log_p = p_x.log_prob(given["x"]) if mask is None else p_x.log_prob(given["x"], mask)
        return jnp.sum(log_p), (log_p, state)

    program = jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True))
    plain, masked = program(out, params, None), program(out, params, given["mask"])
    jax.tree.map(np.testing.assert_array_equal, plain, masked)


def test_the_optimal_variance_is_that_of_what_is_observed():
    config, out, _ = decoded("gaussian-optimal")
    given = batch()
    p_x, state = config.fit(out, given["x"], {}, config.init_state(), None, given["mask"])
    mse = float(np.square(np.asarray(out - given["x"]))[np.asarray(given["mask"])].mean())
    np.testing.assert_allclose(np.exp(2 * p_x.log_std), mse, rtol=1e-5)
    np.testing.assert_allclose(state["mse"] / state["weight"], mse, rtol=1e-5)
    # Nothing observed says nothing of the variance.
    _, after = config.fit(out, given["x"], {}, state, None, jnp.zeros_like(given["mask"]))
    jax.tree.map(np.testing.assert_array_equal, after, state)


# ---- models


def data_spec(**more):
    return spec.images(*SHAPE, mask=True, examples=100, **more)


CONFIGS = {
    "vae": VAE(2, SMALL),
    "sigma": VAE(2, SMALL, LIKELIHOODS["gaussian-optimal"]()),
    "geco": VAE(2, SMALL, GaussianLearned(), objective=Geco()),
    "mask input": VAE(2, SMALL, mask_input=True),
    "ae": Autoencoder(2, SMALL, corruption="gaussian"),
    "ae mask input": Autoencoder(2, SMALL, mask_input=True),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_missing_has_no_part_in_any_number(name):
    """NaN in the place of what is missing gives the same bits, gradients included."""
    model, given = CONFIGS[name].build(data_spec()), batch()
    params, state = model.init(jax.random.key(0), given)

    def numbers(params, given):
        ctx = model.context(given)
        (value, aux), grads = jax.value_and_grad(model.loss, has_aux=True)(params, state, jax.random.key(1), given, ctx)
        terms = model.terms(params, aux.state, jax.random.key(2), given, ctx._replace(train=False))
        z = model.encode(params, state, None, given).z
        return value, aux.metrics, grads, terms, z

    program = jax.jit(numbers)
    want = program(params, given)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(want))
    for blank in (jnp.nan, 7.0):
        got = program(params, {**given, "x": jnp.where(given["mask"], given["x"], blank)})
        jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("name", [n for n in CONFIGS if "mask input" not in n])
def test_a_mask_of_all_ones_changes_nothing_but_the_rounding_of_another_program(name):
    """Data that are complete are given without a mask, so that their bits are those of a run that knows of none.

    With one the compiler writes another program, whose sums and factors it may order anew: seen to move last bits.
    """
    model, given = CONFIGS[name].build(data_spec()), whole(batch())
    params, state = model.init(jax.random.key(0), given)

    def numbers(params, given):
        ctx = model.context(given)
        out = jax.value_and_grad(model.loss, has_aux=True)(params, state, jax.random.key(1), given, ctx)
        (value, aux), grads = out
        terms = model.terms(params, state, jax.random.key(2), given, ctx._replace(train=False))
        return value, aux.metrics, aux.state, grads, terms

    program = jax.jit(numbers)
    plain, masked = program(params, {"x": given["x"]}), program(params, given)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, plain[3], masked[3])
    same = functools.partial(np.testing.assert_array_max_ulp, maxulp=4)
    jax.tree.map(same, plain[:3] + plain[4:], masked[:3] + masked[4:])


def test_the_encoder_sees_the_mask_where_it_may():
    given = batch()
    blank = {**given, "x": jnp.where(given["mask"], given["x"], 0.0)}
    for cls, differs in ((VAE, False), (VAE, True), (Autoencoder, False), (Autoencoder, True)):
        config = cls(2, SMALL, mask_input=differs)
        model = config.build(data_spec())
        params, state = model.init(jax.random.key(0), given)
        seen = model.encode(params, state, None, given).z
        told = model.encode(params, state, None, {"x": blank["x"]}).z  # the zeros said to be observed
        assert (float(jnp.abs(seen - told)[2:].max()) > 1e-3) == differs
        np.testing.assert_array_equal(seen[0], told[0])


def test_errors_are_means_over_what_is_observed():
    given = batch()
    for config in (VAE(2, SMALL), Autoencoder(2, SMALL)):
        model = config.build(data_spec())
        params, state = model.init(jax.random.key(0), given)
        terms = model.terms(params, state, jax.random.key(1), given, model.context(given, train=False))
        z = model.encode(params, state, None, given).z
        square = np.square(np.asarray(model.decode(params, state, z).mean() - given["x"]))
        for i in (0, 2, 3):
            np.testing.assert_allclose(terms["mse"][i], square[i][np.asarray(given["mask"][i])].mean(), rtol=1e-5)
        assert terms["mse"][1] == 0.0


def test_evaluation_divides_by_what_is_observed():
    given = whole(batch(n=B))
    keep = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 4 == 0
    quarter = {**given, "mask": given["mask"].at[2].set(keep).at[1].set(False), "index": jnp.arange(B)}
    model = VAE(2, SMALL).build(data_spec())
    state = trained(model, given)
    got = evaluate(model, state, [quarter], key=jax.random.key(0), k=(3,), cell_width=1.0).metrics
    one = [
        evaluate(model, state, [{n: v[i : i + 1] for n, v in quarter.items()}], key=jax.random.key(0), k=(3,)).metrics
        for i in range(B)
    ]
    dims = [32, None, 8, 32, 32, 32]
    for name, bits in (("elbo", "bits_per_dim"), ("iw_3", "iw_3_bits_per_dim")):
        want = [-m[name].value / d / np.log(2) for m, d in zip(one, dims) if d]
        np.testing.assert_allclose(got[bits].value, np.mean(want), rtol=1e-5)
        assert (got[bits].n, got[name].n) == (5, 6)
    assert got["mse"].n == got["psnr"].n == 5
    assert all(np.isfinite(m.value) for m in got.values())


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (VAE(2, SMALL, LIKELIHOODS["ms-ssim"]()), "ms-ssim does not take"),
        (VAE(2, SMALL, LIKELIHOODS["logistic-mixture"]()), "logistic-mixture does not take"),
        (Autoencoder(2, SMALL, LIKELIHOODS["ms-ssim"]()), "ms-ssim does not take"),
        (MODELS["m2"](2), "which this model does not take"),
        (MODELS["multimodal"](2), "which this model does not take"),
    ],
    ids=["ms-ssim", "coupled", "ae", "m2", "multimodal"],
)
def test_what_cannot_leave_out_is_refused_and_the_advice_works(config, says):
    with pytest.raises(InputError, match=says) as refused:
        shrink(config).build(data_spec(classes=3))
    fixes = {
        "model.likelihood": lambda c: dataclasses.replace(c, likelihood=GaussianLearned()),
        '"model"': lambda c: None,
    }
    (fix,) = [change for typed, change in fixes.items() if typed in str(refused.value) or typed == "model='vae'"] or [
        fixes['"model"']
    ]
    (fix(config) or VAE(2, SMALL)).build(data_spec(classes=3))


def test_a_network_or_prior_that_reads_what_is_missing_is_refused():
    from vae_jax.networks import NETWORKS
    from vae_jax.priors import PRIORS

    local = next(cls for cls in NETWORKS.values() if cls.autoregressive)
    with pytest.raises(InputError, match=r"an autoregressive decoder does not take; choose .*model.network.*mlp"):
        VAE(2, shrink(local())).build(data_spec())
    with pytest.raises(InputError, match=r"a prior that keeps training examples does not take; choose .*mog"):
        VAE(2, SMALL, prior=PRIORS["exemplar"]()).build(data_spec())
    VAE(2, SMALL, prior=PRIORS["mog"]()).build(data_spec())


def test_a_mask_input_needs_a_mask():
    for config in (VAE(2, SMALL, mask_input=True), Autoencoder(2, SMALL, mask_input=True)):
        with pytest.raises(InputError, match=r"^model.mask_input: the data have no missing values.*False"):
            config.build(spec.images(*SHAPE))
        dataclasses.replace(config, mask_input=False).build(spec.images(*SHAPE))


# ---- pPCA with missing data: the exact answers


D, Q, N = 6, 2, 400


def simulated(seed: int = 0, share: float = 0.3):
    """Returns (W [D, Q], mu, sigma, x [N, D], mask [N, D]) of a linear-Gaussian model, one row all missing."""
    rng = np.random.default_rng(seed)
    w, mu, sigma = rng.normal(size=(D, Q)), rng.normal(size=D), 0.4
    x = rng.normal(size=(N, Q)) @ w.T + mu + sigma * rng.normal(size=(N, D))
    mask = rng.uniform(size=x.shape) > share
    mask[3] = False
    return w, mu, sigma, x.astype(np.float32), mask


def exact(w, mu, sigma, x, mask):
    """Returns log p(x_obs) [N] and E[x_mis | x_obs] [N, D]: from the rows of W that are observed alone."""
    bound, mean = np.zeros(len(x)), np.array(x, np.float64)
    for i, (row, seen) in enumerate(zip(np.asarray(x, np.float64), mask)):
        a, r = w[seen], row[seen] - mu[seen]
        m = np.eye(w.shape[1]) + a.T @ a / sigma**2
        z = np.linalg.solve(m, a.T @ r) / sigma**2
        c = a @ a.T + sigma**2 * np.eye(len(a))
        bound[i] = -0.5 * (len(a) * np.log(2 * np.pi) + np.linalg.slogdet(c)[1] + r @ np.linalg.solve(c, r))
        mean[i, ~seen] = (w @ z + mu)[~seen]
    return bound, mean


def em(x, mask, q: int, steps: int = 300, floor: float = 1e-6):
    """Returns (W, mu, sigma) of pPCA by EM on what is observed; each column's regression on z and 1."""
    rng = np.random.default_rng(0)
    n, d = x.shape
    x = np.where(mask, np.asarray(x, np.float64), 0.0)
    mu, w, s2 = x.sum(0) / np.maximum(mask.sum(0), 1), 0.1 * rng.normal(size=(d, q)), x[mask].var()
    seen = mask.astype(float)
    for _ in range(steps):
        # Posterior of each row: precision from its observed columns.
        m = np.eye(q) + np.einsum("nd,di,dj->nij", seen, w, w) / s2
        cov = np.linalg.inv(m)
        z = np.einsum("nij,nj->ni", cov, (seen * (x - mu)) @ w) / s2
        h = np.concatenate([z, np.ones((n, 1))], 1)
        hh = h[:, :, None] * h[:, None, :]
        hh[:, :q, :q] += cov
        a = np.einsum("nd,nij->dij", seen, hh) + floor * np.eye(q + 1)
        b = np.einsum("nd,ni->di", seen * x, h)
        v = np.linalg.solve(a, b[..., None])[..., 0]
        w, mu = v[:, :q], v[:, q]
        error = x**2 - 2 * x * (h @ v.T) + np.einsum("di,nij,dj->nd", v, hh, v)
        s2 = max((seen * error).sum() / seen.sum(), floor)
    return w, mu, np.sqrt(s2)


def trained(model, given) -> TrainState:
    import optax

    return init_state(model, optax.adam(1e-3), jax.random.key(0), given)


@functools.cache
def linear():
    """Returns (model, state) whose decoder is that of `simulated`, with an encoder that is only roughly right."""
    w, mu, sigma, x, mask = simulated()
    model = VAE(Q, Linear(), GaussianLearned(min_log_std=-60.0)).build(spec.vectors(D, mask=True, examples=N))
    state = trained(model, {"x": jnp.asarray(x), "mask": jnp.asarray(mask)})
    params = jax.tree.map(np.asarray, state.params)
    params["vae"]["decoder"]["out"] = {"kernel": jnp.asarray(w.T, jnp.float32), "bias": jnp.asarray(mu, jnp.float32)}
    params["vae"]["likelihood"]["log_std"] = jnp.asarray(np.log(sigma), jnp.float32)
    # q of complete rows, widened: an importance sampler must correct the rest.
    m = np.eye(Q) + w.T @ w / sigma**2
    gain = np.linalg.solve(m, w.T) / sigma**2
    kernel = np.concatenate([gain.T, np.zeros((D, Q))], 1)
    bias = np.concatenate([-gain @ mu, np.full(Q, -0.5)])
    params["vae"]["encoder"]["out"] = {
        "kernel": jnp.asarray(kernel, jnp.float32),
        "bias": jnp.asarray(bias, jnp.float32),
    }
    return model, dataclasses.replace(state, params=params)


def rows(count: int):
    _, _, _, x, mask = simulated()
    return {"x": np.where(mask, x, 0.0)[:count], "mask": mask[:count], "index": np.arange(count)}


def test_imputation_is_the_exact_conditional_mean():
    w, mu, sigma, x, mask = simulated()
    model, state = linear()
    want = exact(w, mu, sigma, x, mask)[1][:40]
    found = imputation.impute_all(model, state, [rows(40)], key=jax.random.key(1), k=20_000, draws=0)
    missing = ~mask[:40]
    np.testing.assert_allclose(found.mean[missing], want[missing], atol=0.12)
    assert np.sqrt(np.square(found.mean - want)[missing].mean()) < 0.03
    # Nothing observed: what the prior makes of it, the mean of the data.
    np.testing.assert_allclose(found.mean[3], mu, atol=0.12)
    assert found.draws.shape == (0, 40, D)


def test_no_imputation_depends_on_the_batch_size():
    model, state = linear()
    run = functools.partial(imputation.impute_all, model, state, key=jax.random.key(1), k=7, draws=2)
    one = run([rows(10)])
    parts = [{n: v[i : i + 5] for n, v in rows(10).items()} for i in (0, 5)]
    for a, b in zip(one, run(parts)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_resampled_draws_have_the_conditional_moments():
    w, mu, sigma, x, mask = simulated()
    model, state = linear()
    found = imputation.impute_all(model, state, [rows(12)], key=jax.random.key(2), k=1000, draws=400)
    for i in range(12):
        a, hidden = w[mask[i]], ~mask[i]
        cov = w @ np.linalg.inv(np.eye(Q) + a.T @ a / sigma**2) @ w.T + sigma**2 * np.eye(D)
        want = exact(w, mu, sigma, x[i : i + 1], mask[i : i + 1])[1][0]
        got, sd = found.draws[:, i][:, hidden], np.sqrt(np.diag(cov))[hidden]
        np.testing.assert_array_less(np.abs(got.mean(0) - want[hidden]), 6 * sd / np.sqrt(400))
        np.testing.assert_allclose(got.std(0), sd, rtol=0.2)


def test_the_bound_rises_with_samples_to_the_observed_likelihood():
    w, mu, sigma, x, mask = simulated()
    model, state = linear()
    want = exact(w, mu, sigma, x, mask)[0][:200]
    of = {
        k: imputation.impute_all(model, state, [rows(200)], key=jax.random.key(3), k=k).bound
        for k in (1, 10, 100, 2000)
    }
    means = [float(bound.mean()) for bound in of.values()]
    assert means == sorted(means)
    assert means[-1] < want.mean() + 0.01
    assert want.mean() - means[-1] < 0.05
    # The bound of the model itself is the same number.
    given = rows(200)
    ctx = model.context(given, train=False)
    args = (state.params, state.model_state, jax.random.key(5), given, ctx)
    assert model.density is not None
    np.testing.assert_allclose(model.density.bound(*args, 2000).mean(), means[-1], atol=0.05)


def test_training_a_linear_vae_reaches_ppca_with_missing_data():
    """The exact log p(x_obs) of the trained decoder against that of EM on the same data, 30 % missing."""
    import optax

    _, _, _, x, mask = simulated()
    given = {"x": jnp.asarray(np.where(mask, x, 0.0)), "mask": jnp.asarray(mask)}
    # The encoder must know which entries are there: the best q(z|x_obs) differs by mask, which a small MLP learns.
    likelihood = GaussianLearned(min_log_std=-60.0)
    config = VAE(Q, Encoded(hidden=(64,)), likelihood, mask_input=True)
    model = config.build(spec.vectors(D, mask=True, examples=N))
    tx = optax.adam(optax.cosine_decay_schedule(1e-2, 4000))
    state = trained(model, given)

    def step(carry, i):
        params, opt = carry
        key = jax.random.fold_in(jax.random.key(1), i)
        grads = jax.grad(lambda p: model.loss(p, state.model_state, key, given, model.context(given, step=i))[0])(
            params
        )
        updates, opt = tx.update(grads, opt)
        return (optax.apply_updates(params, updates), opt), None

    (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(4000)))((state.params, tx.init(state.params)))
    out = params["vae"]["decoder"]["out"]
    sigma = float(model.decode(params, {}, jnp.zeros((1, Q))).log_std)
    got = exact(np.asarray(out["kernel"], np.float64).T, np.asarray(out["bias"]), np.exp(sigma), x, mask)[0].mean()
    best = exact(*em(x, mask, Q), x, mask)[0].mean()
    filled = np.where(mask, x, (x * mask).sum(0) / mask.sum(0))
    naive = exact(*em(filled, np.ones_like(mask), Q), x, mask)[0].mean()
    assert best - 0.05 < got < best + 1e-3
    assert naive < best - 0.2  # filling in means first is much worse


@dataclasses.dataclass(frozen=True)
class Encoded(MLP):
    """An MLP that encodes, with a linear decoder."""

    def decoder(self, out_shape, dtype):
        return Linear().decoder(out_shape, dtype)


def test_keys_of_draws_differ():
    keys = prng.example_keys(jax.random.key(0), jnp.arange(3))
    noise = imputation._gumbel(keys, 4)
    assert noise.shape == (4, 3)
    assert len(np.unique(np.asarray(noise))) == 12
