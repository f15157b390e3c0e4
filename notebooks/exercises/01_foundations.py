# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Exercises for chapter 1: foundations
#
# Six parts, 12 points. Fill in the functions; each says what goes in and what comes out. The cell below a function
# tells you whether it is right, and if not, how its result differs. Use NumPy, or PyTorch where you like it better.
#
# [Open these exercises in Colab](https://colab.research.google.com/github/example-org/deep-generative-modelling/blob/main/notebooks/exercises/01_foundations.ipynb)

# %%
try:
    import google.colab  # noqa: F401

    # %pip install --quiet "course_lib @ git+https://github.com/example-org/deep-generative-modelling"
except ImportError:
    pass  # not on Colab: the library is installed already

# %% tags=["setup"]
import numpy as np

from course_lib.grading.checks import Checks

check = Checks("01_foundations")


# %% [markdown]
# The next cell is yours: more imports, and functions that you use in several parts.

# %% exercise={"id": "helpers"}
# your imports and helpers

# %% [markdown]
# ## 1.1 From nats to bits per dimension (1 point)
#
# A model reports negative log-likelihoods in nats, one for each example of $D$ dimensions. Papers report their mean in **bits per
# dimension**.
#
# **In**: `nll` of shape (B,), in nats; `D`, the number of dimensions. **Out**: one number, in bits per dimension.

# %% exercise={"id": "1.1", "title": "From nats to bits per dimension", "points": 1, "forbid": ["bits_per_dim"]}
def bits_per_dim(nll, D):
    """The mean negative log-likelihood, in bits per dimension."""
    raise NotImplementedError("1.1 From nats to bits per dimension")


# %% grade={"part": "1.1"}
@check("1.1")
def values(seed):
    rng = np.random.default_rng(seed)
    nll = rng.gamma(20.0, 10.0, size=9)
    return {"bits": bits_per_dim(nll, 64)}


# %% [markdown]
# ## 1.2 Grey values on another scale (2 points)
#
# Pixels have `levels` grey values, 0, 1, 2, ... To train a model of densities, uniform noise is added to each value, and the sum is
# divided by `levels`, so that the data lies between 0 and 1. The model reports the negative log-density of this *scaled* data. What
# does that make on the scale of grey values, where one level has width one? By the change of variables, each dimension contributes the
# logarithm of the factor by which it was shrunk.
#
# **In**: `nll` of shape (B,), in nats, of data between 0 and 1; `D`; `levels`. **Out**: mean negative log-density on the scale of grey
# values, in bits per dimension.

# %% exercise={"id": "1.2", "title": "Grey values on another scale", "points": 2}
def bits_per_dim_of_levels(nll, D, levels):
    """Bits per dimension on the scale of grey values, from the density of data scaled to [0, 1]."""
    raise NotImplementedError("1.2 Grey values on another scale")


# %% grade={"part": "1.2"}
@check("1.2")
def values(seed):
    rng = np.random.default_rng(seed)
    nll = rng.normal(-90.0, 20.0, size=9)
    return {"bits": bits_per_dim_of_levels(nll, 48, 32)}


# %% [markdown]
# ## 1.3 Kullback-Leibler divergence on a grid (2 points)
#
# In one dimension, any integral can be done on a fine grid: $\int f(x) \, dx \approx \sum_i f(x_i) \, \Delta$. Compute
# $D_{\mathrm{KL}}(p \,\|\, q) = \int p(x) \log \frac{p(x)}{q(x)} \, dx$. With $p$ the data and $q$ the model this is the *forward*
# divergence; with the two swapped, the *reverse* one.
#
# **In**: `log_p`, `log_q`, log-densities at the grid points, shape (G,), in nats; `delta`, the grid's spacing. **Out**: one number, in nats.

# %% exercise={"id": "1.3", "title": "Kullback-Leibler divergence on a grid", "points": 2, "forbid": ["kl_div", "rel_entr", "kl_divergence"]}
def kl_on_grid(log_p, log_q, delta):
    """KL(p || q) by a sum over a grid."""
    raise NotImplementedError("1.3 Kullback-Leibler divergence on a grid")


# %% grade={"part": "1.3"}
@check("1.3")
def values(seed):
    rng = np.random.default_rng(seed)
    x = np.linspace(-12, 12, 801)
    m, s = rng.normal(size=2), 0.7 + rng.random(2)
    log_p, log_q = (
        -0.5 * ((x - a) / b) ** 2 - np.log(b * np.sqrt(2 * np.pi))
        for a, b in zip(m, s, strict=True)
    )
    delta = x[1] - x[0]
    return {
        "forward": kl_on_grid(log_p, log_q, delta),
        "reverse": kl_on_grid(log_q, log_p, delta),
    }


# %% [markdown]
# ## 1.4 Jensen-Shannon divergence on a grid (2 points)
#
# The Jensen-Shannon divergence compares both densities with their mixture $m = \tfrac12 (p + q)$:
# $\mathrm{JSD} = \tfrac12 D_{\mathrm{KL}}(p \,\|\, m) + \tfrac12 D_{\mathrm{KL}}(q \,\|\, m)$. It is symmetric, and never more than
# $\log 2$.
#
# **In**: `log_p`, `log_q`, log-densities at the grid points, shape (G,), in nats; `delta`, the grid's spacing. **Out**: one number, in nats.

# %% exercise={"id": "1.4", "title": "Jensen-Shannon divergence on a grid", "points": 2, "forbid": ["jensenshannon"]}
def jsd_on_grid(log_p, log_q, delta):
    """The Jensen-Shannon divergence by a sum over a grid."""
    raise NotImplementedError("1.4 Jensen-Shannon divergence on a grid")


# %% grade={"part": "1.4"}
@check("1.4")
def values(seed):
    rng = np.random.default_rng(seed)
    x = np.linspace(-12, 12, 801)
    m, s = 1.5 * rng.normal(size=2), 0.7 + rng.random(2)
    log_p, log_q = (
        -0.5 * ((x - a) / b) ** 2 - np.log(b * np.sqrt(2 * np.pi))
        for a, b in zip(m, s, strict=True)
    )
    return {"jsd": jsd_on_grid(log_p, log_q, x[1] - x[0])}


# %% [markdown]
# ## 1.5 Change of variables (3 points)
#
# Let $x$ be standard normal in $D$ dimensions, and $y = A x + b$ with an invertible matrix $A$. Compute $\log p(y)$ by the change of
# variables: go back to $x$, take its log-density, and correct for the volume. The determinant of $A$ may be negative.
#
# **In**: `y` of shape (B, D); `A` of shape (D, D); `b` of shape (D,). **Out**: log-densities, shape (B,), in nats.

# %% exercise={"id": "1.5", "title": "Change of variables", "points": 3, "forbid": ["multivariate_normal", "MultivariateNormal"]}
def log_density_after_map(y, A, b):
    """log p(y) for y = A x + b with standard normal x."""
    raise NotImplementedError("1.5 Change of variables")


# %% grade={"part": "1.5"}
@check("1.5")
def values(seed):
    rng = np.random.default_rng(seed)
    A, b = rng.normal(size=(3, 3)), rng.normal(size=3)
    A *= 1.5 / abs(np.linalg.det(A)) ** (1 / 3)
    if seed % 2 == 0:
        A[0] *= -1
    y = rng.normal(size=(5, 3)) @ A.T + b
    return {"log_p": log_density_after_map(y, A, b)}


# %% [markdown]
# ## 1.6 A density from the data alone (2 points)
#
# A **kernel density estimate** puts a normal of width $h$ on each of $N$ data points and averages:
# $p(x) = \frac1N \sum_i \mathcal N(x; x_i, h^2)$. Compute its logarithm, also far away from the data, where every term is too small for
# a floating-point number.
#
# **In**: `x` of shape (M,), where the density is wanted; `data` of shape (N,); `h`. **Out**: log-densities, shape (M,), in nats.

# %% exercise={"id": "1.6", "title": "A density from the data alone", "points": 2, "forbid": ["KernelDensity", "gaussian_kde"]}
def log_kde(x, data, h):
    """Log-density of a mixture of normals of width h, one on each data point."""
    raise NotImplementedError("1.6 A density from the data alone")


# %% grade={"part": "1.6"}
@check("1.6")
def values(seed):
    rng = np.random.default_rng(seed)
    data = rng.normal(size=12)
    near, far = rng.normal(size=5), 60 + rng.random(3)
    return {"near": log_kde(near, data, 0.4), "far": log_kde(far, data, 0.4)}
