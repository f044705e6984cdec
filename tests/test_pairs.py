"""Every pair of components: it takes a finite step that moves every parameter group, or is refused in words.

A greedy covering array puts all allowed pairs of (objective, posterior, prior, likelihood, gradient) into few models.
The gradients of all of them are checked by `make test-slow`, those of the models with most pairs in the suite, and of a
few that have every component but the objectives (which `test_objectives_parallel.py` has). Of these the ones with every
estimator and every kind of running state also step over 8 devices as over one.
"""

import contextlib
import functools
import itertools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support

from vae_jax import prng, train
from vae_jax.errors import InputError
from vae_jax.likelihoods import LIKELIHOODS
from vae_jax.models import VAE
from vae_jax.models.condition import Condition
from vae_jax.networks import MLP
from vae_jax.objectives import GRADIENTS, OBJECTIVES
from vae_jax.options import needs
from vae_jax.posteriors import POSTERIORS
from vae_jax.priors import PRIORS
from vae_jax.train import MeshConfig
from vae_jax.train.sharding import batch_sharding, replicated

SHAPE, B, D = (6, 5, 1), 8, 3
TABLES = {
    "objective": OBJECTIVES,
    "posterior": POSTERIORS,
    "prior": PRIORS,
    "likelihood": LIKELIHOODS,
    "gradient": GRADIENTS,
}
Choice = tuple[str, ...]  # one name per table, in the order of TABLES


@functools.cache
def component(part: str, name: str):
    return support.shrink(TABLES[part][name]())


NETWORK, CONDITIONS = MLP(hidden=(8,)), {True: Condition("label"), False: Condition("none")}


def config(choice: Choice) -> VAE:
    parts = {part: component(part, name) for part, name in zip(TABLES, choice, strict=True)}
    return VAE(D, NETWORK, condition=CONDITIONS[parts["prior"].conditional], **parts)


@contextlib.contextmanager
def remembered():
    """What each component gives and needs is read once: here tens of thousands of models have the same components."""

    def once(function):
        known = {}  # with the component, whose id no other one gets as long as it is held

        def read(part):
            if id(part) not in known:
                known[id(part)] = part, function(part)
            return known[id(part)][1]

        return read

    with pytest.MonkeyPatch.context() as patch:
        for name in ("gives", "needs"):
            patch.setattr(needs, name, once(getattr(needs, name)))
        yield patch


def refusal(choice: Choice) -> str | None:
    try:
        config(choice).check()
    except InputError as error:
        return str(error)
    return None


def pairs_of(choice: Choice) -> set:
    return set(itertools.combinations(enumerate(choice), 2))


@functools.cache
def covering() -> tuple[tuple[Choice, ...], frozenset]:
    """Returns (models that cover every pair that occurs in any allowed model, these pairs)."""
    # Whether a choice is allowed never depends on the likelihood, beyond its being a density: one per kind suffices.
    names = [list(table) for table in TABLES.values()]
    kinds = {LIKELIHOODS[n].normalized: n for n in reversed(names[3])}
    with remembered() as patch:
        # Every worker does this before its first test: without the advice, whose search takes most of the time.
        patch.setattr(needs, "_fix", lambda *args: "")
        choices = itertools.product(*names[:3], kinds.values(), names[4])
        allowed = [c for c in choices if refusal(c) is None]
    wanted = set()
    for c in allowed:
        for name in names[3]:
            if LIKELIHOODS[name].normalized == LIKELIHOODS[c[3]].normalized:
                wanted |= pairs_of((*c[:3], name, c[4]))
    by_pair: dict = {}
    for c in allowed:
        for pair in pairs_of(c):
            by_pair.setdefault(pair, []).append(c)
    left, chosen, random = set(wanted), [], np.random.default_rng(0)
    for pair in sorted(wanted, key=str):
        if pair not in left:
            continue
        # A likelihood other than the one that stood for its kind: look the pair up under that one.
        stand_in = tuple((i, kinds[LIKELIHOODS[n].normalized] if i == 3 else n) for i, n in pair)
        options = by_pair[stand_in]
        likelihood = dict(pair).get(3)
        best, gain = None, 0
        for number in random.permutation(len(options))[:60]:
            c = options[number]
            same = [n for n in names[3] if LIKELIHOODS[n].normalized == LIKELIHOODS[c[3]].normalized]
            for name in [likelihood] if likelihood else random.permutation(same)[:3]:
                candidate = (*c[:3], str(name), c[4])
                found = len(pairs_of(candidate) & left)
                if found > gain:
                    best, gain = candidate, found
        assert best is not None
        chosen.append(best)
        left -= pairs_of(best)
    return tuple(chosen), frozenset(wanted)


def steps_of(choice: Choice) -> tuple:
    """Returns the state before a step, and (state, metrics) after it on one device and on eight."""
    model = config(choice).build(support.spec(SHAPE))
    batch = support.images(B, SHAPE, counts=LIKELIHOODS[choice[3]].counts)
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)[0]
    tx = support.optimizer(shapes, train.Optimizer("sgd", lr=1e-3))
    step, start = train.make_train_step(model, tx), jax.jit(train.make_init(model, tx))(jax.random.key(1), batch)
    after = []
    for devices in (1, 8):
        mesh = train.make_mesh(MeshConfig(data=devices))
        # Placed, not made anew: `test_layouts_agree` has states that were made on many devices.
        placed = jax.device_put(jax.tree.map(jnp.copy, start), replicated(mesh))
        run = train.jit_step(step, placed, mesh)
        after.append(jax.device_get(run(placed, jax.device_put(batch, batch_sharding(mesh)))))
    return jax.device_get(start), *after


def gradients_of(choice: Choice):
    """Returns (gradients by group, metrics) of one training batch."""
    model = config(choice).build(support.spec(SHAPE))
    batch, ctx = support.images(B, SHAPE, counts=LIKELIHOODS[choice[3]].counts), support.context(model, B)

    @jax.jit
    def run(key, batch):
        params, state = model.init(key, batch)
        grad = jax.grad(model.loss, has_aux=True)
        grads, aux = grad(params, state, prng.site_key(key, "step"), batch, ctx)
        return grads, aux.metrics

    return jax.device_get(run(jax.random.key(1), batch))


def check_step(choice: Choice) -> None:
    grads, metrics = gradients_of(choice)
    try:
        chex.assert_tree_all_finite((grads, metrics))
    except AssertionError as error:
        raise AssertionError(f"{choice}: {error}") from error
    for group, tree in grads.items():
        assert any(np.any(leaf) for leaf in jax.tree.leaves(tree)), f"{choice}: no gradient reaches {group}"


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_allowed_pair_gives_finite_gradients(objective):
    """The whole covering array: about 400 models, ten minutes."""
    for choice in covering()[0]:
        if choice[0] == objective:
            check_step(choice)


def test_the_models_cover_every_pair():
    models, wanted = covering()
    assert set().union(*map(pairs_of, models)) == set(wanted)
    for part, i in zip(TABLES, range(len(TABLES)), strict=True):
        assert {c[i] for c in models} == set(TABLES[part]), f"a {part} goes with nothing"


# The fix of a refusal: an option with a name of its table, and up to three other names.
FIX = re.compile(
    r'model\.\w+: [^;]* needs [^;]*; choose \*\*\{"model\.(\w+)": "([\w-]+)"\}(?: \((?:or "[\w-]+" ?){1,3}(?<! )\))?'
)


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.slow), 11])
def test_refusals_are_one_line_with_a_fix_that_helps(stride):
    """Of every eleventh choice, which has every component in it, and under `slow` of all."""
    choices = list(itertools.product(OBJECTIVES, POSTERIORS, PRIORS, ["bernoulli"], GRADIENTS))[::stride]
    with remembered():
        refused = functools.cache(refusal)
        found = [choice for choice in choices if refused(choice) is not None]
        assert len(found) > 30_000 // stride
        assert all({c[i] for c in choices} == set(names) for i, names in enumerate(TABLES.values()) if i != 3)
        for choice in found:
            # Where several pairs do not fit, another one may be named next, but never the same again; whoever follows
            # on arrives at a model.
            steps = 0
            while (words := refused(choice)) is not None:
                fix = FIX.fullmatch(words)
                assert fix, words
                part, name = fix.groups()
                choice = tuple(name if table == part else old for table, old in zip(TABLES, choice, strict=True))
                assert refused(choice) != words
                steps += 1
                assert steps <= 4, choice


# Its loop of encoder steps makes the longest program: where the objective is free, another one stands in.
LONGEST, PLAIN = "aggressive", "elbo"


@functools.cache
def component_cases(but: str = "") -> tuple[Choice, ...]:
    """Returns few models of the covering array that hold every component but those of one table.

    The one with most that are missing, again and again.
    """
    # Over eight devices XLA:CPU runs two collectives of the rejection loop of von Mises in any order, and with this
    # estimator now and then waits forever: it aborts the process.
    models = [choice for choice in covering()[0] if not {"von-mises", "dreg"} <= set(choice)]
    parts = [{(part, name) for part, name in zip(TABLES, choice, strict=True) if part != but} for choice in models]
    left, chosen = set().union(*parts), []
    while left:
        best = max(range(len(parts)), key=lambda i: len(parts[i] & left))
        chosen.append(models[best])
        left -= parts[best]
    if but == "objective":
        chosen = [(PLAIN, *c[1:]) if c[0] == LONGEST and refusal((PLAIN, *c[1:])) is None else c for c in chosen]
    return tuple(sorted({*chosen}))


IN_SUITE = 8  # models, two seconds each, besides those of `component_cases`


def richest() -> list[Choice]:
    """Returns the models of the covering array that add most pairs to those of `component_cases`."""
    left = set(covering()[1]).difference(*map(pairs_of, component_cases("objective")))
    chosen: list[Choice] = []
    for _ in range(IN_SUITE):
        best = max(covering()[0], key=lambda choice: len(pairs_of(choice) & left))
        chosen.append(best)
        left -= pairs_of(best)
    return sorted(chosen)


@pytest.mark.parametrize("choice", richest(), ids="+".join)
def test_richest_models_give_finite_gradients(choice):
    check_step(choice)


def test_the_suite_holds_a_share_of_every_kind_of_pair():
    """A ninth of all allowed pairs, and a twentieth of those of any two tables; `make test-slow` holds all."""
    made = set().union(*map(pairs_of, [*component_cases("objective"), *richest()]))
    for tables in itertools.combinations(range(len(TABLES)), 2):
        wanted = {pair for pair in covering()[1] if tuple(i for i, _ in pair) == tables}
        assert len(wanted & made) > len(wanted) / 20, tables
    assert len(covering()[1] & made) > len(covering()[1]) / 9


# Over devices the program is the same in the global view, whatever a posterior or a likelihood computes of an example.
# What differs is what is kept from step to step, and what an estimator couples: these, and all of them under `slow`.
KEPT = {"gaussian-optimal", "poisson", "resampled", "exemplar", *GRADIENTS}


@functools.cache
def kept_cases() -> tuple[Choice, ...]:
    """Returns few of the models of `component_cases` that hold all of `KEPT`."""
    left, chosen = set(KEPT), []
    while left:
        chosen.append(max(component_cases("objective"), key=lambda choice: len(left & set(choice))))
        assert left & set(chosen[-1]), f"in no model: {left}"
        left -= set(chosen[-1])
    return tuple(sorted(chosen))


@pytest.mark.parametrize("choice", sorted({*component_cases("objective")} - {*kept_cases()}), ids="+".join)
def test_every_component_gives_finite_gradients(choice):
    """Those that step over eight devices only under `slow`."""
    check_step(choice)


@pytest.mark.parametrize(
    "choice",
    support.slow_but(kept_cases(), sorted({*component_cases("objective"), *component_cases()})),
    ids="+".join,
)
def test_eight_devices_are_one(choice):
    """Parameters, running state and metrics after a step, batch-coupled terms and noise included; every group moves."""
    start, (one, metrics), (eight, metrics_8) = steps_of(choice)
    chex.assert_tree_all_finite((one.params, metrics))
    for group, params in start.params.items():
        moved = [np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (params, one.params[group])), strict=True)]
        assert any(moved), f"no gradient reaches {group}"
    support.assert_trees_close(metrics_8, metrics, rtol=1e-4, atol=1e-4)
    support.assert_trees_close(eight.params, one.params, rtol=1e-4, atol=1e-5)
    support.assert_trees_close(eight.model_state, one.model_state, rtol=1e-4, atol=1e-5)
    assert float(jnp.sum(jnp.square(metrics["grad_norm"]))) > 0
