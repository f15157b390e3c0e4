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
# # Exercises for chapter 4: autoregressive models
#
# Six parts, 14 points. Fill in the functions; each says what goes in and what comes out. The cell below a function
# tells you whether it is right, and if not, how its result differs. Use NumPy, or PyTorch where you like it better.
#
# [Open these exercises in Colab](https://colab.research.google.com/github/example-org/deep-generative-modelling/blob/main/notebooks/exercises/04_autoregressive.ipynb)

# %%
try:
    import google.colab  # noqa: F401

    # %pip install --quiet "course_lib @ git+https://github.com/example-org/deep-generative-modelling"
except ImportError:
    pass  # not on Colab: the library is installed already

# %% tags=["setup"]
import numpy as np

from course_lib.grading.checks import Checks

check = Checks("04_autoregressive")


# %% [markdown]
# The next cell is yours: more imports, and functions that you use in several parts.

# %% exercise={"id": "helpers"}
# your imports and helpers

# %% [markdown]
# ## 4.1 A mask between layers (2 points)
#
# In MADE every unit has a degree: the largest index of an input that it may depend on. A hidden unit may see units of its own degree or
# lower ones. An output, which predicts the input of its degree, may only see strictly lower ones: then output $i$ does not depend on
# $x_j$ for any $j \ge i$.
#
# **In**: `degrees_in` of shape (I,) and `degrees_out` of shape (O,), whole numbers; `strict`, true for the layer that leads to the outputs.
# **Out**: the mask of the weight matrix, shape (O, I) as in `torch.nn.Linear`, ones where a connection is allowed and zeros elsewhere.

# %% exercise={"id": "4.1", "title": "A mask between layers", "points": 2}
def mask(degrees_in, degrees_out, strict):
    """Which connections are allowed between two layers."""
    raise NotImplementedError("4.1 A mask between layers")


# %% grade={"part": "4.1"}
@check("4.1")
def values(seed):
    rng = np.random.default_rng(seed)
    x, hidden = rng.permutation(6), rng.integers(0, 5, size=9)
    first = np.asarray(mask(x, hidden, False), dtype=float)
    last = np.asarray(mask(hidden, x, True), dtype=float)
    return {"first": first, "last": last}


# %% [markdown]
# ## 4.2 A masked convolution (2 points)
#
# PixelCNN reads an image row by row, from left to right. The kernel of a masked convolution keeps the weights for pixels that come earlier:
# all rows above the centre, and in the centre's row what is left of it. The first layer must not see the centre itself, later ones may.
#
# **In**: `weight` of shape (O, I, k, k) with odd k; `sees_centre`, true for all layers but the first. **Out**: the weight with zeros where it must not look, same shape.

# %% exercise={"id": "4.2", "title": "A masked convolution", "points": 2}
def masked_kernel(weight, sees_centre):
    """Zero the weights of pixels that come later in reading order."""
    raise NotImplementedError("4.2 A masked convolution")


# %% grade={"part": "4.2"}
@check("4.2")
def values(seed):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(2, 3, 5, 5))
    return {
        "first": masked_kernel(weight.copy(), False),
        "later": masked_kernel(weight.copy(), True),
    }


# %% [markdown]
# ## 4.3 The log-density of a mixture of logistics (3 points)
#
# A logistic distribution with location $\mu$ and scale $s$ has the density
# $\frac{e^{-u}}{s \, (1 + e^{-u})^2}$ with $u = (x - \mu) / s$. A network gives $M$ of them, and one number for each, whose *softmax* is the
# weights. Compute the log-density of the mixture.
#
# **In**: `x` of shape (B,); `logits`, `means`, `scales`, each of shape (M,). **Out**: shape (B,), in nats.

# %% exercise={"id": "4.3", "title": "The log-density of a mixture of logistics", "points": 3}
def log_mixture(x, logits, means, scales):
    """Log-density of a mixture of logistic distributions."""
    raise NotImplementedError("4.3 The log-density of a mixture of logistics")


# %% grade={"part": "4.3"}
@check("4.3")
def values(seed):
    rng = np.random.default_rng(seed)
    logits, means, scales = (
        rng.normal(size=4),
        2 * rng.normal(size=4),
        0.3 + rng.random(4),
    )
    return {"log_p": log_mixture(3 * rng.normal(size=7), logits, means, scales)}


# %% [markdown]
# ## 4.4 A sampler that matches it (3 points)
#
# Draw from the mixture of 4.3, with two given uniform numbers for each sample, so that the result can be checked. The first one chooses
# the component: the smallest $m$ whose cumulative weight $w_1 + \dots + w_m$ is larger than it. The second one becomes a logistic sample by the
# inverse of the distribution function $F(x) = 1 / (1 + e^{-(x - \mu) / s})$.
#
# **In**: `logits`, `means`, `scales` of shape (M,); `u_component`, `u_noise` of shape (N,), between 0 and 1. **Out**: samples, shape (N,).

# %% exercise={"id": "4.4", "title": "A sampler that matches it", "points": 3, "forbid": ["ppf", "logistic"]}
def sample_mixture(logits, means, scales, u_component, u_noise):
    """Samples of a mixture of logistics, made of uniform numbers."""
    raise NotImplementedError("4.4 A sampler that matches it")


# %% grade={"part": "4.4"}
@check("4.4")
def values(seed):
    rng = np.random.default_rng(seed)
    logits, means, scales = (
        rng.normal(size=4),
        2 * rng.normal(size=4),
        0.3 + rng.random(4),
    )
    u_component, u_noise = rng.uniform(0.02, 0.98, size=(2, 40))
    return {"x": sample_mixture(logits, means, scales, u_component, u_noise)}


# %% [markdown]
# ## 4.5 The probability of a grey value (3 points)
#
# Grey values are whole numbers from 0 to `levels` - 1. A *discretized* logistic gives the value $x$ the mass between $x - \tfrac12$ and $x + \tfrac12$;
# the value 0 also gets everything below, and the last one everything above. So the masses sum to one. Compute the log-probability.
#
# **In**: `x`, grey values, shape (B,); `mean`, `scale`, numbers on the scale of grey values; `levels`. **Out**: shape (B,), in nats.

# %% exercise={"id": "4.5", "title": "The probability of a grey value", "points": 3}
def log_discretized(x, mean, scale, levels):
    """Log-probability of grey values under a discretized logistic."""
    raise NotImplementedError("4.5 The probability of a grey value")


# %% grade={"part": "4.5"}
@check("4.5")
def values(seed):
    rng = np.random.default_rng(seed)
    x = rng.permutation(16).astype(float)
    return {"log_p": log_discretized(x, rng.uniform(5, 10), rng.uniform(0.8, 1.6), 16)}


# %% [markdown]
# ## 4.6 Temperature (1 point)
#
# Sampling at temperature $T$ divides the logits by $T$ before the softmax: below one the model plays safe, above one it dares.
#
# **In**: `logits` of shape (B, V); `T`, a positive number. **Out**: probabilities, shape (B, V).

# %% exercise={"id": "4.6", "title": "Temperature", "points": 1, "forbid": ["softmax"]}
def tempered(logits, T):
    """Probabilities at temperature T."""
    raise NotImplementedError("4.6 Temperature")


# %% grade={"part": "4.6"}
@check("4.6")
def values(seed):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(4, 5)) + np.array([0, 0, 900, -900])[:, None]
    return {"p": tempered(logits, 0.4 + rng.random() / 3)}
