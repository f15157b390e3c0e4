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
# # Exercises for chapter 2: autoencoders
#
# Six parts, 11 points. Fill in the functions; each says what goes in and what comes out. The cell below a function tells you
# whether it is right, and if not, how its result differs. Use NumPy, or PyTorch where you like it better. The
# [chapter](../02_autoencoders.ipynb) has everything you need.
#
# [Open these exercises in Colab](https://colab.research.google.com/github/example-org/deep-generative-modelling/blob/main/notebooks/exercises/02_autoencoders.ipynb)

# %%
try:
    import google.colab  # noqa: F401

    # %pip install --quiet "course_lib @ git+https://github.com/example-org/deep-generative-modelling"
except ImportError:
    pass  # not on Colab: the library is installed already

# %% tags=["setup"]
import numpy as np

from course_lib.grading.checks import Checks

check = Checks("02_autoencoders")


# %% [markdown]
# The next cell is yours: more imports, and functions that you use in several parts.

# %% exercise={"id": "helpers"}
# your imports and helpers

# %% [markdown]
# ## 2.1 The loss (1 point)
#
# Write the loss (2.1) of the chapter for a batch: the squared distance between an example and its reconstruction, summed
# over the dimensions, and averaged over the batch.
#
# **In**: `x`, `x_hat`, both of shape (B, D). **Out**: one number.

# %% exercise={"id": "2.1", "title": "The loss", "points": 1}
def reconstruction_loss(x, x_hat):
    """Squared error, summed over dimensions, averaged over the batch."""
    raise NotImplementedError("2.1 The loss")


# %% grade={"part": "2.1"}
@check("2.1")
def values(seed):
    rng = np.random.default_rng(seed)
    x, x_hat = rng.normal(size=(2, 7, 5))
    return {"loss": reconstruction_loss(x, x_hat)}


# %% [markdown]
# ## 2.2 The best linear loss (2 points)
#
# Data with mean zero has a covariance matrix $C$. What is the smallest loss that any linear autoencoder with a code of $K$
# numbers can reach on it? See (2.4).
#
# **In**: `covariance` of shape (D, D), symmetric; `K`, a whole number from 1 to D - 1. **Out**: one number, in the units of the
# loss.

# %% exercise={"id": "2.2", "title": "The best linear loss", "points": 2}
def best_linear_loss(covariance, K):
    """The smallest loss of a linear autoencoder with K numbers in its code."""
    raise NotImplementedError("2.2 The best linear loss")


# %% grade={"part": "2.2"}
@check("2.2")
def values(seed):
    rng = np.random.default_rng(seed)
    D, K = 8, 3
    factor = rng.normal(size=(D, D))
    return {"loss": best_linear_loss(factor @ factor.T, K)}


# %% [markdown]
# ## 2.3 Rebuild with PCA (2 points)
#
# Fit PCA with $K$ components to training data, and rebuild test data with it: project each point onto the $K$-dimensional
# surface that fits the training data best. The data does not have mean zero.
#
# **In**: `x_train` of shape (N, D); `x_test` of shape (M, D); `K`. **Out**: reconstructions of the test data, shape (M, D).
#
# Use an eigendecomposition or a singular value decomposition, not a ready-made PCA.

# %% exercise={"id": "2.3", "title": "Rebuild with PCA", "points": 2, "forbid": ["PCA", "TruncatedSVD"]}
def pca_reconstruct(x_train, x_test, K):
    """Project test data onto the K principal directions of the training data."""
    raise NotImplementedError("2.3 Rebuild with PCA")


# %% grade={"part": "2.3", "atol": 1e-05}
@check("2.3")
def values(seed):
    rng = np.random.default_rng(seed)
    mixing, mean = rng.normal(size=(6, 6)), 3 * rng.normal(size=6)
    x_train = rng.normal(size=(50, 6)) @ mixing + mean
    x_test = rng.normal(size=(4, 6)) @ mixing + mean + 1
    return {"x_hat": pca_reconstruct(x_train, x_test, 2)}


# %% [markdown]
# ## 2.4 The angle between two subspaces (2 points)
#
# Has the linear autoencoder found PCA's subspace? The answer is the largest principal angle. Let $Q_A$ and $Q_B$ be orthonormal
# bases of the two subspaces. The singular values of $Q_A^\top Q_B$ are the cosines of the principal angles.
#
# **In**: `A`, `B`, both of shape (D, K); their columns span the subspaces, but are neither orthogonal nor of length one.
# **Out**: the largest principal angle, in degrees.
#
# Write it yourself: SciPy's `subspace_angles` is for checking.

# %% exercise={"id": "2.4", "title": "The angle between two subspaces", "points": 2, "forbid": ["subspace_angles"]}
def largest_angle(A, B):
    """The largest principal angle between the column spaces of A and B, in degrees."""
    raise NotImplementedError("2.4 The angle between two subspaces")


# %% grade={"part": "2.4", "rtol": 0.001}
@check("2.4")
def values(seed):
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(2, 9, 3))
    close = A @ rng.normal(size=(3, 3)) + 0.3 * rng.normal(size=(9, 3))
    return {"far": largest_angle(A, B), "near": largest_angle(A, close)}


# %% [markdown]
# ## 2.5 What the best denoiser answers (3 points)
#
# Clean data comes from a mixture of $M$ round normals: $x \sim \sum_m w_m \, \mathcal N(\mu_m, s^2 I)$. Noise is added:
# $\tilde x = x + \sigma \epsilon$. The best denoiser answers with the posterior mean $\mathbb E[x \mid \tilde x]$, (2.7). Two steps
# lead to it:
#
# 1. How likely is it that $\tilde x$ comes from component $m$? Noisy data of component $m$ is normal, too; Bayes' rule gives
#    $r_m(\tilde x)$.
# 2. Within component $m$, the posterior mean lies between $\mu_m$ and $\tilde x$, on a line, where the two variances say.
#
# **In**: `x_tilde` of shape (B, D); `means` of shape (M, D); `weights` of shape (M,), which sum to one; `s` and `sigma`,
# standard deviations. **Out**: posterior means, shape (B, D).

# %% exercise={"id": "2.5", "title": "What the best denoiser answers", "points": 3, "forbid": ["posterior_mean"]}
def denoised(x_tilde, means, weights, s, sigma):
    """E[x | x_tilde] for a mixture of round normals."""
    raise NotImplementedError("2.5 What the best denoiser answers")


# %% grade={"part": "2.5"}
@check("2.5")
def values(seed):
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(4, 2))
    weights = rng.dirichlet([2, 1, 1, 1])
    x_tilde = 1.5 * rng.normal(size=(6, 2))
    return {"x_hat": denoised(x_tilde, means, weights, 0.4, 0.7)}


# %% [markdown]
# ## 2.6 From a denoiser to the score (1 point)
#
# Solve Tweedie's formula (2.9) for the score.
#
# **In**: `x_tilde`, noisy points, shape (B, D); `denoised_x`, a denoiser's answers to them, shape (B, D); `sigma`, the standard deviation
# of the noise. **Out**: $\nabla \log p_\sigma(\tilde x)$, shape (B, D), in 1 / (units of x).

# %% exercise={"id": "2.6", "title": "From a denoiser to the score", "points": 1}
def score(x_tilde, denoised_x, sigma):
    """The score of the noisy data."""
    raise NotImplementedError("2.6 From a denoiser to the score")


# %% grade={"part": "2.6"}
@check("2.6")
def values(seed):
    rng = np.random.default_rng(seed)
    x_tilde, denoised_x = rng.normal(size=(2, 5, 3))
    return {"score": score(x_tilde, denoised_x, 0.5 + rng.random())}
