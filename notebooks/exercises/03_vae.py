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
# # Exercises for chapter 3: variational autoencoders
#
# Six parts, 13 points. Fill in the functions; each says what goes in and what comes out. The cell below a function
# tells you whether it is right, and if not, how its result differs. Use NumPy, or PyTorch where you like it better. Logarithms
# are natural, and variances are given as $\log \sigma^2$.
#
# [Open these exercises in Colab](https://colab.research.google.com/github/example-org/deep-generative-modelling/blob/main/notebooks/exercises/03_vae.ipynb)

# %%
try:
    import google.colab  # noqa: F401

    # %pip install --quiet "course_lib @ git+https://github.com/example-org/deep-generative-modelling"
except ImportError:
    pass  # not on Colab: the library is installed already

# %% tags=["setup"]
import numpy as np

from course_lib.grading.checks import Checks

check = Checks("03_vae")


# %% [markdown]
# The next cell is yours: more imports, and functions that you use in several parts.

# %% exercise={"id": "helpers"}
# your imports and helpers

# %% [markdown]
# ## 3.1 The divergence to the prior (2 points)
#
# The encoder gives a diagonal normal $q = \mathcal N(\mu, \operatorname{diag}(\sigma^2))$ for each example, as $\mu$ and $\log \sigma^2$.
# Compute $D_{\mathrm{KL}}(q \,\|\, \mathcal N(0, I))$ in closed form: for one dimension it is
# $\tfrac12 (\mu^2 + \sigma^2 - 1 - \log \sigma^2)$.
#
# **In**: `mu`, `logvar`, both of shape (B, K). **Out**: one divergence for each example, shape (B,), in nats.

# %% exercise={"id": "3.1", "title": "The divergence to the prior", "points": 2, "forbid": ["kl_divergence"]}
def kl_to_prior(mu, logvar):
    """KL(N(mu, exp(logvar)) || N(0, I)), summed over dimensions."""
    raise NotImplementedError("3.1 The divergence to the prior")


# %% grade={"part": "3.1"}
@check("3.1")
def values(seed):
    rng = np.random.default_rng(seed)
    mu, logvar = rng.normal(size=(2, 6, 4))
    return {"kl": kl_to_prior(mu, logvar)}


# %% [markdown]
# ## 3.2 Reparameterization (1 point)
#
# Write a sample of $q$ as a function of its parameters and of noise that does not depend on them, so that gradients can pass.
#
# **In**: `mu`, `logvar` of shape (B, K), `logvar` being $\log \sigma^2$; `eps`, standard normal noise of shape (B, K). **Out**: samples, shape (B, K).

# %% exercise={"id": "3.2", "title": "Reparameterization", "points": 1}
def reparameterized(mu, logvar, eps):
    """A sample of N(mu, exp(logvar)) made of standard normal noise."""
    raise NotImplementedError("3.2 Reparameterization")


# %% grade={"part": "3.2"}
@check("3.2")
def values(seed):
    rng = np.random.default_rng(seed)
    mu, logvar, eps = rng.normal(size=(3, 5, 4))
    return {"z": reparameterized(mu, logvar, eps)}


# %% [markdown]
# ## 3.3 The decoder's log-likelihood (2 points)
#
# A decoder with a normal output says $p(x \mid z) = \mathcal N(x; \hat x, \sigma^2 I)$. Compute $\log p(x \mid z)$ with all its constants:
# without them $\sigma$ could not be learned, and likelihoods could not be compared.
#
# **In**: `x`, `x_hat` of shape (B, D); `sigma`, one number. **Out**: shape (B,), in nats.

# %% exercise={"id": "3.3", "title": "The decoder's log-likelihood", "points": 2}
def gaussian_log_likelihood(x, x_hat, sigma):
    """log N(x; x_hat, sigma^2 I), summed over dimensions."""
    raise NotImplementedError("3.3 The decoder's log-likelihood")


# %% grade={"part": "3.3"}
@check("3.3")
def values(seed):
    rng = np.random.default_rng(seed)
    x, x_hat = rng.normal(size=(2, 5, 6))
    return {"log_p": gaussian_log_likelihood(x, x_hat, 0.4 + rng.random())}


# %% [markdown]
# ## 3.4 The ELBO, with sums (2 points)
#
# Put the two terms together. Each example has a log-likelihood for each of its $D$ dimensions and a divergence for each of its $K$ latent
# dimensions. The ELBO of a batch is the mean over its examples of the ELBO of each.
#
# **In**: `log_px` of shape (B, D), log-likelihoods in nats; `kl` of shape (B, K), divergences in nats. **Out**: one number, in nats; the higher, the
# better.

# %% exercise={"id": "3.4", "title": "The ELBO, with sums", "points": 2}
def elbo(log_px, kl):
    """Mean over the batch of the evidence lower bound: sums over dimensions."""
    raise NotImplementedError("3.4 The ELBO, with sums")


# %% grade={"part": "3.4"}
@check("3.4")
def values(seed):
    rng = np.random.default_rng(seed)
    log_px, kl = -2 * rng.random((7, 12)) - 0.5, rng.gamma(2.0, 1.0, size=(7, 3))
    return {"elbo": elbo(log_px, kl)}


# %% [markdown]
# ## 3.5 The exact likelihood of a linear model (3 points)
#
# When the decoder is linear, nothing is intractable. With $z \sim \mathcal N(0, I)$ and $x \mid z \sim \mathcal N(W z + b, \sigma^2 I)$, the data
# is normal, too: $x \sim \mathcal N(b, \, W W^\top + \sigma^2 I)$. This is probabilistic PCA, and the oracle of the chapter. Compute $\log p(x)$.
#
# **In**: `x` of shape (B, D); `W` of shape (D, K); `b` of shape (D,); `sigma`, one number. **Out**: shape (B,), in nats.

# %% exercise={"id": "3.5", "title": "The exact likelihood of a linear model", "points": 3, "forbid": ["multivariate_normal", "MultivariateNormal", "LowRankMultivariateNormal"]}
def log_marginal(x, W, b, sigma):
    """log p(x) of a linear-Gaussian latent variable model."""
    raise NotImplementedError("3.5 The exact likelihood of a linear model")


# %% grade={"part": "3.5"}
@check("3.5")
def values(seed):
    rng = np.random.default_rng(seed)
    W, b, sigma = rng.normal(size=(5, 2)), rng.normal(size=5), 0.3 + rng.random() / 3
    x = rng.normal(size=(6, 2)) @ W.T + b + sigma * rng.normal(size=(6, 5))
    return {"log_p": log_marginal(x, W, b, sigma)}


# %% [markdown]
# ## 3.6 The importance-weighted bound (3 points)
#
# With $k$ samples $z_i \sim q$ and weights $w_i = p(x, z_i) / q(z_i)$, the bound $\log \frac1k \sum_i w_i$ rises with $k$ from the ELBO ($k = 1$)
# towards $\log p(x)$. On images $\log w_i$ is in the hundreds below zero; compute the bound so that it stays finite.
#
# **In**: `log_w` of shape (B, k), in nats. **Out**: one bound for each example, shape (B,), in nats.

# %% exercise={"id": "3.6", "title": "The importance-weighted bound", "points": 3}
def iwae_bound(log_w):
    """The logarithm of the mean weight, for each example."""
    raise NotImplementedError("3.6 The importance-weighted bound")


# %% grade={"part": "3.6"}
@check("3.6")
def values(seed):
    rng = np.random.default_rng(seed)
    log_w = (
        2 * rng.normal(size=(6, 5))
        + np.array([0.0, -5.0, 3.0, -900.0, -1200.0, -2000.0])[:, None]
    )
    return {"bound": iwae_bound(log_w)}
