"""The library of *Deep Generative Modelling: an executable course*.

Floors, from the ground up; a module imports only from floors below its own:

- F0 ``protocols``, ``probability``, ``losses``, ``schedules``, ``nn``, ``train``
- F1 ``data``, ``models``, ``samplers``, ``evaluation``
- F2 ``plot``, the only module that imports matplotlib
- F3 ``widgets``, ``notebook``, ``pairs``
- F4 ``grading``

Importing ``course_lib`` imports none of them: ask for what you use, for example ``from course_lib import data, train``.
"""

__version__ = "0.1.0"
