r"""Things to move and to answer, on a page without a kernel. The only module that imports ipywidgets.

Both widgets are plain HTML with a few lines of script in the page itself: they work in the rendered book, in Jupyter
and on Colab, from the keyboard and with a screen reader, and executing a notebook twice gives the same bytes. Where
somebody sits before a running kernel, an :class:`Explorer` becomes a live ipywidget that draws on demand.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets

from course_lib.plot import Figure, png
from course_lib.train import attended

__all__ = ["Choice", "Explorer", "Question", "Quiz"]


class Explorer:
    r"""A slider that changes a figure.

    On a static page the frames are drawn beforehand, one for each value. In a live kernel each is drawn when asked for.

    Args:
        draw: Maps a value to a figure.
        values: The positions of the slider, in order.
        label: What the slider changes.
        alt: Describes for those who cannot see it what the figure shows; ``{}`` is replaced by the value.
        form: How a value is written, as for :func:`format`.
        start: Position of the slider at first.
        dpi: Dots per inch of the frames.

    Raises:
        ValueError: If there are no values, the label or the description is empty, or ``start`` is not one of the
            positions.

    Example:
        >>> explorer = Explorer(lambda k: Figure(figsize=(1, 1)), [1, 2], label="latent size", alt="A {}-D code")
        >>> "text/html" in explorer._repr_mimebundle_()  # nobody watches a test: the kernel-free form
        True
    """

    def __init__(
        self,
        draw: Callable[[Any], Figure],
        values: Sequence[Any],
        *,
        label: str,
        alt: str,
        form: str = "",
        start: int = 0,
        dpi: int = 100,
    ) -> None:
        if not len(values):
            raise ValueError("an explorer needs at least one value")
        if not (label.strip() and alt.strip()):
            raise ValueError(
                "an explorer needs a label and a description: Explorer(..., label=..., alt='what it shows')"
            )
        if not 0 <= start < len(values):
            raise ValueError(f"start must be a position from 0 to {len(values) - 1}, got {start}")
        self.draw, self.values, self.label, self.alt, self.start, self.dpi = draw, list(values), label, alt, start, dpi
        self.names = [format(value, form) for value in values]

    def __repr__(self) -> str:
        return f"Explorer({self.label}: {', '.join(self.names)})"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        plain = {"text/plain": repr(self)}
        return {**self._live()._repr_mimebundle_(), **plain} if attended() else {"text/html": self.html(), **plain}

    def html(self) -> str:
        """The kernel-free form: frames, a native slider, and the script that joins them."""
        frames = [base64.b64encode(png(self.draw(value), dpi=self.dpi)).decode() for value in self.values]
        name = "explorer-" + hashlib.sha256("".join([*frames, *self.names]).encode()).hexdigest()[:10]
        label, (alt, value) = html.escape(self.label), self._texts(self.start)
        data = {"frames": frames, "values": self.names, "alts": [self._texts(i)[0] for i in range(len(self.names))]}
        return f"""<figure class="frame-slider" id="{name}" style="margin:1em 0">
<img alt="{html.escape(alt)}" src="data:image/png;base64,{frames[self.start]}" style="max-width:100%;background:#fff">
<div class="controls"><label>{label} <input type="range" min="0" max="{len(frames) - 1}" value="{self.start}" step="1"
 aria-valuetext="{html.escape(value)}" style="vertical-align:middle;width:14em;max-width:60vw"></label>
<output>{html.escape(value)}</output></div>
<script type="application/json">{_json(data)}</script>
<script>(() => {{
  const root = document.getElementById("{name}"), slider = root.querySelector("input");
  const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  slider.addEventListener("input", () => {{
    const image = root.querySelector("img");
    image.src = "data:image/png;base64," + data.frames[slider.value];
    image.alt = data.alts[slider.value];
    root.querySelector("output").textContent = data.values[slider.value];
    slider.setAttribute("aria-valuetext", data.values[slider.value]);
  }});
}})();</script>
</figure>"""

    def _live(self) -> ipywidgets.Widget:
        slider = ipywidgets.SelectionSlider(
            options=list(zip(self.names, self.values, strict=True)),
            index=self.start,
            description=self.label,
            style={"description_width": "initial"},
            layout={"width": "28em"},
        )
        image = ipywidgets.Image(format="png")

        def redraw(_: object = None) -> None:
            image.value = png(self.draw(slider.value), dpi=self.dpi)

        slider.observe(redraw, names="value")
        redraw()
        return ipywidgets.VBox([image, slider])

    def _texts(self, position: int) -> tuple[str, str]:
        return self.alt.replace("{}", self.names[position]), self.names[position]


@dataclass(frozen=True)
class Choice:
    """One answer to a question, and what to say to a reader who picks it.

    Raises:
        ValueError: If there is nothing to say.

    Example:
        >>> Choice("4", right=True, feedback="Two and two.").right
        True
    """

    text: str
    feedback: str
    right: bool = False

    def __post_init__(self) -> None:
        if not self.feedback.strip():
            raise ValueError(f"the choice {self.text!r} needs feedback: say why it is right or wrong")


@dataclass(frozen=True)
class Question:
    """A question with several answers, at least one of them right.

    Raises:
        ValueError: If there are fewer than two choices, or none is right.

    Example:
        >>> Question("2 + 2?", [Choice("4", right=True, feedback="Yes."), Choice("5", feedback="One less.")]).text
        '2 + 2?'
    """

    text: str
    choices: Sequence[Choice]

    def __post_init__(self) -> None:
        if len(self.choices) < 2 or not any(choice.right for choice in self.choices):
            raise ValueError(f"the question {self.text!r} needs two or more choices, at least one of them right")


class Quiz:
    r"""Questions that answer back: each choice has its own feedback.

    Texts may hold mathematics between dollar signs, which the page typesets.

    Args:
        questions: The questions, in order.

    Raises:
        ValueError: If there are no questions.

    Example:
        >>> quiz = Quiz([Question("2 + 2?", [Choice("4", right=True, feedback="Yes."), Choice("5", feedback="No.")])])
        >>> quiz._repr_html_().count('type="radio"')
        2
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        if not questions:
            raise ValueError("a quiz needs at least one question")
        self.questions = list(questions)

    def __repr__(self) -> str:
        return f"Quiz({len(self.questions)} questions)"

    def _repr_html_(self) -> str:
        name = "quiz-" + hashlib.sha256(repr(self.questions).encode()).hexdigest()[:10]
        fields = "\n".join(_field(question, f"{name}-{i}", i + 1) for i, question in enumerate(self.questions))
        return f"""<form class="quiz tex2jax_process mathjax_process" id="{name}" onsubmit="return false">
{fields}
<script>(() => {{
  document.getElementById("{name}").addEventListener("change", (event) => {{
    const field = event.target.closest("fieldset");
    field.querySelectorAll(".feedback p").forEach((line, i) => {{
      line.hidden = !field.querySelectorAll("input")[i].checked;
    }});
  }});
}})();</script>
</form>"""


def _field(question: Question, name: str, number: int) -> str:
    labels = "\n".join(
        f'<label style="display:flex;gap:.6em"><input type="radio" name="{name}">'
        f"<span>{html.escape(choice.text)}</span></label>"
        for choice in question.choices
    )
    feedback = "\n".join(
        f'<p class="{"right" if choice.right else "wrong"}" hidden>'
        f"<strong>{'✓ Right.' if choice.right else '✗ Not quite.'}</strong> {html.escape(choice.feedback)}</p>"
        for choice in question.choices
    )
    return f"""<fieldset><legend>{number}. {html.escape(question.text)}</legend>
{labels}
<div class="feedback" role="status">
{feedback}
</div></fieldset>"""


def _json(data: object) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
