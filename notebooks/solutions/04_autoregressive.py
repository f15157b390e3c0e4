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
# # Solutions to chapter 4: autoregressive models
#
# Try the [exercises](../exercises/04_autoregressive.ipynb) first. Here each part shows its answer when you open it, and below it the
# wrong answers that people give most often, each with the hint that the grader gives for it.

# %% [markdown] tags=["exercise-only", "remove-cell"]
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


# %% exercise={"id": "4.1", "title": "A mask between layers", "points": 2} tags=["hide-input"]
def mask(degrees_in, degrees_out, strict):
    """Which connections are allowed between two layers."""
    to, source = degrees_out[:, None], degrees_in[None, :]  # (O, 1), (1, I)
    return (to > source if strict else to >= source).astype(float)


# %% grade={"part": "4.1"}
@check("4.1")
def values(seed):
    rng = np.random.default_rng(seed)
    x, hidden = rng.permutation(6), rng.integers(0, 5, size=9)
    first = np.asarray(mask(x, hidden, False), dtype=float)
    last = np.asarray(mask(hidden, x, True), dtype=float)
    return {"first": first, "last": last}


# %% misconception="4.1" tags=["hide-input"]
# Your outputs see the input that they predict. In the last layer the comparison is
# strict.
def mask(degrees_in, degrees_out, strict):
    return (degrees_out[:, None] >= degrees_in).astype(float)


# %% misconception="4.1" tags=["hide-input"]
# You compare strictly everywhere. A hidden unit may see units of its own degree.
def mask(degrees_in, degrees_out, strict):
    return (degrees_out[:, None] > degrees_in).astype(float)


# %% misconception="4.1" tags=["hide-input"]
# Your arrows run backwards: units see what comes after them.
def mask(degrees_in, degrees_out, strict):
    to, source = degrees_out[:, None], degrees_in[None, :]
    return (to < source if strict else to <= source).astype(float)


# %% misconception="4.1" tags=["hide-input"]
# Rows and columns: the weight of a linear layer has one row for each output.
def mask(degrees_in, degrees_out, strict):
    to, source = degrees_out[None, :], degrees_in[:, None]
    return (to > source if strict else to >= source).astype(float)


# %% [markdown]
# ## 4.2 A masked convolution (2 points)
#
# PixelCNN reads an image row by row, from left to right. The kernel of a masked convolution keeps the weights for pixels that come earlier:
# all rows above the centre, and in the centre's row what is left of it. The first layer must not see the centre itself, later ones may.
#
# **In**: `weight` of shape (O, I, k, k) with odd k; `sees_centre`, true for all layers but the first. **Out**: the weight with zeros where it must not look, same shape.


# %% exercise={"id": "4.2", "title": "A masked convolution", "points": 2} tags=["hide-input"]
def masked_kernel(weight, sees_centre):
    """Zero the weights of pixels that come later in reading order."""
    k = weight.shape[-1]
    order = np.arange(k * k).reshape(k, k)  # reading order
    centre = k * k // 2
    return weight * ((order <= centre) if sees_centre else (order < centre))


# %% grade={"part": "4.2"}
@check("4.2")
def values(seed):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(2, 3, 5, 5))
    return {
        "first": masked_kernel(weight.copy(), False),
        "later": masked_kernel(weight.copy(), True),
    }


# %% misconception="4.2" tags=["hide-input"]
# Your first layer sees the pixel that it predicts.
def masked_kernel(weight, sees_centre):
    k = weight.shape[-1]
    return weight * (np.arange(k * k).reshape(k, k) <= k * k // 2)


# %% misconception="4.2" tags=["hide-input"]
# Later layers may see the centre: there it holds what earlier pixels say.
def masked_kernel(weight, sees_centre):
    k = weight.shape[-1]
    return weight * (np.arange(k * k).reshape(k, k) < k * k // 2)


# %% misconception="4.2" tags=["hide-input"]
# You keep whole rows above only. What stands left of the centre comes earlier, too.
def masked_kernel(weight, sees_centre):
    k = weight.shape[-1]
    kept = np.zeros((k, k))
    kept[: k // 2] = 1
    kept[k // 2, k // 2] = float(sees_centre)
    return weight * kept


# %% misconception="4.2" tags=["hide-input"]
# You keep a rectangle above and left of the centre. Pixels above and to the right
# come earlier, too.
def masked_kernel(weight, sees_centre):
    k = weight.shape[-1]
    kept = np.zeros((k, k))
    kept[: k // 2 + 1, : k // 2 + 1] = 1
    kept[k // 2, k // 2] = float(sees_centre)
    return weight * kept


# %% misconception="4.2" tags=["hide-input"]
# You read by columns. Images are read row by row.
def masked_kernel(weight, sees_centre):
    k = weight.shape[-1]
    order = np.arange(k * k).reshape(k, k).T
    return weight * ((order <= k * k // 2) if sees_centre else (order < k * k // 2))


# %% [markdown]
# ## 4.3 The log-density of a mixture of logistics (3 points)
#
# A logistic distribution with location $\mu$ and scale $s$ has the density
# $\frac{e^{-u}}{s \, (1 + e^{-u})^2}$ with $u = (x - \mu) / s$. A network gives $M$ of them, and one number for each, whose *softmax* is the
# weights. Compute the log-density of the mixture.
#
# **In**: `x` of shape (B,); `logits`, `means`, `scales`, each of shape (M,). **Out**: shape (B,), in nats.


# %% exercise={"id": "4.3", "title": "The log-density of a mixture of logistics", "points": 3} tags=["hide-input"]
def log_mixture(x, logits, means, scales):
    """Log-density of a mixture of logistic distributions."""
    u = (x[:, None] - means) / scales  # (B, M)
    log_components = -u - 2 * np.logaddexp(0, -u) - np.log(scales)
    log_weights = logits - np.logaddexp.reduce(logits)  # (M,)
    return np.logaddexp.reduce(log_weights + log_components, axis=1)


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


# %% misconception="4.3" tags=["hide-input"]
# The weights do not sum to one: the logits want a softmax.
def log_mixture(x, logits, means, scales):
    u = (x[:, None] - means) / scales
    return np.logaddexp.reduce(
        logits - u - 2 * np.logaddexp(0, -u) - np.log(scales), axis=1
    )


# %% misconception="4.3" tags=["hide-input"]
# The scale is missing in front: a wide component has a low density.
def log_mixture(x, logits, means, scales):
    u = (x[:, None] - means) / scales
    log_weights = logits - np.logaddexp.reduce(logits)
    return np.logaddexp.reduce(log_weights - u - 2 * np.logaddexp(0, -u), axis=1)


# %% misconception="4.3" tags=["hide-input"]
# Your components are normal. A logistic has heavier tails.
def log_mixture(x, logits, means, scales):
    u = (x[:, None] - means) / scales
    log_weights = logits - np.logaddexp.reduce(logits)
    return np.logaddexp.reduce(
        log_weights - 0.5 * u**2 - np.log(scales * np.sqrt(2 * np.pi)), axis=1
    )


# %% misconception="4.3" tags=["hide-input"]
# You average log-densities by their weights. The mixture averages densities.
def log_mixture(x, logits, means, scales):
    u = (x[:, None] - means) / scales
    log_weights = logits - np.logaddexp.reduce(logits)
    return (np.exp(log_weights) * (-u - 2 * np.logaddexp(0, -u) - np.log(scales))).sum(
        axis=1
    )


# %% misconception="4.3" tags=["hide-input"]
# The square in the denominator is missing: log (1 + e^-u) counts twice.
def log_mixture(x, logits, means, scales):
    u = (x[:, None] - means) / scales
    log_weights = logits - np.logaddexp.reduce(logits)
    return np.logaddexp.reduce(
        log_weights - u - np.logaddexp(0, -u) - np.log(scales), axis=1
    )


# %% [markdown]
# ## 4.4 A sampler that matches it (3 points)
#
# Draw from the mixture of 4.3, with two given uniform numbers for each sample, so that the result can be checked. The first one chooses
# the component: the smallest $m$ whose cumulative weight $w_1 + \dots + w_m$ is larger than it. The second one becomes a logistic sample by the
# inverse of the distribution function $F(x) = 1 / (1 + e^{-(x - \mu) / s})$.
#
# **In**: `logits`, `means`, `scales` of shape (M,); `u_component`, `u_noise` of shape (N,), between 0 and 1. **Out**: samples, shape (N,).


# %% exercise={"id": "4.4", "title": "A sampler that matches it", "points": 3, "forbid": ["ppf", "logistic"]} tags=["hide-input"]
def sample_mixture(logits, means, scales, u_component, u_noise):
    """Samples of a mixture of logistics, made of uniform numbers."""
    weights = np.exp(logits - logits.max())
    weights = weights / weights.sum()
    m = np.searchsorted(np.cumsum(weights), u_component, side="right")  # (N,)
    m = np.minimum(
        m, len(weights) - 1
    )  # the last sum may fall short of one by rounding
    return means[m] + scales[m] * (np.log(u_noise) - np.log1p(-u_noise))


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


# %% misconception="4.4" tags=["hide-input"]
# Your noise is normal, and the density's is logistic: the sampler draws from another
# distribution than log_prob reports.
def sample_mixture(logits, means, scales, u_component, u_noise):
    from scipy.special import ndtri

    weights = np.exp(logits) / np.exp(logits).sum()
    m = (u_component[:, None] >= np.cumsum(weights)).sum(axis=1)
    return means[m] + scales[m] * ndtri(u_noise)


# %% misconception="4.4" tags=["hide-input"]
# You left out the scale of the component.
def sample_mixture(logits, means, scales, u_component, u_noise):
    weights = np.exp(logits) / np.exp(logits).sum()
    m = (u_component[:, None] >= np.cumsum(weights)).sum(axis=1)
    return means[m] + np.log(u_noise) - np.log1p(-u_noise)


# %% misconception="4.4" tags=["hide-input"]
# You take the heaviest component always. A mixture draws its component.
def sample_mixture(logits, means, scales, u_component, u_noise):
    m = np.full(len(u_noise), np.argmax(logits))
    return means[m] + scales[m] * (np.log(u_noise) - np.log1p(-u_noise))


# %% misconception="4.4" tags=["hide-input"]
# You give all components the same weight. The logits want a softmax.
def sample_mixture(logits, means, scales, u_component, u_noise):
    m = (u_component * len(logits)).astype(int)
    return means[m] + scales[m] * (np.log(u_noise) - np.log1p(-u_noise))


# %% misconception="4.4" tags=["hide-input"]
# You average the components. That is one wide lump; a sample belongs to one of them.
def sample_mixture(logits, means, scales, u_component, u_noise):
    weights = np.exp(logits) / np.exp(logits).sum()
    return (weights @ means) + (weights @ scales) * (
        np.log(u_noise) - np.log1p(-u_noise)
    )


# %% [markdown]
# ## 4.5 The probability of a grey value (3 points)
#
# Grey values are whole numbers from 0 to `levels` - 1. A *discretized* logistic gives the value $x$ the mass between $x - \tfrac12$ and $x + \tfrac12$;
# the value 0 also gets everything below, and the last one everything above. So the masses sum to one. Compute the log-probability.
#
# **In**: `x`, grey values, shape (B,); `mean`, `scale`, numbers on the scale of grey values; `levels`. **Out**: shape (B,), in nats.


# %% exercise={"id": "4.5", "title": "The probability of a grey value", "points": 3} tags=["hide-input"]
def log_discretized(x, mean, scale, levels):
    """Log-probability of grey values under a discretized logistic."""
    upper = np.where(x == levels - 1, np.inf, (x + 0.5 - mean) / scale)
    lower = np.where(x == 0, -np.inf, (x - 0.5 - mean) / scale)
    return np.log(1 / (1 + np.exp(-upper)) - 1 / (1 + np.exp(-lower)))


# %% grade={"part": "4.5"}
@check("4.5")
def values(seed):
    rng = np.random.default_rng(seed)
    x = rng.permutation(16).astype(float)
    return {"log_p": log_discretized(x, rng.uniform(5, 10), rng.uniform(0.8, 1.6), 16)}


# %% misconception="4.5" tags=["hide-input"]
# The first and the last value also get what lies beyond: your masses do not sum to
# one.
def log_discretized(x, mean, scale, levels):
    upper, lower = (x + 0.5 - mean) / scale, (x - 0.5 - mean) / scale
    return np.log(1 / (1 + np.exp(-upper)) - 1 / (1 + np.exp(-lower)))


# %% misconception="4.5" tags=["hide-input"]
# That is the log-density at x. A grey value has a mass: the difference of the
# distribution function at two edges.
def log_discretized(x, mean, scale, levels):
    u = (x - mean) / scale
    return -u - 2 * np.logaddexp(0, -u) - np.log(scale)


# %% misconception="4.5" tags=["hide-input"]
# Your bins begin at x and end at x + 1. They reach half a level to either side.
def log_discretized(x, mean, scale, levels):
    upper = np.where(x == levels - 1, np.inf, (x + 1 - mean) / scale)
    lower = np.where(x == 0, -np.inf, (x - mean) / scale)
    return np.log(1 / (1 + np.exp(-upper)) - 1 / (1 + np.exp(-lower)))


# %% misconception="4.5" tags=["hide-input"]
# Your bins are two levels wide, so neighbours overlap.
def log_discretized(x, mean, scale, levels):
    upper = np.where(x == levels - 1, np.inf, (x + 1 - mean) / scale)
    lower = np.where(x == 0, -np.inf, (x - 1 - mean) / scale)
    return np.log(1 / (1 + np.exp(-upper)) - 1 / (1 + np.exp(-lower)))


# %% misconception="4.5" tags=["hide-input"]
# That is the probability of x or less. Subtract what lies below the bin.
def log_discretized(x, mean, scale, levels):
    upper = np.where(x == levels - 1, np.inf, (x + 0.5 - mean) / scale)
    return np.log(1 / (1 + np.exp(-upper)))


# %% [markdown]
# ## 4.6 Temperature (1 point)
#
# Sampling at temperature $T$ divides the logits by $T$ before the softmax: below one the model plays safe, above one it dares.
#
# **In**: `logits` of shape (B, V); `T`, a positive number. **Out**: probabilities, shape (B, V).


# %% exercise={"id": "4.6", "title": "Temperature", "points": 1, "forbid": ["softmax"]} tags=["hide-input"]
def tempered(logits, T):
    """Probabilities at temperature T."""
    scaled = logits / T
    p = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


# %% grade={"part": "4.6"}
@check("4.6")
def values(seed):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(4, 5)) + np.array([0, 0, 900, -900])[:, None]
    return {"p": tempered(logits, 0.4 + rng.random() / 3)}


# %% misconception="4.6" tags=["hide-input"]
# You multiply by the temperature: your cold is hot.
def tempered(logits, T):
    p = np.exp(logits * T - (logits * T).max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


# %% misconception="4.6" tags=["hide-input"]
# You divide probabilities, not logits. They no longer sum to one.
def tempered(logits, T):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True) / T


# %% misconception="4.6" tags=["hide-input"]
# The temperature has no effect.
def tempered(logits, T):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


# %% misconception="4.6" tags=["hide-input"]
# You normalize over the batch. Each row is a distribution.
def tempered(logits, T):
    p = np.exp(logits / T - (logits / T).max(axis=1, keepdims=True))
    return p / p.sum(axis=0, keepdims=True)


# %% misconception="4.6" tags=["hide-input"]
# Large logits overflow. Subtract the largest one of each row first.
def tempered(logits, T):
    with np.errstate(all="ignore"):
        p = np.exp(logits / T)
        return p / p.sum(axis=1, keepdims=True)
