"""All metrics under one name; each is defined, with its formula and reference, in the module it is imported from."""

from course_lib.evaluation.classifier_tests import C2ST, c2st, c2st_network
from course_lib.evaluation.distances import ks_per_dim, sliced_wasserstein, wasserstein
from course_lib.evaluation.frechet import fid, fid_infinity, frechet_distance
from course_lib.evaluation.intervals import Interval, bootstrap, mean_interval, real_floor, share_interval
from course_lib.evaluation.kernels import kid, median_bandwidth, mmd, mmd_linear
from course_lib.evaluation.labels import inception_score, train_on_synthetic
from course_lib.evaluation.likelihood import HeldOut, held_out_likelihood
from course_lib.evaluation.modes import ModeCoverage, mode_coverage
from course_lib.evaluation.neighbours import PRDC, Memorization, memorization, precision_recall_density_coverage

__all__ = [
    "C2ST",
    "PRDC",
    "HeldOut",
    "Interval",
    "Memorization",
    "ModeCoverage",
    "bootstrap",
    "c2st",
    "c2st_network",
    "fid",
    "fid_infinity",
    "frechet_distance",
    "held_out_likelihood",
    "inception_score",
    "kid",
    "ks_per_dim",
    "mean_interval",
    "median_bandwidth",
    "memorization",
    "mmd",
    "mmd_linear",
    "mode_coverage",
    "precision_recall_density_coverage",
    "real_floor",
    "share_interval",
    "sliced_wasserstein",
    "train_on_synthetic",
    "wasserstein",
]
