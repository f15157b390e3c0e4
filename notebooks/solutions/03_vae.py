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
# # Solutions to chapter 3: variational autoencoders
#
# Try the [exercises](../exercises/03_vae.ipynb) first. Here each part shows its answer when you open it, and below it the
# wrong answers that people give most often, each with the hint that the grader gives for it.

# %% [markdown] tags=["exercise-only", "remove-cell"]
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


# %% exercise={"id": "3.1", "title": "The divergence to the prior", "points": 2, "forbid": ["kl_divergence"]} tags=["hide-input"]
def kl_to_prior(mu, logvar):
    """KL(N(mu, exp(logvar)) || N(0, I)), summed over dimensions."""
    return 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(axis=1)


# %% grade={"part": "3.1"}
@check("3.1")
def values(seed):
    rng = np.random.default_rng(seed)
    mu, logvar = rng.normal(size=(2, 6, 4))
    return {"kl": kl_to_prior(mu, logvar)}


# %% misconception="3.1" tags=["hide-input"]
# You average over the dimensions. The divergence of independent dimensions is a sum.
def kl_to_prior(mu, logvar):
    return 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).mean(axis=1)


# %% misconception="3.1" tags=["hide-input"]
# Your divergence is negative. A divergence never is.
def kl_to_prior(mu, logvar):
    return -0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(axis=1)


# %% misconception="3.1" tags=["hide-input"]
# The encoder gives the logarithm of the variance; you read it as the logarithm of the
# standard deviation.
def kl_to_prior(mu, logvar):
    return 0.5 * (mu**2 + np.exp(2 * logvar) - 1 - 2 * logvar).sum(axis=1)


# %% misconception="3.1" tags=["hide-input"]
# You left out the one half.
def kl_to_prior(mu, logvar):
    return (mu**2 + np.exp(logvar) - 1 - logvar).sum(axis=1)


# %% misconception="3.1" tags=["hide-input"]
# At mu = 0 and logvar = 0 both distributions are the same, and the divergence must be
# zero. Yours is not.
def kl_to_prior(mu, logvar):
    return 0.5 * (mu**2 + np.exp(logvar) - logvar).sum(axis=1)


# %% [markdown]
# ## 3.2 Reparameterization (1 point)
#
# Write a sample of $q$ as a function of its parameters and of noise that does not depend on them, so that gradients can pass.
#
# **In**: `mu`, `logvar` of shape (B, K), `logvar` being $\log \sigma^2$; `eps`, standard normal noise of shape (B, K). **Out**: samples, shape (B, K).


# %% exercise={"id": "3.2", "title": "Reparameterization", "points": 1} tags=["hide-input"]
def reparameterized(mu, logvar, eps):
    """A sample of N(mu, exp(logvar)) made of standard normal noise."""
    return mu + np.exp(0.5 * logvar) * eps


# %% grade={"part": "3.2"}
@check("3.2")
def values(seed):
    rng = np.random.default_rng(seed)
    mu, logvar, eps = rng.normal(size=(3, 5, 4))
    return {"z": reparameterized(mu, logvar, eps)}


# %% misconception="3.2" tags=["hide-input"]
# You multiply the noise by the variance. Its spread is the standard deviation.
def reparameterized(mu, logvar, eps):
    return mu + np.exp(logvar) * eps


# %% misconception="3.2" tags=["hide-input"]
# You multiply the noise by the logarithm of the variance. It may be negative; a
# spread may not.
def reparameterized(mu, logvar, eps):
    return mu + logvar * eps


# %% misconception="3.2" tags=["hide-input"]
# You scale the mean, too.
def reparameterized(mu, logvar, eps):
    return np.exp(0.5 * logvar) * (mu + eps)


# %% misconception="3.2" tags=["hide-input"]
# The sample ignores logvar: all codes get the same spread.
def reparameterized(mu, logvar, eps):
    return mu + eps


# %% [markdown]
# ## 3.3 The decoder's log-likelihood (2 points)
#
# A decoder with a normal output says $p(x \mid z) = \mathcal N(x; \hat x, \sigma^2 I)$. Compute $\log p(x \mid z)$ with all its constants:
# without them $\sigma$ could not be learned, and likelihoods could not be compared.
#
# **In**: `x`, `x_hat` of shape (B, D); `sigma`, one number. **Out**: shape (B,), in nats.


# %% exercise={"id": "3.3", "title": "The decoder's log-likelihood", "points": 2} tags=["hide-input"]
def gaussian_log_likelihood(x, x_hat, sigma):
    """log N(x; x_hat, sigma^2 I), summed over dimensions."""
    D = x.shape[1]
    squared_error = ((x - x_hat) ** 2).sum(axis=1)  # (B,)
    return (
        -0.5 * squared_error / sigma**2
        - D * np.log(sigma)
        - 0.5 * D * np.log(2 * np.pi)
    )


# %% grade={"part": "3.3"}
@check("3.3")
def values(seed):
    rng = np.random.default_rng(seed)
    x, x_hat = rng.normal(size=(2, 5, 6))
    return {"log_p": gaussian_log_likelihood(x, x_hat, 0.4 + rng.random())}


# %% misconception="3.3" tags=["hide-input"]
# The constants are missing: your density does not integrate to one.
def gaussian_log_likelihood(x, x_hat, sigma):
    return -0.5 * ((x - x_hat) ** 2).sum(axis=1) / sigma**2


# %% misconception="3.3" tags=["hide-input"]
# You count the constants once. Each of the D dimensions has its own.
def gaussian_log_likelihood(x, x_hat, sigma):
    squared_error = ((x - x_hat) ** 2).sum(axis=1)
    return -0.5 * squared_error / sigma**2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)


# %% misconception="3.3" tags=["hide-input"]
# You average over the dimensions. The logarithm of a product is a sum.
def gaussian_log_likelihood(x, x_hat, sigma):
    return (
        -0.5 * ((x - x_hat) / sigma) ** 2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)
    ).mean(axis=1)


# %% misconception="3.3" tags=["hide-input"]
# The squared error is divided by the variance, not by the standard deviation.
def gaussian_log_likelihood(x, x_hat, sigma):
    D = x.shape[1]
    return (
        -0.5 * ((x - x_hat) ** 2).sum(axis=1) / sigma
        - D * np.log(sigma)
        - 0.5 * D * np.log(2 * np.pi)
    )


# %% misconception="3.3" tags=["hide-input"]
# The sign of log sigma is wrong: the wider a normal, the lower its peak.
def gaussian_log_likelihood(x, x_hat, sigma):
    D = x.shape[1]
    return (
        -0.5 * ((x - x_hat) ** 2).sum(axis=1) / sigma**2
        + D * np.log(sigma)
        - 0.5 * D * np.log(2 * np.pi)
    )


# %% [markdown]
# ## 3.4 The ELBO, with sums (2 points)
#
# Put the two terms together. Each example has a log-likelihood for each of its $D$ dimensions and a divergence for each of its $K$ latent
# dimensions. The ELBO of a batch is the mean over its examples of the ELBO of each.
#
# **In**: `log_px` of shape (B, D), log-likelihoods in nats; `kl` of shape (B, K), divergences in nats. **Out**: one number, in nats; the higher, the
# better.


# %% exercise={"id": "3.4", "title": "The ELBO, with sums", "points": 2} tags=["hide-input"]
def elbo(log_px, kl):
    """Mean over the batch of the evidence lower bound: sums over dimensions."""
    return (log_px.sum(axis=1) - kl.sum(axis=1)).mean()


# %% grade={"part": "3.4"}
@check("3.4")
def values(seed):
    rng = np.random.default_rng(seed)
    log_px, kl = -2 * rng.random((7, 12)) - 0.5, rng.gamma(2.0, 1.0, size=(7, 3))
    return {"elbo": elbo(log_px, kl)}


# %% misconception="3.4" tags=["hide-input"]
# You average both terms over everything. Their numbers of dimensions differ, so this
# silently changes the weight between them by D / K.
def elbo(log_px, kl):
    return log_px.mean() - kl.mean()


# %% misconception="3.4" tags=["hide-input"]
# You average the log-likelihood over its dimensions and sum the divergence. The
# divergence now weighs D times too much: the codes will collapse.
def elbo(log_px, kl):
    return (log_px.mean(axis=1) - kl.sum(axis=1)).mean()


# %% misconception="3.4" tags=["hide-input"]
# You sum the log-likelihood and average the divergence over its dimensions. This is
# another objective, with a smaller beta.
def elbo(log_px, kl):
    return (log_px.sum(axis=1) - kl.mean(axis=1)).mean()


# %% misconception="3.4" tags=["hide-input"]
# The divergence is a price. You add it.
def elbo(log_px, kl):
    return (log_px.sum(axis=1) + kl.sum(axis=1)).mean()


# %% misconception="3.4" tags=["hide-input"]
# That is a loss, the negative of the bound.
def elbo(log_px, kl):
    return (kl.sum(axis=1) - log_px.sum(axis=1)).mean()


# %% misconception="3.4" tags=["hide-input"]
# You sum over the batch.
def elbo(log_px, kl):
    return log_px.sum() - kl.sum()


# %% [markdown]
# ## 3.5 The exact likelihood of a linear model (3 points)
#
# When the decoder is linear, nothing is intractable. With $z \sim \mathcal N(0, I)$ and $x \mid z \sim \mathcal N(W z + b, \sigma^2 I)$, the data
# is normal, too: $x \sim \mathcal N(b, \, W W^\top + \sigma^2 I)$. This is probabilistic PCA, and the oracle of the chapter. Compute $\log p(x)$.
#
# **In**: `x` of shape (B, D); `W` of shape (D, K); `b` of shape (D,); `sigma`, one number. **Out**: shape (B,), in nats.


# %% exercise={"id": "3.5", "title": "The exact likelihood of a linear model", "points": 3, "forbid": ["multivariate_normal", "MultivariateNormal", "LowRankMultivariateNormal"]} tags=["hide-input"]
def log_marginal(x, W, b, sigma):
    """log p(x) of a linear-Gaussian latent variable model."""
    D = len(b)
    covariance = W @ W.T + sigma**2 * np.eye(D)
    step = x - b  # (B, D)
    distance = (step * np.linalg.solve(covariance, step.T).T).sum(axis=1)  # (B,)
    return -0.5 * (
        distance + np.linalg.slogdet(covariance).logabsdet + D * np.log(2 * np.pi)
    )


# %% grade={"part": "3.5"}
@check("3.5")
def values(seed):
    rng = np.random.default_rng(seed)
    W, b, sigma = rng.normal(size=(5, 2)), rng.normal(size=5), 0.3 + rng.random() / 3
    x = rng.normal(size=(6, 2)) @ W.T + b + sigma * rng.normal(size=(6, 5))
    return {"log_p": log_marginal(x, W, b, sigma)}


# %% misconception="3.5" tags=["hide-input"]
# You add sigma to the diagonal. It is a standard deviation; covariances hold
# variances.
def log_marginal(x, W, b, sigma):
    covariance, step = W @ W.T + sigma * np.eye(len(b)), x - b
    distance = (step * np.linalg.solve(covariance, step.T).T).sum(axis=1)
    return -0.5 * (
        distance + np.log(np.linalg.det(covariance)) + len(b) * np.log(2 * np.pi)
    )


# %% misconception="3.5" tags=["hide-input"]
# The data has a mean: subtract b.
def log_marginal(x, W, b, sigma):
    covariance = W @ W.T + sigma**2 * np.eye(len(b))
    distance = (x * np.linalg.solve(covariance, x.T).T).sum(axis=1)
    return -0.5 * (
        distance + np.log(np.linalg.det(covariance)) + len(b) * np.log(2 * np.pi)
    )


# %% misconception="3.5" tags=["hide-input"]
# The determinant of the covariance is missing.
def log_marginal(x, W, b, sigma):
    covariance, step = W @ W.T + sigma**2 * np.eye(len(b)), x - b
    distance = (step * np.linalg.solve(covariance, step.T).T).sum(axis=1)
    return -0.5 * (distance + len(b) * np.log(2 * np.pi))


# %% misconception="3.5" tags=["hide-input"]
# The determinant counts half: the normalizer holds its square root.
def log_marginal(x, W, b, sigma):
    covariance, step = W @ W.T + sigma**2 * np.eye(len(b)), x - b
    distance = (step * np.linalg.solve(covariance, step.T).T).sum(axis=1)
    return -0.5 * (distance + len(b) * np.log(2 * np.pi)) - np.log(
        np.linalg.det(covariance)
    )


# %% misconception="3.5" tags=["hide-input"]
# That is the likelihood at the code z = 0. The marginal has integrated over all
# codes: where is W?
def log_marginal(x, W, b, sigma):
    distance = ((x - b) ** 2).sum(axis=1) / sigma**2
    return -0.5 * (distance + 2 * len(b) * np.log(sigma) + len(b) * np.log(2 * np.pi))


# %% [markdown]
# ## 3.6 The importance-weighted bound (3 points)
#
# With $k$ samples $z_i \sim q$ and weights $w_i = p(x, z_i) / q(z_i)$, the bound $\log \frac1k \sum_i w_i$ rises with $k$ from the ELBO ($k = 1$)
# towards $\log p(x)$. On images $\log w_i$ is in the hundreds below zero; compute the bound so that it stays finite.
#
# **In**: `log_w` of shape (B, k), in nats. **Out**: one bound for each example, shape (B,), in nats.


# %% exercise={"id": "3.6", "title": "The importance-weighted bound", "points": 3} tags=["hide-input"]
def iwae_bound(log_w):
    """The logarithm of the mean weight, for each example."""
    largest = log_w.max(axis=1, keepdims=True)  # (B, 1)
    return largest[:, 0] + np.log(np.exp(log_w - largest).mean(axis=1))


# %% grade={"part": "3.6"}
@check("3.6")
def values(seed):
    rng = np.random.default_rng(seed)
    log_w = (
        2 * rng.normal(size=(6, 5))
        + np.array([0.0, -5.0, 3.0, -900.0, -1200.0, -2000.0])[:, None]
    )
    return {"bound": iwae_bound(log_w)}


# %% misconception="3.6" tags=["hide-input"]
# The mean of the logarithms is the ELBO. The bound wants the logarithm of the mean.
def iwae_bound(log_w):
    return log_w.mean(axis=1)


# %% misconception="3.6" tags=["hide-input"]
# You sum the weights. Their mean is the estimate of p(x).
def iwae_bound(log_w):
    return np.logaddexp.reduce(log_w, axis=1)


# %% misconception="3.6" tags=["hide-input"]
# Your weights underflow to zero. Take the largest one out before you exponentiate.
def iwae_bound(log_w):
    with np.errstate(divide="ignore"):
        return np.log(np.exp(log_w).mean(axis=1))


# %% misconception="3.6" tags=["hide-input"]
# You divide the logarithm by k. The weights are divided, so log k is subtracted.
def iwae_bound(log_w):
    return np.logaddexp.reduce(log_w, axis=1) / log_w.shape[1]


# %% misconception="3.6" tags=["hide-input"]
# You took the largest weight alone. All count, if little.
def iwae_bound(log_w):
    return log_w.max(axis=1)


# %% misconception="3.6" tags=["hide-input"]
# You took the largest weight out of the sum, and did not put it back.
def iwae_bound(log_w):
    return np.log(np.exp(log_w - log_w.max(axis=1, keepdims=True)).mean(axis=1))
