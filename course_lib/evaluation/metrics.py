"""All metrics under one name; each is defined, with its formula and reference, in the module it is imported from."""

from course_lib.evaluation.classifier_tests import C2ST, c2st, c2st_network
from course_lib.evaluation.distances import sliced_wasserstein
from course_lib.evaluation.modes import ModeCoverage, mode_coverage

__all__ = ["C2ST", "ModeCoverage", "c2st", "c2st_network", "mode_coverage", "sliced_wasserstein"]
