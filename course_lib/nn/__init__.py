"""Network parts that several families share, by what they are for."""

from course_lib.nn.bijections import AffineBijection, SplineBijection
from course_lib.nn.convolution import ConvDecoder, ConvEncoder, conv_networks
from course_lib.nn.dense import MLP, Constant, dense_networks
from course_lib.nn.labels import ClassInput, ClassOutput
from course_lib.nn.likelihoods import (
    BernoulliPixels,
    CategoricalLevels,
    GaussianPixels,
    Levels,
    LogisticLevels,
    LogisticMixture,
)
from course_lib.nn.masked import MaskedConv2d, MaskedLinear, MaskedMLP, raster_mask
from course_lib.nn.players import conv_players, dense_players
from course_lib.nn.timed import TimeMLP, UNet, time_embedding

__all__ = [
    "MLP",
    "AffineBijection",
    "BernoulliPixels",
    "CategoricalLevels",
    "ClassInput",
    "ClassOutput",
    "Constant",
    "ConvDecoder",
    "ConvEncoder",
    "GaussianPixels",
    "Levels",
    "LogisticLevels",
    "LogisticMixture",
    "MaskedConv2d",
    "MaskedLinear",
    "MaskedMLP",
    "SplineBijection",
    "TimeMLP",
    "UNet",
    "conv_networks",
    "conv_players",
    "dense_networks",
    "dense_players",
    "raster_mask",
    "time_embedding",
]
