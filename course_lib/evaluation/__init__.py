"""How good is a model? Metrics that are pure functions of samples or features, and one harness for all families."""

from course_lib.evaluation.metrics import *  # noqa: F403
from course_lib.evaluation.metrics import __all__ as __all__
