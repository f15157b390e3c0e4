"""``python -m course_lib.grading``: the command itself is in ``command``."""

import sys
from importlib.util import find_spec

if __name__ == "__main__":
    # a chapter on Colab installs the library alone, and the command needs more
    missing = [name for name in ("jupyter_client", "jupytext", "nbval", "pytest") if find_spec(name) is None]
    if missing:
        sys.exit(f"grading: {', '.join(missing)} not installed: the command needs course_lib[book,test]")
    from course_lib.grading.command import main

    sys.exit(main())
