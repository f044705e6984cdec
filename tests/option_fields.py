"""What each field of each component changes: shapes of parameters, their start, or the programs that are compiled.

`FIELDS` has a row for each field: another value than the default, and everything that changes with it. A field that
changes shapes changes every program; what is listed then is the parts whose parameters change. Programs are compared
as the text that XLA gets, without dead code, so a value that is read and dropped changes nothing.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import support

from vae_jax.model import Context
from vae_jax.models import MODELS, VAE, VQVAE
from vae_jax.models.condition import Condition
from vae_jax.models.stage2.config import PriorCondition
from vae_jax.networks import MLP
from vae_jax.objectives import OBJECTIVES
from vae_jax.runs import config as configs
from vae_jax.runs.config import REGISTRIES

B, D, SHAPE = 4, 4, (16, 16, 1)
SMALL = MLP(hidden=(4,))

# (component option, component) -> other values that its fields need to matter, and channels of the images.
NEEDS: dict[tuple[str, str], dict[str, Any]] = {
    ("model", "ae"): {"corruption": "gaussian"},
    ("model", "multimodal"): {"samples": 2},
    ("model.objective", "free-bits"): {"unit": "group"},
}
CHANNELS = {("model.likelihood", "logistic-mixture"): 3}

FIELDS: dict[tuple[str, str, str], tuple[Any, str]] = {
    # ---- model
    ("model", "vae", "latent_dim"): (5, "shape:decoder shape:encoder"),
    ("model", "vae", "precision"): ("bfloat16", "loss sample terms"),
    ("model", "ae", "latent_dim"): (5, "shape:decoder shape:encoder"),
    ("model", "ae", "corruption"): ("mask", "loss"),
    ("model", "ae", "corruption_level"): (0.125, "loss"),
    ("model", "ae", "precision"): ("bfloat16", "loss terms"),
    ("model", "m2", "latent_dim"): (5, "shape:decoder shape:join"),
    ("model", "m2", "alpha"): (1.5, "loss"),
    ("model", "m2", "labelled_weight"): (0.5, "loss"),
    ("model", "m2", "beta"): (0.5, "loss"),
    ("model", "m2", "width"): (7, "shape:encoder shape:join"),
    ("model", "m2", "precision"): ("bfloat16", "loss sample terms"),
    ("model", "classifier", "latent_dim"): (5, "shape:decoder shape:join"),
    ("model", "classifier", "alpha"): (0.5, "loss"),
    ("model", "classifier", "labelled_weight"): (0.5, "loss"),
    ("model", "classifier", "beta"): (0.5, "loss"),
    ("model", "classifier", "width"): (7, "shape:encoder shape:join"),
    ("model", "classifier", "precision"): ("bfloat16", "loss sample terms"),
    ("model", "multimodal", "latent_dim"): (5, "shape:decoder shape:encoder shape:label_decoder shape:label_encoder"),
    ("model", "multimodal", "fusion"): ("moe", "loss terms"),
    ("model", "multimodal", "bound"): ("iwae", "loss"),
    ("model", "multimodal", "samples"): (3, "loss terms"),
    ("model", "multimodal", "label_weight"): (5.0, "loss"),
    ("model", "multimodal", "beta"): (0.5, "loss"),
    ("model", "multimodal", "width"): (7, "shape:label_decoder shape:label_encoder"),
    ("model", "multimodal", "precision"): ("bfloat16", "loss sample terms"),
    ("model", "vq", "features"): (5, "shape:decoder shape:encoder shape:running-quantizer"),
    ("model", "vq", "precision"): ("bfloat16", "loss terms"),
    ("model", "vq2", "features"): (
        5,
        "shape:decoder shape:join shape:running-quantizer_bottom shape:running-quantizer_top shape:top_decoder "
        "shape:top_encoder",
    ),
    ("model", "vq2", "top_stages"): (2, "shape:top_decoder shape:top_encoder"),
    ("model", "vq2", "top_hidden"): (12, "shape:bottom_encoder shape:join shape:top_decoder shape:top_encoder"),
    ("model", "vq2", "top_blocks"): (0, "shape:top_decoder shape:top_encoder"),
    ("model", "vq2", "precision"): ("bfloat16", "loss terms"),
    ("model", "second-stage", "precision"): ("bfloat16", "loss sample terms"),
    # ---- model.network
    ("model.network", "mlp", "hidden"): ((17, 17), "shape:decoder shape:encoder"),
    ("model.network", "mlp", "activation"): ("tanh", "loss sample terms"),
    ("model.network", "mlp", "decoder_hidden"): ((5,), "shape:decoder"),
    ("model.network", "mlp", "dropout"): (0.3, "loss"),
    ("model.network", "mlp", "skip"): (True, "shape:decoder"),
    ("model.network", "lenet", "channels"): ((7, 17), "shape:decoder shape:encoder"),
    ("model.network", "lenet", "kernel"): (3, "shape:encoder"),
    ("model.network", "lenet", "up_kernel"): (3, "shape:decoder"),
    ("model.network", "lenet", "dense"): ((17, 17), "shape:decoder shape:encoder"),
    ("model.network", "lenet", "activation"): ("tanh", "loss sample terms"),
    ("model.network", "lenet", "norm"): ("group", "shape:decoder shape:encoder"),
    ("model.network", "lenet", "upsample"): ("nearest", "loss sample terms"),
    ("model.network", "pooled-conv", "channels"): ((17, 17, 17), "shape:decoder shape:encoder"),
    ("model.network", "pooled-conv", "kernel"): (5, "shape:encoder"),
    ("model.network", "pooled-conv", "up_kernel"): (5, "shape:decoder"),
    ("model.network", "pooled-conv", "dense"): ((17,), "shape:decoder shape:encoder"),
    ("model.network", "pooled-conv", "activation"): ("tanh", "loss sample terms"),
    ("model.network", "pooled-conv", "norm"): ("group", "shape:decoder shape:encoder"),
    ("model.network", "pooled-conv", "upsample"): ("nearest", "shape:decoder"),
    ("model.network", "conv64", "channels"): ((17, 17, 17, 17), "shape:decoder shape:encoder"),
    ("model.network", "conv64", "kernels"): ((5, 5, 3, 3), "shape:encoder"),
    ("model.network", "conv64", "up_kernel"): (5, "shape:decoder"),
    ("model.network", "conv64", "dense"): ((17,), "shape:decoder shape:encoder"),
    ("model.network", "conv64", "activation"): ("tanh", "loss sample terms"),
    ("model.network", "conv64", "norm"): ("group", "shape:decoder shape:encoder"),
    ("model.network", "conv64", "upsample"): ("nearest", "shape:decoder"),
    ("model.network", "deep-conv", "channels"): ((17, 17, 17, 17), "shape:decoder shape:encoder"),
    ("model.network", "deep-conv", "kernels"): ((5, 5, 5, 5), "shape:encoder"),
    ("model.network", "deep-conv", "up_kernel"): (5, "shape:decoder"),
    ("model.network", "deep-conv", "dense"): ((5,), "shape:decoder shape:encoder"),
    ("model.network", "deep-conv", "activation"): ("tanh", "loss sample terms"),
    ("model.network", "deep-conv", "norm"): ("none", "shape:decoder shape:encoder"),
    ("model.network", "deep-conv", "upsample"): ("nearest", "shape:decoder"),
    ("model.network", "broadcast", "channels"): ((17, 17, 17, 17), "shape:encoder"),
    ("model.network", "broadcast", "kernels"): ((5, 5, 3, 3), "shape:encoder"),
    ("model.network", "broadcast", "dense"): ((17,), "shape:encoder"),
    ("model.network", "broadcast", "activation"): ("tanh", "loss sample terms"),
    ("model.network", "broadcast", "norm"): ("group", "shape:encoder"),
    ("model.network", "broadcast", "pixel_hidden"): ((17, 17, 17), "shape:decoder"),
    ("model.network", "broadcast", "patch"): (3, "shape:decoder"),
    ("model.network", "broadcast", "aspect"): (0.5, "loss sample terms"),
    ("model.network", "local-ar", "hidden"): ((17,), "shape:encoder"),
    ("model.network", "local-ar", "activation"): ("tanh", "loss sample terms"),
    ("model.network", "local-ar", "kernel"): (5, "shape:decoder"),
    ("model.network", "local-ar", "pixel_hidden"): ((17, 17), "shape:decoder"),
    ("model.network", "local-ar", "input_dropout"): (0.3, "loss"),
    ("model.network", "local-ar", "skip"): (True, "shape:decoder"),
    ("model.network", "local-ar", "code_hidden"): (7, "shape:decoder"),
    ("model.network", "local-ar", "code_maps"): (5, "shape:decoder"),
    ("model.network", "local-ar", "code_scale"): (0.5, "start"),
    ("model.network", "residual-conv", "hidden"): (10, "shape:decoder shape:encoder"),
    ("model.network", "residual-conv", "stages"): (3, "shape:decoder shape:encoder"),
    ("model.network", "residual-conv", "blocks"): (1, "shape:decoder shape:encoder"),
    ("model.network", "residual-conv", "block_hidden"): (7, "shape:decoder shape:encoder"),
    ("model.network", "residual-conv", "activation"): ("tanh", "loss terms"),
    ("model.network", "residual-conv", "norm"): ("group", "shape:decoder shape:encoder"),
    ("model.network", "vit", "patch"): (2, "shape:decoder shape:encoder"),
    ("model.network", "vit", "width"): (8, "shape:decoder shape:encoder"),
    ("model.network", "vit", "depth"): (1, "shape:decoder shape:encoder"),
    ("model.network", "vit", "heads"): (2, "loss terms"),
    ("model.network", "vit", "mlp"): (2, "shape:decoder shape:encoder"),
    # ---- model.likelihood
    ("model.likelihood", "gaussian", "std"): (0.5, "loss terms"),
    ("model.likelihood", "gaussian", "center"): (0.5, "loss sample terms"),
    ("model.likelihood", "gaussian-learned", "init_std"): (0.5, "start"),
    ("model.likelihood", "gaussian-learned", "min_log_std"): (-3.0, "loss terms"),
    ("model.likelihood", "gaussian-pixelwise", "min_log_std"): (-3.0, "loss terms"),
    ("model.likelihood", "gaussian-optimal", "decay"): (0.495, "loss"),
    ("model.likelihood", "gaussian-optimal", "min_log_std"): (-3.0, "loss terms"),
    ("model.likelihood", "laplace", "init_scale"): (0.1, "start"),
    ("model.likelihood", "laplace", "learned"): (False, "shape:likelihood"),
    ("model.likelihood", "laplace", "min_log_scale"): (-3.0, "loss terms"),
    ("model.likelihood", "poisson", "size"): ("none", "shape:running-likelihood"),
    ("model.likelihood", "negative-binomial", "size"): ("none", "shape:running-likelihood"),
    ("model.likelihood", "negative-binomial", "dispersion"): ("code", "shape:decoder shape:likelihood"),
    ("model.likelihood", "zero-inflated-nb", "size"): ("none", "shape:running-likelihood"),
    ("model.likelihood", "zero-inflated-nb", "dispersion"): ("code", "shape:decoder shape:likelihood"),
    ("model.likelihood", "table", "scale"): ("table", "shape:likelihood"),
    ("model.likelihood", "table", "min_log_std"): (-3.0, "loss terms"),
    ("model.likelihood", "student-t", "init_scale"): (0.1, "start"),
    ("model.likelihood", "student-t", "learned"): (False, "shape:likelihood"),
    ("model.likelihood", "student-t", "min_log_scale"): (-3.0, "loss terms"),
    ("model.likelihood", "student-t", "df"): (2.0, "loss terms"),
    ("model.likelihood", "log-cosh", "init_scale"): (0.1, "start"),
    ("model.likelihood", "log-cosh", "learned"): (False, "shape:likelihood"),
    ("model.likelihood", "log-cosh", "min_log_scale"): (-3.0, "loss terms"),
    ("model.likelihood", "beta", "min_shape"): (0.05, "loss sample terms"),
    ("model.likelihood", "logit-laplace", "epsilon"): (0.2, "loss sample terms"),
    ("model.likelihood", "logit-laplace", "min_log_scale"): (-3.0, "loss sample terms"),
    ("model.likelihood", "logistic-256", "pixelwise"): (True, "shape:decoder shape:likelihood"),
    ("model.likelihood", "logistic-256", "init_scale"): (0.1, "start"),
    ("model.likelihood", "logistic-256", "min_log_scale"): (-3.5, "loss sample terms"),
    ("model.likelihood", "logistic-mixture", "components"): (6, "shape:decoder"),
    ("model.likelihood", "logistic-mixture", "coupled"): (False, "shape:decoder"),
    ("model.likelihood", "logistic-mixture", "min_log_scale"): (-3.5, "loss sample terms"),
    ("model.likelihood", "ms-ssim", "weight"): (0.5, "loss terms"),
    # ---- model.posterior
    ("model.posterior", "gaussian", "shared_variance"): (True, "shape:encoder shape:posterior"),
    ("model.posterior", "categorical", "relaxation"): ("straight-through", "loss"),
    ("model.posterior", "categorical", "temperature"): (0.5, "loss"),
    ("model.posterior", "categorical", "final_temperature"): (0.25, "loss"),
    ("model.posterior", "categorical", "anneal_steps"): (7, "loss"),
    ("model.posterior", "categorical", "categories"): (11, "shape:decoder shape:encoder"),
    ("model.posterior", "bernoulli", "relaxation"): ("straight-through", "loss"),
    ("model.posterior", "bernoulli", "temperature"): (0.5, "loss"),
    ("model.posterior", "bernoulli", "final_temperature"): (0.25, "loss"),
    ("model.posterior", "bernoulli", "anneal_steps"): (7, "loss"),
    ("model.posterior", "joint", "relaxation"): ("straight-through", "loss"),
    ("model.posterior", "joint", "temperature"): (0.5, "loss"),
    ("model.posterior", "joint", "final_temperature"): (0.25, "loss"),
    ("model.posterior", "joint", "anneal_steps"): (7, "loss"),
    ("model.posterior", "joint", "categories"): ((11,), "shape:decoder shape:encoder"),
    ("model.posterior", "planar", "layers"): (9, "shape:encoder"),
    ("model.posterior", "radial", "layers"): (9, "shape:encoder"),
    ("model.posterior", "iaf", "layers"): (5, "shape:posterior"),
    ("model.posterior", "iaf", "hidden"): ((17,), "shape:posterior"),
    ("model.posterior", "iaf", "context"): (7, "shape:encoder shape:posterior"),
    ("model.posterior", "coupling", "layers"): (5, "shape:posterior"),
    ("model.posterior", "coupling", "hidden"): ((17,), "shape:posterior"),
    ("model.posterior", "coupling", "context"): (7, "shape:encoder shape:posterior"),
    ("model.posterior", "low-rank-gaussian", "rank"): (3, "shape:encoder"),
    # ---- model.prior
    ("model.prior", "normal", "mean"): (0.3, "loss sample terms"),
    ("model.prior", "normal", "std"): (0.5, "loss sample terms"),
    ("model.prior", "mog", "components"): (11, "shape:prior"),
    ("model.prior", "mog", "spread"): (0.25, "start"),
    ("model.prior", "vamp", "pseudo_inputs"): (7, "shape:prior"),
    ("model.prior", "vamp", "level"): (0.1, "start"),
    ("model.prior", "exemplar", "exemplars"): (7, "shape:running-prior"),
    ("model.prior", "exemplar", "std"): (0.5, "start"),
    ("model.prior", "bernoulli", "p"): (0.25, "loss sample terms"),
    ("model.prior", "conditional-normal", "hidden"): ((17,), "shape:prior"),
    ("model.prior", "resampled", "truncation"): (7, "loss sample terms"),
    ("model.prior", "resampled", "hidden"): ((17, 17), "shape:prior"),
    ("model.prior", "resampled", "samples"): (7, "loss"),
    ("model.prior", "resampled", "decay"): (0.45, "loss"),
    ("model.prior", "resampled", "evaluation_samples"): (7, "terms"),
    ("model.prior", "flow", "family"): ("maf", "loss sample start terms"),
    ("model.prior", "flow", "layers"): (7, "shape:prior"),
    ("model.prior", "flow", "hidden"): ((17,), "shape:prior"),
    ("model.prior", "autoregressive", "hidden"): ((17, 17), "shape:prior"),
    ("model.prior", "ar1", "delta"): (1.0, "loss sample terms"),
    ("model.prior", "laplace", "mean"): (0.3, "loss sample terms"),
    ("model.prior", "laplace", "scale"): (0.5, "loss sample terms"),
    ("model.prior", "gamma", "concentration"): (0.5, "loss sample terms"),
    ("model.prior", "gamma", "rate"): (0.5, "loss sample terms"),
    ("model.prior", "beta", "a"): (0.5, "loss sample terms"),
    ("model.prior", "beta", "b"): (0.5, "loss sample terms"),
    # ---- model.objective
    ("model.objective", "beta", "beta"): (2.0, "loss"),
    ("model.objective", "aggressive", "inner"): (11, "gate-vae"),
    ("model.objective", "aggressive", "steps"): (7, "gate-vae"),
    ("model.objective", "iwae", "k"): (6, "loss"),
    ("model.objective", "miwae", "m"): (5, "loss"),
    ("model.objective", "miwae", "k"): (5, "loss"),
    ("model.objective", "piwae", "m"): (5, "loss"),
    ("model.objective", "piwae", "k"): (5, "loss"),
    ("model.objective", "ciwae", "elbo_weight"): (0.025, "loss"),
    ("model.objective", "ciwae", "k"): (7, "loss"),
    ("model.objective", "joint-capacity", "gamma"): (15.0, "loss"),
    ("model.objective", "joint-capacity", "capacity"): (2.5, "loss"),
    ("model.objective", "joint-capacity", "discrete_capacity"): (2.5, "loss"),
    ("model.objective", "joint-capacity", "capacity_steps"): (7, "loss"),
    ("model.objective", "capacity", "gamma"): (500.0, "loss"),
    ("model.objective", "capacity", "capacity"): (12.5, "loss"),
    ("model.objective", "capacity", "capacity_steps"): (7, "loss"),
    ("model.objective", "free-bits", "free_nats"): (0.125, "loss"),
    ("model.objective", "free-bits", "unit"): ("all", "loss"),
    ("model.objective", "free-bits", "groups"): (3, "loss"),
    ("model.objective", "soft-free-bits", "target"): (2.5, "loss"),
    ("model.objective", "soft-free-bits", "speed"): (0.025, "loss"),
    ("model.objective", "soft-free-bits", "slack"): (0.025, "loss"),
    ("model.objective", "minimum-kl", "target"): (2.5, "loss"),
    ("model.objective", "beta-tc", "beta"): (3.0, "loss"),
    ("model.objective", "beta-tc", "alpha"): (0.5, "loss"),
    ("model.objective", "beta-tc", "gamma"): (0.5, "loss"),
    ("model.objective", "beta-tc", "estimator"): ("mws", "loss"),
    ("model.objective", "factor", "gamma"): (5.0, "loss"),
    ("model.objective", "factor", "hidden"): ((17, 17, 17, 17, 17, 17), "shape:critic"),
    ("model.objective", "dip-i", "lambda_od"): (5.0, "loss"),
    ("model.objective", "dip-i", "lambda_d"): (50.0, "loss"),
    ("model.objective", "dip-ii", "lambda_od"): (5.0, "loss"),
    ("model.objective", "dip-ii", "lambda_d"): (5.0, "loss"),
    ("model.objective", "mmd", "kernel"): ("rbf", "loss"),
    ("model.objective", "mmd", "bandwidths"): ((0.2, 0.4, 1.0, 2.0, 4.0, 10.0, 20.0), "loss"),
    ("model.objective", "mmd", "alpha"): (0.5, "loss"),
    ("model.objective", "mmd", "lam"): (5.0, "loss"),
    ("model.objective", "wae-mmd", "kernel"): ("rbf", "loss"),
    ("model.objective", "wae-mmd", "bandwidths"): ((0.2, 0.4, 1.0, 2.0, 4.0, 10.0, 20.0), "loss"),
    ("model.objective", "wae-mmd", "lam"): (5.0, "loss"),
    ("model.objective", "wae-gan", "lam"): (5.0, "loss"),
    ("model.objective", "wae-gan", "hidden"): ((17, 17, 17, 17), "shape:critic"),
    ("model.objective", "sliced-wae", "lam"): (5.0, "loss"),
    ("model.objective", "sliced-wae", "projections"): (7, "loss"),
    ("model.objective", "geco", "tolerance"): (0.05, "loss"),
    ("model.objective", "geco", "decay"): (0.495, "loss"),
    ("model.objective", "geco", "speed"): (0.005, "loss"),
    ("model.objective", "geco", "max_lambda"): (500000.0, "loss"),
    ("model.objective", "rae-l2", "beta"): (0.005, "loss"),
    ("model.objective", "rae-gp", "beta"): (0.005, "loss"),
    ("model.objective", "rae-gp", "lam"): (0.005, "loss"),
    # ---- model.objective.schedule
    ("model.objective.schedule", "linear", "hold"): (5, "loss"),
    ("model.objective.schedule", "linear", "steps"): (7, "loss"),
    ("model.objective.schedule", "linear", "start"): (0.3, "loss"),
    ("model.objective.schedule", "cyclical", "steps"): (7, "loss"),
    ("model.objective.schedule", "cyclical", "cycles"): (5, "loss"),
    ("model.objective.schedule", "cyclical", "ratio"): (0.25, "loss"),
    # ---- model.quantizer
    ("model.quantizer", "vq", "codes"): (9, "shape:running-quantizer"),
    ("model.quantizer", "vq", "update"): ("gradient", "shape:quantizer shape:running-quantizer"),
    ("model.quantizer", "vq", "decay"): (0.5, "loss"),
    ("model.quantizer", "vq", "commitment"): (0.5, "loss"),
    ("model.quantizer", "vq", "estimator"): ("rotation", "loss terms"),
    ("model.quantizer", "vq", "normalized"): (True, "loss start terms"),
    ("model.quantizer", "vq", "inner"): (3, "shape:quantizer shape:running-quantizer"),
    ("model.quantizer", "vq", "kmeans"): (2, "loss"),
    ("model.quantizer", "vq", "revive"): (0.1, "loss"),
    ("model.quantizer", "vq", "entropy"): (0.1, "loss"),
    ("model.quantizer", "vq", "epsilon"): (0.001, "loss"),
    ("model.quantizer", "simvq", "codes"): (9, "shape:running-quantizer"),
    ("model.quantizer", "simvq", "commitment"): (0.5, "loss"),
    ("model.quantizer", "residual-vq", "codes"): (9, "shape:running-quantizer"),
    ("model.quantizer", "residual-vq", "update"): ("gradient", "shape:quantizer shape:running-quantizer"),
    ("model.quantizer", "residual-vq", "decay"): (0.5, "loss"),
    ("model.quantizer", "residual-vq", "commitment"): (0.5, "loss"),
    ("model.quantizer", "residual-vq", "estimator"): ("rotation", "loss terms"),
    ("model.quantizer", "residual-vq", "normalized"): (True, "loss start terms"),
    ("model.quantizer", "residual-vq", "kmeans"): (2, "loss"),
    ("model.quantizer", "residual-vq", "revive"): (0.1, "loss"),
    ("model.quantizer", "residual-vq", "entropy"): (0.1, "loss"),
    ("model.quantizer", "residual-vq", "epsilon"): (0.001, "loss"),
    ("model.quantizer", "residual-vq", "depth"): (3, "shape:running-quantizer"),
    ("model.quantizer", "residual-vq", "dropout"): (0.5, "loss"),
    ("model.quantizer", "grouped-vq", "codes"): (9, "shape:running-quantizer"),
    ("model.quantizer", "grouped-vq", "update"): ("gradient", "shape:quantizer shape:running-quantizer"),
    ("model.quantizer", "grouped-vq", "decay"): (0.5, "loss"),
    ("model.quantizer", "grouped-vq", "commitment"): (0.5, "loss"),
    ("model.quantizer", "grouped-vq", "estimator"): ("rotation", "loss terms"),
    ("model.quantizer", "grouped-vq", "normalized"): (True, "loss start terms"),
    ("model.quantizer", "grouped-vq", "kmeans"): (2, "loss"),
    ("model.quantizer", "grouped-vq", "revive"): (0.1, "loss"),
    ("model.quantizer", "grouped-vq", "entropy"): (0.1, "loss"),
    ("model.quantizer", "grouped-vq", "epsilon"): (0.001, "loss"),
    ("model.quantizer", "grouped-vq", "depth"): (3, "shape:running-quantizer"),
    ("model.quantizer", "grouped-vq", "dropout"): (0.5, "loss"),
    ("model.quantizer", "grouped-vq", "groups"): (4, "shape:running-quantizer"),
    ("model.quantizer", "fsq", "levels"): ((3, 4), "shape:quantizer"),
    ("model.quantizer", "residual-fsq", "levels"): ((3, 4), "shape:quantizer"),
    ("model.quantizer", "residual-fsq", "depth"): (3, "loss terms"),
    ("model.quantizer", "lfq", "bits"): (3, "shape:quantizer"),
    ("model.quantizer", "lfq", "commitment"): (0.5, "loss"),
    ("model.quantizer", "lfq", "entropy"): (0.5, "loss"),
    ("model.quantizer", "lfq", "diversity"): (0.5, "loss"),
    ("model.quantizer", "lfq", "temperature"): (0.5, "loss"),
    ("model.quantizer", "lfq", "joint"): (2, "loss"),
    ("model.quantizer", "bsq", "bits"): (3, "shape:quantizer"),
    ("model.quantizer", "bsq", "commitment"): (0.5, "loss"),
    ("model.quantizer", "bsq", "entropy"): (0.5, "loss"),
    ("model.quantizer", "bsq", "diversity"): (0.5, "loss"),
    ("model.quantizer", "bsq", "temperature"): (0.5, "loss"),
    ("model.quantizer", "bsq", "joint"): (2, "loss"),
    ("model.quantizer", "latent", "levels"): ((3, 4), "shape:quantizer"),
    ("model.quantizer", "latent", "codebook"): (0.5, "loss"),
    ("model.quantizer", "latent", "commitment"): (0.5, "loss"),
    ("model.quantizer", "gumbel", "codes"): (9, "shape:quantizer"),
    ("model.quantizer", "gumbel", "kl"): (0.5, "loss"),
    ("model.quantizer", "gumbel", "temperature"): (0.5, "loss"),
    ("model.quantizer", "gumbel", "final_temperature"): (0.25, "loss"),
    ("model.quantizer", "gumbel", "anneal_steps"): (7, "loss"),
    # ---- model.generator
    ("model.generator", "transformer", "width"): (
        12,
        "shape:blank shape:blocks_0 shape:condition shape:head shape:norm shape:position shape:table",
    ),
    ("model.generator", "transformer", "depth"): (2, "shape:blocks_1"),
    ("model.generator", "transformer", "heads"): (4, "loss sample terms"),
    ("model.generator", "transformer", "dropout"): (0.5, "loss"),
    ("model.generator", "pixelcnn", "hidden"): (10, "shape:embedding shape:head shape:logits shape:stack_0"),
    ("model.generator", "pixelcnn", "layers"): (2, "shape:stack_1"),
    ("model.generator", "pixelcnn", "kernel"): (5, "shape:stack_0"),
    ("model.generator", "pixelcnn", "dropout"): (0.5, "loss"),
    ("model.generator", "masked", "width"): (
        12,
        "shape:blank shape:blocks_0 shape:condition shape:head shape:norm shape:position shape:table",
    ),
    ("model.generator", "masked", "depth"): (2, "shape:blocks_1"),
    ("model.generator", "masked", "heads"): (4, "loss sample"),
    ("model.generator", "masked", "dropout"): (0.5, "loss"),
    ("model.generator", "masked", "passes"): (3, "sample"),
    ("model.generator", "masked", "noise"): (1.0, "sample"),
    ("model.generator", "absorbing", "width"): (
        12,
        "shape:blank shape:blocks_0 shape:condition shape:head shape:norm shape:position shape:table",
    ),
    ("model.generator", "absorbing", "depth"): (2, "shape:blocks_1"),
    ("model.generator", "absorbing", "heads"): (4, "loss sample terms"),
    ("model.generator", "absorbing", "dropout"): (0.5, "loss"),
    ("model.generator", "absorbing", "passes"): (3, "sample"),
    ("model.generator", "absorbing", "masks"): (3, "terms"),
    ("model.generator", "diffusion", "width"): (
        12,
        "shape:embedding shape:in shape:layer_0a shape:layer_0b shape:modulation_0 shape:modulation_out shape:out",
    ),
    ("model.generator", "diffusion", "blocks"): (2, "shape:layer_1a shape:layer_1b shape:modulation_1"),
    ("model.generator", "diffusion", "dropout"): (0.5, "loss"),
    ("model.generator", "diffusion", "passes"): (3, "sample"),
    ("model.generator", "diffusion", "tolerance"): (0.001, "terms"),
    ("model.generator", "diffusion", "log_sigma_mean"): (-1.2, "loss"),
    ("model.generator", "diffusion", "log_sigma_std"): (0.6, "loss"),
    ("model.generator", "diffusion", "sigma_min"): (0.01, "sample terms"),
    ("model.generator", "diffusion", "sigma_max"): (40.0, "sample terms"),
    ("model.generator", "flow-matching", "width"): (
        12,
        "shape:embedding shape:in shape:layer_0a shape:layer_0b shape:modulation_0 shape:modulation_out shape:out",
    ),
    ("model.generator", "flow-matching", "blocks"): (2, "shape:layer_1a shape:layer_1b shape:modulation_1"),
    ("model.generator", "flow-matching", "dropout"): (0.5, "loss"),
    ("model.generator", "flow-matching", "passes"): (3, "sample"),
    ("model.generator", "flow-matching", "tolerance"): (0.001, "terms"),
    ("model.generator", "flow-matching", "method"): ("euler", "sample"),
    ("model.generator", "flow-matching", "times"): ("logit-normal", "loss"),
    # ---- model.gradient
    ("model.gradient", "reinforce", "baseline"): ("none", "shape:running-gradient"),
    ("model.gradient", "reinforce", "decay"): (0.495, "loss"),
    ("model.gradient", "rloo", "k"): (5, "loss"),
    # ---- model.condition
    ("model.condition", "label", "on"): ("factors", "shape:decoder shape:encoder"),
    ("model.condition", "label", "encoder"): (False, "shape:encoder"),
    ("model.condition", "label", "decoder"): (False, "shape:decoder"),
}

# Fields that are read at several places: (component option, component, values of its others, field, value, changes).
VARIANTS: list[tuple[str, str, dict[str, Any], str, Any, str]] = [
    ("model", "multimodal", {"samples": 2, "bound": "iwae"}, "label_weight", 5.0, "loss"),
    ("model", "multimodal", {"samples": 2, "bound": "iwae"}, "beta", 0.5, "loss"),
    ("model", "multimodal", {"samples": 2, "fusion": "moe"}, "label_weight", 5.0, "loss"),
    ("model", "multimodal", {"samples": 2, "fusion": "moe"}, "beta", 0.5, "loss"),
    ("model", "ae", {"corruption": "mask"}, "corruption_level", 0.5, "loss"),
    ("model.likelihood", "laplace", {"learned": False}, "init_scale", 0.1, "loss terms"),
    ("model.likelihood", "student-t", {"learned": False}, "init_scale", 0.1, "loss terms"),
    ("model.likelihood", "log-cosh", {"learned": False}, "init_scale", 0.1, "loss terms"),
    ("model.objective", "free-bits", {"unit": "dimension"}, "free_nats", 0.125, "loss"),
    ("model.objective", "free-bits", {"unit": "all"}, "free_nats", 0.125, "loss"),
    ("model.objective", "mmd", {"kernel": "rbf"}, "bandwidths", (1.0, 3.0), "loss"),
    ("model.objective", "wae-mmd", {"kernel": "rbf"}, "bandwidths", (1.0, 3.0), "loss"),
    ("model.objective", "beta-tc", {"estimator": "mws"}, "alpha", 0.5, "loss"),
    ("model.posterior", "categorical", {"relaxation": "straight-through"}, "temperature", 0.5, "loss"),
    ("model.posterior", "bernoulli", {"relaxation": "straight-through"}, "temperature", 0.5, "loss"),
    ("model.prior", "flow", {"family": "maf"}, "hidden", (17,), "shape:prior"),
    ("model.prior", "flow", {"family": "maf"}, "layers", 7, "shape:prior"),
    ("model.quantizer", "vq", {"update": "gradient", "revive": 0.1}, "decay", 0.5, "loss"),
    ("model.network", "conv64", {"upsample": "nearest"}, "up_kernel", 7, "shape:decoder"),
    ("model.network", "mlp", {"skip": True}, "activation", "tanh", "loss sample terms"),
    ("model.network", "mlp", {"decoder_hidden": (5,)}, "hidden", (7, 7), "shape:encoder"),
]

# Fields that no value changes anything of -> the test that says what they do instead.
EXCEPTIONS: dict[tuple[str, str, str], str] = {
    # Images have no columns of counts.
    ("model.likelihood", "table", "counts_as"): "test_table_likelihood.test_every_column_is_scipys",
    ("model.network", "broadcast", "up_kernel"): "test_options_components.test_what_broadcast_does_not_use_is_refused",
    ("model.network", "broadcast", "upsample"): "test_options_components.test_what_broadcast_does_not_use_is_refused",
    # Their levels add up in the space of the vectors.
    ("model.quantizer", "residual-vq", "inner"): "test_quantizers.test_what_cannot_be_quantized_is_refused",
    ("model.quantizer", "grouped-vq", "inner"): "test_quantizers.test_what_cannot_be_quantized_is_refused",
    # Up to 64 dimensions the divergence is exact, and these latents have fewer.
    ("model.generator", "diffusion", "probes"): "test_stage2_diffusion.test_hutchinson_is_right_on_average",
    ("model.generator", "flow-matching", "probes"): "test_stage2_diffusion.test_hutchinson_is_right_on_average",
    # Refused for data without missing values, which these are.
    ("model", "vae", "mask_input"): "test_missing.test_the_encoder_sees_the_mask_where_it_may",
    ("model", "ae", "mask_input"): "test_missing.test_the_encoder_sees_the_mask_where_it_may",
}
# What is compared for a component; all programs where nothing is said. An objective is no part of what is sampled.
PROGRAMS = {
    "model.objective": ("loss", "terms"),
    "model.objective.schedule": ("loss", "terms"),
    "model.gradient": ("loss", "terms"),
}


def fields() -> list[tuple[str, str, str]]:
    """Returns (component option, component, field) for every field that is no component itself."""
    found = [
        (option, name, f.name)
        for option, registry in REGISTRIES.items()
        for name, cls in registry.items()
        for f in dataclasses.fields(cls)
        if f"{option}.{f.name}" not in REGISTRIES and f.name not in ("condition", "first")
    ]
    return found + [("model.condition", "label", f.name) for f in dataclasses.fields(Condition)]


def base(option: str, name: str, needs: dict[str, Any] | None = None) -> Any:
    """Returns a small model config with this component, at its default values but for widths and `needs`."""
    needs = NEEDS.get((option, name), {}) if needs is None else needs
    if option == "model":
        return support.small(MODELS[name], D, SMALL, **needs)
    if option == "model.condition":
        return VAE(D, SMALL, condition=Condition("label"))
    component = dataclasses.replace(support.shrink(REGISTRIES[option][name]()), **needs)
    if option == "model.network":
        return support.around(D, component)
    if option == "model.quantizer":
        return VQVAE(4, support.GRID, quantizer=component)
    if option == "model.generator":
        return support.second(component, condition=PriorCondition("label"))
    if option == "model.objective.schedule":
        return VAE(D, SMALL, objective=OBJECTIVES["beta"](component))
    return support.fitting(D, SMALL, **{option.rpartition(".")[2]: component})


def path(option: str, field: str) -> str:
    """Returns the dotted option inside of the model."""
    return f"{option}.{field}".removeprefix("model.")


class Built:
    """A model with what can be observed of it, each made when it is first needed."""

    def __init__(self, config: Any, option: str, name: str):
        self.config, shape = config, (*SHAPE[:2], CHANNELS.get((option, name), 1))
        self.names = PROGRAMS.get(option, ("start", "loss", "terms", "sample"))
        self.model = config.build(support.spec(shape))
        self.batch, self.key = support.images(B, shape), jax.random.key(0)
        self.params, self.state = jax.eval_shape(self.model.init, self.key, self.batch)

    @functools.cached_property
    def shapes(self) -> dict[str, str]:
        """Part of the model -> shapes of its parameters, or of its running state."""
        found = {
            ("critic" if group == "critic" else part): str(jax.tree.map(lambda x: x.shape, value))
            for group, tree in self.params.items()
            for part, value in ({group: tree} if group == "critic" else tree).items()
        }
        return found | {f"running-{n}": str(jax.tree.map(lambda x: x.shape, v)) for n, v in self.state.items()}

    @functools.cached_property
    def programs(self) -> dict[str, str]:
        """Name -> program. Scalars that are inputs in training are constants here, so that what reads them shows."""
        model, step = self.model, jnp.int32(3)
        hyper = {name: jnp.float32(value) for name, value in model.training.hyper.items()}
        index = jnp.arange(B, dtype=jnp.int32)
        scores = getattr(getattr(self.config, "gradient", None), "score", False)

        def loss(params, state, key, batch, step):
            value, aux = model.loss(params, state, key, batch, Context(step, index, hyper, True))
            return value, aux.state

        def terms(params, state, key, batch, step):
            return model.terms(params, state, key, batch, Context(step, index, hyper, False))

        args = (self.params, self.state, self.key, self.batch, step)
        made = {
            "start": (model.init, self.key, self.batch),
            # Estimators of the score function differ in the gradient, not in the value.
            "loss": (jax.value_and_grad(loss, has_aux=True) if scores else loss, *args),
            "terms": (terms, *args),
        }
        if model.prior is not None:
            made["sample"] = (lambda p, s, k: model.sample(p, s, k, 2).mean(), self.params, self.state, self.key)
        made = {name: call for name, call in made.items() if name in self.names}
        made |= {f"gate-{name}": (gate, step) for name, gate in model.training.gates.items()}
        return {name: jax.jit(function).lower(*call).as_text() for name, (function, *call) in made.items()}


@functools.cache
def built(option: str, name: str) -> Built:
    """Returns the model with a component at its defaults."""
    return Built(base(option, name), option, name)


def changes(option: str, name: str, field: str, value: Any, needs: dict[str, Any] | None = None) -> str:
    """Returns all that changes when a field gets this value, in words as `FIELDS` has them."""
    old = built(option, name) if needs is None else Built(base(option, name, needs), option, name)
    config = configs.put(old.config, path(option, field), value)
    config.check()
    new = Built(config, option, name)
    parts = dict.fromkeys([*old.shapes, *new.shapes])
    moved = [f"shape:{part}" for part in parts if old.shapes.get(part) != new.shapes.get(part)]
    if not moved:
        moved = [part for part, text in old.programs.items() if text != new.programs.get(part)]
    return " ".join(sorted(moved))
