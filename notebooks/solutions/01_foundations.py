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

# %% [markdown] tags=["solution-only"]
# # Solutions to chapter 1: foundations
#
# Try the [exercises](../exercises/01_foundations.ipynb) first. Here each part shows its answer when you open it, and below it the
# wrong answers that people give most often, each with the hint that the grader gives for it.

# %% [markdown] tags=["exercise-only", "remove-cell"]
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


# %% exercise={"id": "1.1", "title": "From nats to bits per dimension", "points": 1, "forbid": ["bits_per_dim"]} tags=["hide-input"]
def bits_per_dim(nll, D):
    """The mean negative log-likelihood, in bits per dimension."""
    return nll.mean() / (D * np.log(2))


# %% grade={"part": "1.1"}
@check("1.1")
def values(seed):
    rng = np.random.default_rng(seed)
    nll = rng.gamma(20.0, 10.0, size=9)
    return {"bits": bits_per_dim(nll, 64)}


# %% misconception="1.1" tags=["hide-input"]
# These are nats per dimension. A bit is smaller than a nat.
def bits_per_dim(nll, D):
    return nll.mean() / D


# %% misconception="1.1" tags=["hide-input"]
# These are bits for a whole example. Divide by its number of dimensions.
def bits_per_dim(nll, D):
    return nll.mean() / np.log(2)


# %% misconception="1.1" tags=["hide-input"]
# You multiply by log 2 where you should divide: one bit is log 2 = 0.69 nats, so
# there are more bits than nats.
def bits_per_dim(nll, D):
    return nll.mean() * np.log(2) / D


# %% misconception="1.1" tags=["hide-input"]
# You took the logarithm of a quantity that is a logarithm already. Changing its base
# is a division.
def bits_per_dim(nll, D):
    return np.log2(nll).mean() / D


# %% misconception="1.1" tags=["hide-input"]
# You add up the examples. Bits per dimension is a mean over them.
def bits_per_dim(nll, D):
    return nll.sum() / (D * np.log(2))


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


# %% exercise={"id": "1.2", "title": "Grey values on another scale", "points": 2} tags=["hide-input"]
def bits_per_dim_of_levels(nll, D, levels):
    """Bits per dimension on the scale of grey values, from the density of data scaled to [0, 1]."""
    return nll.mean() / (D * np.log(2)) + np.log2(levels)


# %% grade={"part": "1.2"}
@check("1.2")
def values(seed):
    rng = np.random.default_rng(seed)
    nll = rng.normal(-90.0, 20.0, size=9)
    return {"bits": bits_per_dim_of_levels(nll, 48, 32)}


# %% misconception="1.2" tags=["hide-input"]
# You left out the change of scale. A density on a smaller interval is higher, and its
# negative logarithm lower.
def bits_per_dim_of_levels(nll, D, levels):
    return nll.mean() / (D * np.log(2))


# %% misconception="1.2" tags=["hide-input"]
# The correction has the wrong sign: on the wider scale the density is lower, and more
# bits are needed.
def bits_per_dim_of_levels(nll, D, levels):
    return nll.mean() / (D * np.log(2)) - np.log2(levels)


# %% misconception="1.2" tags=["hide-input"]
# You corrected once for a whole example. Every dimension was shrunk.
def bits_per_dim_of_levels(nll, D, levels):
    return (nll.mean() / np.log(2) + np.log2(levels)) / D


# %% misconception="1.2" tags=["hide-input"]
# Your correction is in nats, and the rest in bits.
def bits_per_dim_of_levels(nll, D, levels):
    return nll.mean() / (D * np.log(2)) + np.log(levels)


# %% [markdown]
# ## 1.3 Kullback-Leibler divergence on a grid (2 points)
#
# In one dimension, any integral can be done on a fine grid: $\int f(x) \, dx \approx \sum_i f(x_i) \, \Delta$. Compute
# $D_{\mathrm{KL}}(p \,\|\, q) = \int p(x) \log \frac{p(x)}{q(x)} \, dx$. With $p$ the data and $q$ the model this is the *forward*
# divergence; with the two swapped, the *reverse* one.
#
# **In**: `log_p`, `log_q`, log-densities at the grid points, shape (G,), in nats; `delta`, the grid's spacing. **Out**: one number, in nats.


# %% exercise={"id": "1.3", "title": "Kullback-Leibler divergence on a grid", "points": 2, "forbid": ["kl_div", "rel_entr", "kl_divergence"]} tags=["hide-input"]
def kl_on_grid(log_p, log_q, delta):
    """KL(p || q) by a sum over a grid."""
    return (np.exp(log_p) * (log_p - log_q)).sum() * delta


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


# %% misconception="1.3" tags=["hide-input"]
# That is the divergence the other way round: the mean of log p/q is taken under p.
def kl_on_grid(log_p, log_q, delta):
    return (np.exp(log_q) * (log_q - log_p)).sum() * delta


# %% misconception="1.3" tags=["hide-input"]
# A sum over a grid becomes an integral when each term is multiplied by the width of a
# cell.
def kl_on_grid(log_p, log_q, delta):
    return (np.exp(log_p) * (log_p - log_q)).sum()


# %% misconception="1.3" tags=["hide-input"]
# Your divergence is negative: the ratio in the logarithm is upside down.
def kl_on_grid(log_p, log_q, delta):
    return (np.exp(log_p) * (log_q - log_p)).sum() * delta


# %% misconception="1.3" tags=["hide-input"]
# You integrate the plain difference of log-densities. It is a mean under p: each
# point counts with its density.
def kl_on_grid(log_p, log_q, delta):
    return (log_p - log_q).sum() * delta


# %% misconception="1.3" tags=["hide-input"]
# You weigh with the logarithm of the density. A mean under p weighs with p itself.
def kl_on_grid(log_p, log_q, delta):
    return (log_p * (log_p - log_q)).sum() * delta


# %% [markdown]
# ## 1.4 Jensen-Shannon divergence on a grid (2 points)
#
# The Jensen-Shannon divergence compares both densities with their mixture $m = \tfrac12 (p + q)$:
# $\mathrm{JSD} = \tfrac12 D_{\mathrm{KL}}(p \,\|\, m) + \tfrac12 D_{\mathrm{KL}}(q \,\|\, m)$. It is symmetric, and never more than
# $\log 2$.
#
# **In**: `log_p`, `log_q`, log-densities at the grid points, shape (G,), in nats; `delta`, the grid's spacing. **Out**: one number, in nats.


# %% exercise={"id": "1.4", "title": "Jensen-Shannon divergence on a grid", "points": 2, "forbid": ["jensenshannon"]} tags=["hide-input"]
def jsd_on_grid(log_p, log_q, delta):
    """The Jensen-Shannon divergence by a sum over a grid."""
    p, q = np.exp(log_p), np.exp(log_q)
    log_m = np.logaddexp(log_p, log_q) - np.log(2)
    return 0.5 * (p * (log_p - log_m) + q * (log_q - log_m)).sum() * delta


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


# %% misconception="1.4" tags=["hide-input"]
# You averaged the log-densities. The mixture is the mean of the densities.
def jsd_on_grid(log_p, log_q, delta):
    p, q, log_m = np.exp(log_p), np.exp(log_q), (log_p + log_q) / 2
    return 0.5 * (p * (log_p - log_m) + q * (log_q - log_m)).sum() * delta


# %% misconception="1.4" tags=["hide-input"]
# You add the two divergences. Each counts one half; with your factor the bound would
# be 2 log 2.
def jsd_on_grid(log_p, log_q, delta):
    p, q = np.exp(log_p), np.exp(log_q)
    log_m = np.log((p + q) / 2)
    return (p * (log_p - log_m) + q * (log_q - log_m)).sum() * delta


# %% misconception="1.4" tags=["hide-input"]
# The mixture is half the sum: without the half, m is no density.
def jsd_on_grid(log_p, log_q, delta):
    p, q = np.exp(log_p), np.exp(log_q)
    log_m = np.log(p + q)
    return 0.5 * (p * (log_p - log_m) + q * (log_q - log_m)).sum() * delta


# %% misconception="1.4" tags=["hide-input"]
# You take the means under the mixture. They are taken under p and under q.
def jsd_on_grid(log_p, log_q, delta):
    m = (np.exp(log_p) + np.exp(log_q)) / 2
    log_m = np.log(m)
    return 0.5 * (m * (log_m - log_p) + m * (log_m - log_q)).sum() * delta


# %% misconception="1.4" tags=["hide-input"]
# That is the mean of the forward and the reverse divergence between p and q. Where is
# the mixture?
def jsd_on_grid(log_p, log_q, delta):
    p, q = np.exp(log_p), np.exp(log_q)
    return 0.5 * (p * (log_p - log_q) + q * (log_q - log_p)).sum() * delta


# %% [markdown]
# ## 1.5 Change of variables (3 points)
#
# Let $x$ be standard normal in $D$ dimensions, and $y = A x + b$ with an invertible matrix $A$. Compute $\log p(y)$ by the change of
# variables: go back to $x$, take its log-density, and correct for the volume. The determinant of $A$ may be negative.
#
# **In**: `y` of shape (B, D); `A` of shape (D, D); `b` of shape (D,). **Out**: log-densities, shape (B,), in nats.


# %% exercise={"id": "1.5", "title": "Change of variables", "points": 3, "forbid": ["multivariate_normal", "MultivariateNormal"]} tags=["hide-input"]
def log_density_after_map(y, A, b):
    """log p(y) for y = A x + b with standard normal x."""
    x = np.linalg.solve(A, (y - b).T).T  # (B, D)
    log_p_x = -0.5 * (x**2).sum(axis=1) - 0.5 * len(b) * np.log(2 * np.pi)  # (B,)
    return log_p_x - np.linalg.slogdet(A).logabsdet


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


# %% misconception="1.5" tags=["hide-input"]
# The volume is not accounted for: the map stretches space by |det A|.
def log_density_after_map(y, A, b):
    x = np.linalg.solve(A, (y - b).T).T
    return -0.5 * (x**2).sum(axis=1) - 0.5 * len(b) * np.log(2 * np.pi)


# %% misconception="1.5" tags=["hide-input"]
# The correction has the wrong sign: where space is stretched, the density becomes
# lower.
def log_density_after_map(y, A, b):
    x = np.linalg.solve(A, (y - b).T).T
    log_p = -0.5 * (x**2).sum(axis=1) - 0.5 * len(b) * np.log(2 * np.pi)
    return log_p + np.log(abs(np.linalg.det(A)))


# %% misconception="1.5" tags=["hide-input"]
# The normal density lacks its constant, (2 pi)^(-D/2).
def log_density_after_map(y, A, b):
    x = np.linalg.solve(A, (y - b).T).T
    return -0.5 * (x**2).sum(axis=1) - np.log(abs(np.linalg.det(A)))


# %% misconception="1.5" tags=["hide-input"]
# You went forwards once more. From y back to x leads the inverse of the map.
def log_density_after_map(y, A, b):
    x = (y - b) @ A.T
    log_p = -0.5 * (x**2).sum(axis=1) - 0.5 * len(b) * np.log(2 * np.pi)
    return log_p - np.log(abs(np.linalg.det(A)))


# %% misconception="1.5" tags=["hide-input"]
# Rows and columns: for a row y, the map is y = x A^T + b, and its inverse is
# transposed, too.
def log_density_after_map(y, A, b):
    x = (y - b) @ np.linalg.inv(A)
    log_p = -0.5 * (x**2).sum(axis=1) - 0.5 * len(b) * np.log(2 * np.pi)
    return log_p - np.log(abs(np.linalg.det(A)))


# %% [markdown]
# ## 1.6 A density from the data alone (2 points)
#
# A **kernel density estimate** puts a normal of width $h$ on each of $N$ data points and averages:
# $p(x) = \frac1N \sum_i \mathcal N(x; x_i, h^2)$. Compute its logarithm, also far away from the data, where every term is too small for
# a floating-point number.
#
# **In**: `x` of shape (M,), where the density is wanted; `data` of shape (N,); `h`. **Out**: log-densities, shape (M,), in nats.


# %% exercise={"id": "1.6", "title": "A density from the data alone", "points": 2, "forbid": ["KernelDensity", "gaussian_kde"]} tags=["hide-input"]
def log_kde(x, data, h):
    """Log-density of a mixture of normals of width h, one on each data point."""
    logs = -0.5 * ((x[:, None] - data) / h) ** 2 - np.log(
        h * np.sqrt(2 * np.pi)
    )  # (M, N)
    largest = logs.max(axis=1)
    return largest + np.log(np.exp(logs - largest[:, None]).mean(axis=1))


# %% grade={"part": "1.6"}
@check("1.6")
def values(seed):
    rng = np.random.default_rng(seed)
    data = rng.normal(size=12)
    near, far = rng.normal(size=5), 60 + rng.random(3)
    return {"near": log_kde(near, data, 0.4), "far": log_kde(far, data, 0.4)}


# %% misconception="1.6" tags=["hide-input"]
# Far from the data your density underflows to zero. Take the largest term out of the
# sum before you exponentiate.
def log_kde(x, data, h):
    densities = np.exp(-0.5 * ((x[:, None] - data) / h) ** 2) / (h * np.sqrt(2 * np.pi))
    with np.errstate(divide="ignore"):
        return np.log(densities.mean(axis=1))


# %% misconception="1.6" tags=["hide-input"]
# You add the normals up. Their mean integrates to one, their sum to N.
def log_kde(x, data, h):
    logs = -0.5 * ((x[:, None] - data) / h) ** 2 - np.log(h * np.sqrt(2 * np.pi))
    return np.logaddexp.reduce(logs, axis=1)


# %% misconception="1.6" tags=["hide-input"]
# That is the mean of the log-densities. The logarithm of a mean is something else.
def log_kde(x, data, h):
    return (
        -0.5 * ((x[:, None] - data) / h) ** 2 - np.log(h * np.sqrt(2 * np.pi))
    ).mean(axis=1)


# %% misconception="1.6" tags=["hide-input"]
# Each normal must integrate to one: the narrower, the higher. Where is its 1/h?
def log_kde(x, data, h):
    logs = -0.5 * ((x[:, None] - data) / h) ** 2 - np.log(np.sqrt(2 * np.pi))
    return np.logaddexp.reduce(logs, axis=1) - np.log(len(data))


# %% misconception="1.6" tags=["hide-input"]
# You took h for a variance. It is a standard deviation.
def log_kde(x, data, h):
    logs = -0.5 * (x[:, None] - data) ** 2 / h - 0.5 * np.log(h * 2 * np.pi)
    return np.logaddexp.reduce(logs, axis=1) - np.log(len(data))
