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
# # Solutions to chapter 2: autoencoders
#
# Try the [exercises](../exercises/02_autoencoders.ipynb) first. Here each part shows its answer when you open it, and below it the
# wrong answers that people give most often, each with the hint that the grader gives for it.

# %% [markdown] tags=["exercise-only", "remove-cell"]
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


# %% exercise={"id": "2.1", "title": "The loss", "points": 1} tags=["hide-input"]
def reconstruction_loss(x, x_hat):
    """Squared error, summed over dimensions, averaged over the batch."""
    return ((x_hat - x) ** 2).sum(axis=1).mean()


# %% grade={"part": "2.1"}
@check("2.1")
def values(seed):
    rng = np.random.default_rng(seed)
    x, x_hat = rng.normal(size=(2, 7, 5))
    return {"loss": reconstruction_loss(x, x_hat)}


# %% misconception="2.1" tags=["hide-input"]
# You average over the dimensions, too. The loss of one example is a sum over its dimensions.
def reconstruction_loss(x, x_hat):
    return ((x_hat - x) ** 2).mean()


# %% misconception="2.1" tags=["hide-input"]
# You sum over the batch, too. With a batch twice as large, your loss would be twice as large.
def reconstruction_loss(x, x_hat):
    return ((x_hat - x) ** 2).sum()


# %% misconception="2.1" tags=["hide-input"]
# That is the mean distance. The loss takes the squared distance: no square root.
def reconstruction_loss(x, x_hat):
    return np.sqrt(((x_hat - x) ** 2).sum(axis=1)).mean()


# %% misconception="2.1" tags=["hide-input"]
# You take absolute differences. The chapter's loss squares them.
def reconstruction_loss(x, x_hat):
    return np.abs(x_hat - x).sum(axis=1).mean()


# %% [markdown]
# ## 2.2 The best linear loss (2 points)
#
# Data with mean zero has a covariance matrix $C$. What is the smallest loss that any linear autoencoder with a code of $K$
# numbers can reach on it? See (2.4).
#
# **In**: `covariance` of shape (D, D), symmetric; `K`, a whole number from 1 to D - 1. **Out**: one number, in the units of the
# loss.


# %% exercise={"id": "2.2", "title": "The best linear loss", "points": 2} tags=["hide-input"]
def best_linear_loss(covariance, K):
    """The smallest loss of a linear autoencoder with K numbers in its code."""
    eigenvalues = np.linalg.eigvalsh(covariance)  # (D,), smallest first
    return eigenvalues[: len(eigenvalues) - K].sum()


# %% grade={"part": "2.2"}
@check("2.2")
def values(seed):
    rng = np.random.default_rng(seed)
    D, K = 8, 3
    factor = rng.normal(size=(D, D))
    return {"loss": best_linear_loss(factor @ factor.T, K)}


# %% misconception="2.2" tags=["hide-input"]
# You add up what the code keeps. The loss is what it loses.
def best_linear_loss(covariance, K):
    return np.linalg.eigvalsh(covariance)[-K:].sum()


# %% misconception="2.2" tags=["hide-input"]
# In which order does the library return eigenvalues? You have left out the K smallest.
def best_linear_loss(covariance, K):
    return np.linalg.eigvalsh(covariance)[K:].sum()


# %% misconception="2.2" tags=["hide-input"]
# You are off by one: the code holds K numbers, and D - K directions are left over.
def best_linear_loss(covariance, K):
    eigenvalues = np.linalg.eigvalsh(covariance)
    return eigenvalues[: len(eigenvalues) - K - 1].sum()


# %% misconception="2.2" tags=["hide-input"]
# You average what is left over. The loss sums over dimensions.
def best_linear_loss(covariance, K):
    eigenvalues = np.linalg.eigvalsh(covariance)
    return eigenvalues[: len(eigenvalues) - K].mean()


# %% misconception="2.2" tags=["hide-input"]
# You add standard deviations. The eigenvalues themselves are the variances.
def best_linear_loss(covariance, K):
    eigenvalues = np.linalg.eigvalsh(covariance)
    return np.sqrt(eigenvalues[: len(eigenvalues) - K]).sum()


# %% [markdown]
# ## 2.3 Rebuild with PCA (2 points)
#
# Fit PCA with $K$ components to training data, and rebuild test data with it: project each point onto the $K$-dimensional
# surface that fits the training data best. The data does not have mean zero.
#
# **In**: `x_train` of shape (N, D); `x_test` of shape (M, D); `K`. **Out**: reconstructions of the test data, shape (M, D).
#
# Use an eigendecomposition or a singular value decomposition, not a ready-made PCA.


# %% exercise={"id": "2.3", "title": "Rebuild with PCA", "points": 2, "forbid": ["PCA", "TruncatedSVD"]} tags=["hide-input"]
def pca_reconstruct(x_train, x_test, K):
    """Project test data onto the K principal directions of the training data."""
    mean = x_train.mean(axis=0)  # (D,)
    _, _, directions = np.linalg.svd(x_train - mean, full_matrices=False)
    basis = directions[:K].T  # (D, K), orthonormal columns
    return mean + (x_test - mean) @ basis @ basis.T


# %% grade={"part": "2.3", "atol": 1e-5}
@check("2.3")
def values(seed):
    rng = np.random.default_rng(seed)
    mixing, mean = rng.normal(size=(6, 6)), 3 * rng.normal(size=6)
    x_train = rng.normal(size=(50, 6)) @ mixing + mean
    x_test = rng.normal(size=(4, 6)) @ mixing + mean + 1
    return {"x_hat": pca_reconstruct(x_train, x_test, 2)}


# %% misconception="2.3" tags=["hide-input"]
# You did not subtract the mean. PCA describes how data varies around its mean.
def pca_reconstruct(x_train, x_test, K):
    basis = np.linalg.svd(x_train, full_matrices=False)[2][:K].T
    return x_test @ basis @ basis.T


# %% misconception="2.3" tags=["hide-input"]
# You subtracted the mean before the projection; add it again afterwards.
def pca_reconstruct(x_train, x_test, K):
    mean = x_train.mean(axis=0)
    basis = np.linalg.svd(x_train - mean, full_matrices=False)[2][:K].T
    return (x_test - mean) @ basis @ basis.T


# %% misconception="2.3" tags=["hide-input"]
# You used the mean of the test data. Whatever is fitted is fitted to the training data alone.
def pca_reconstruct(x_train, x_test, K):
    basis = np.linalg.svd(x_train - x_train.mean(axis=0), full_matrices=False)[2][:K].T
    mean = x_test.mean(axis=0)
    return mean + (x_test - mean) @ basis @ basis.T


# %% misconception="2.3" tags=["hide-input"]
# You kept the directions with the smallest variance. In which order does the library return them?
def pca_reconstruct(x_train, x_test, K):
    mean = x_train.mean(axis=0)
    basis = np.linalg.svd(x_train - mean, full_matrices=False)[2][-K:].T
    return mean + (x_test - mean) @ basis @ basis.T


# %% misconception="2.3" tags=["hide-input"]
# Rows and columns: you took entries of the directions where you wanted whole directions.
def pca_reconstruct(x_train, x_test, K):
    mean = x_train.mean(axis=0)
    basis = np.linalg.svd(x_train - mean, full_matrices=False)[2][:, :K]
    return mean + (x_test - mean) @ basis @ basis.T


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


# %% exercise={"id": "2.4", "title": "The angle between two subspaces", "points": 2, "forbid": ["subspace_angles"]} tags=["hide-input"]
def largest_angle(A, B):
    """The largest principal angle between the column spaces of A and B, in degrees."""
    Q_A, Q_B = np.linalg.qr(A)[0], np.linalg.qr(B)[0]  # (D, K), orthonormal
    cosines = np.linalg.svd(Q_A.T @ Q_B, compute_uv=False)  # (K,), largest first
    return np.degrees(np.arccos(np.clip(cosines.min(), -1, 1)))


# %% grade={"part": "2.4", "rtol": 1e-3}
@check("2.4")
def values(seed):
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(2, 9, 3))
    close = A @ rng.normal(size=(3, 3)) + 0.3 * rng.normal(size=(9, 3))
    return {"far": largest_angle(A, B), "near": largest_angle(A, close)}


# %% misconception="2.4" tags=["hide-input"]
# Your angle is in radians.
def largest_angle(A, B):
    Q_A, Q_B = np.linalg.qr(A)[0], np.linalg.qr(B)[0]
    return np.arccos(np.linalg.svd(Q_A.T @ Q_B, compute_uv=False).min())


# %% misconception="2.4" tags=["hide-input"]
# That is the smallest angle. Which cosine belongs to the largest one?
def largest_angle(A, B):
    Q_A, Q_B = np.linalg.qr(A)[0], np.linalg.qr(B)[0]
    return np.degrees(np.arccos(np.linalg.svd(Q_A.T @ Q_B, compute_uv=False).max()))


# %% misconception="2.4" tags=["hide-input"]
# The formula wants orthonormal bases. Columns of length one are not yet orthogonal to each other.
def largest_angle(A, B):
    Q_A, Q_B = A / np.linalg.norm(A, axis=0), B / np.linalg.norm(B, axis=0)
    cosines = np.linalg.svd(Q_A.T @ Q_B, compute_uv=False)
    return np.degrees(np.arccos(np.clip(cosines.min(), -1, 1)))


# %% misconception="2.4" tags=["hide-input"]
# That is a cosine. The angle is its inverse cosine.
def largest_angle(A, B):
    Q_A, Q_B = np.linalg.qr(A)[0], np.linalg.qr(B)[0]
    return np.linalg.svd(Q_A.T @ Q_B, compute_uv=False).min()


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


# %% exercise={"id": "2.5", "title": "What the best denoiser answers", "points": 3, "forbid": ["posterior_mean"]} tags=["hide-input"]
def denoised(x_tilde, means, weights, s, sigma):
    """E[x | x_tilde] for a mixture of round normals."""
    variance = s**2 + sigma**2  # of noisy data around its component's mean
    steps = x_tilde[:, None, :] - means  # (B, M, D)
    logits = np.log(weights) - (steps**2).sum(axis=2) / (2 * variance)  # (B, M)
    r = np.exp(logits - logits.max(axis=1, keepdims=True))
    r = r / r.sum(axis=1, keepdims=True)  # (B, M)
    within = means + s**2 / variance * steps  # (B, M, D)
    return (r[:, :, None] * within).sum(axis=1)


# %% grade={"part": "2.5"}
@check("2.5")
def values(seed):
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(4, 2))
    weights = rng.dirichlet([2, 1, 1, 1])
    x_tilde = 1.5 * rng.normal(size=(6, 2))
    return {"x_hat": denoised(x_tilde, means, weights, 0.4, 0.7)}


# %% misconception="2.5" tags=["hide-input"]
# You left out the weights of the components: a rare component explains less.
def denoised(x_tilde, means, weights, s, sigma):
    variance = s**2 + sigma**2
    steps = x_tilde[:, None, :] - means
    r = np.exp(-(steps**2).sum(axis=2) / (2 * variance))
    r = r / r.sum(axis=1, keepdims=True)
    return (r[:, :, None] * (means + s**2 / variance * steps)).sum(axis=1)


# %% misconception="2.5" tags=["hide-input"]
# How far do noisy points of one component spread? Noise adds to the variance of the clean data.
def denoised(x_tilde, means, weights, s, sigma):
    steps = x_tilde[:, None, :] - means
    r = weights * np.exp(-(steps**2).sum(axis=2) / (2 * s**2))
    r = r / r.sum(axis=1, keepdims=True)
    within = means + s**2 / (s**2 + sigma**2) * steps
    return (r[:, :, None] * within).sum(axis=1)


# %% misconception="2.5" tags=["hide-input"]
# You answer with the mean of each component. Part of the step away from it is data, not noise.
def denoised(x_tilde, means, weights, s, sigma):
    steps = x_tilde[:, None, :] - means
    r = weights * np.exp(-(steps**2).sum(axis=2) / (2 * (s**2 + sigma**2)))
    r = r / r.sum(axis=1, keepdims=True)
    return r @ means


# %% misconception="2.5" tags=["hide-input"]
# You have swapped the two variances. With hardly any noise, the best answer is the noisy point itself.
def denoised(x_tilde, means, weights, s, sigma):
    variance = s**2 + sigma**2
    steps = x_tilde[:, None, :] - means
    r = weights * np.exp(-(steps**2).sum(axis=2) / (2 * variance))
    r = r / r.sum(axis=1, keepdims=True)
    return (r[:, :, None] * (means + sigma**2 / variance * steps)).sum(axis=1)


# %% misconception="2.5" tags=["hide-input"]
# You decide for one component. The posterior mean weighs all of them.
def denoised(x_tilde, means, weights, s, sigma):
    variance = s**2 + sigma**2
    steps = x_tilde[:, None, :] - means
    logits = np.log(weights) - (steps**2).sum(axis=2) / (2 * variance)
    best = logits.argmax(axis=1)
    return (means + s**2 / variance * steps)[np.arange(len(x_tilde)), best]


# %% [markdown]
# ## 2.6 From a denoiser to the score (1 point)
#
# Solve Tweedie's formula (2.9) for the score.
#
# **In**: `x_tilde`, noisy points, shape (B, D); `denoised_x`, a denoiser's answers to them, shape (B, D); `sigma`, the standard deviation
# of the noise. **Out**: $\nabla \log p_\sigma(\tilde x)$, shape (B, D), in 1 / (units of x).


# %% exercise={"id": "2.6", "title": "From a denoiser to the score", "points": 1} tags=["hide-input"]
def score(x_tilde, denoised_x, sigma):
    """The score of the noisy data."""
    return (denoised_x - x_tilde) / sigma**2


# %% grade={"part": "2.6"}
@check("2.6")
def values(seed):
    rng = np.random.default_rng(seed)
    x_tilde, denoised_x = rng.normal(size=(2, 5, 3))
    return {"score": score(x_tilde, denoised_x, 0.5 + rng.random())}


# %% misconception="2.6" tags=["hide-input"]
# Your arrows point away from the data. Denoising walks uphill.
def score(x_tilde, denoised_x, sigma):
    return (x_tilde - denoised_x) / sigma**2


# %% misconception="2.6" tags=["hide-input"]
# Tweedie's formula holds the variance of the noise, not its standard deviation.
def score(x_tilde, denoised_x, sigma):
    return (denoised_x - x_tilde) / sigma


# %% misconception="2.6" tags=["hide-input"]
# That is the step of the denoiser. The score is that step in units of the noise's variance.
def score(x_tilde, denoised_x, sigma):
    return denoised_x - x_tilde


# %% misconception="2.6" tags=["hide-input"]
# You multiply where the formula, solved for the score, divides.
def score(x_tilde, denoised_x, sigma):
    return (denoised_x - x_tilde) * sigma**2
