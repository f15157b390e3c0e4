r"""The grader: a folder of notebooks in, points and hints out, on nbval.

Each room is named after what it does, in the order in which a submission meets them:

- ``checks``: what runs in the student's kernel: named values are published, never verdicts;
- ``compare``: expected against found values, in words that name the difference and not the answer;
- ``notebooks``: the reference's parts, and the cells of a submission that are moved into it;
- ``sandbox``: the walls around a kernel;
- ``plugin``: nbval inside them: a kernel that may die, flood or hang without harm;
- ``runs``: one notebook through pytest, in a process of its own;
- ``grade``: one submission, then a folder of them, with a journal;
- ``report``: tables and pages for people;
- ``release``: the student's pair, made from the solution and gated;
- ``command``: what ``python -m course_lib.grading`` runs.
"""
