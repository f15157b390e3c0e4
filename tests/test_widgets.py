"""Widgets: complete without a kernel, live with one, and never a way to break out of the page."""

import base64
import json
from html.parser import HTMLParser

import pytest

from course_lib import plot, widgets
from course_lib.widgets import Choice, Explorer, Question, Quiz


def draw(value):
    figure, (ax,) = plot.subplots(width=1, height=1)
    ax.set_title(str(value))
    return figure


def explorer(**options):
    return Explorer(draw, [1, 2, 3], **{"label": "size", "alt": "A code of {}", **options})


class Parsed(HTMLParser):
    """Tags with their attributes, and the text of scripts."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.scripts, self._open = [], [], []
        self.feed(source)
        assert self._open == [], "some element was not closed"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("img", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, text):
        if self._open and self._open[-1] == "script":
            self.scripts.append(text)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_explorer_holds_one_frame_for_each_value():
    page = Parsed(explorer(start=1).html())
    data = json.loads(page.scripts[0])
    frames = [base64.b64decode(frame) for frame in data["frames"]]
    assert frames == [plot.png(draw(value), dpi=100) for value in (1, 2, 3)]
    assert data["values"] == ["1", "2", "3"] and data["alts"][2] == "A code of 3"
    (image,) = page.all("img")
    assert image["alt"] == "A code of 2" and image["src"].endswith(data["frames"][1])
    (slider,) = page.all("input")
    assert (slider["type"], slider["max"], slider["value"], slider["aria-valuetext"]) == ("range", "2", "1", "2")


def test_explorer_is_reproducible_and_asks_nobody_else():
    assert explorer().html() == explorer().html()
    assert "http" not in explorer().html()


def test_nothing_breaks_out_of_the_page():
    nasty = '</script><b onclick="x">&"{}'
    page = Parsed(explorer(label=nasty, alt=nasty).html())
    assert [tag for tag, _ in page.tags if tag == "b"] == []
    assert page.all("img")[0]["alt"] == nasty.replace("{}", "1")
    question = Question(nasty, [Choice(nasty, nasty, right=True), Choice("a", nasty)])
    assert [tag for tag, _ in Parsed(Quiz([question])._repr_html_()).tags if tag == "b"] == []


def test_explorer_is_live_where_somebody_watches(monkeypatch):
    assert set(explorer()._repr_mimebundle_()) == {"text/html", "text/plain"}
    monkeypatch.setattr(widgets, "attended", lambda: True)
    assert "application/vnd.jupyter.widget-view+json" in explorer()._repr_mimebundle_()


def test_the_live_slider_changes_the_picture():
    image, slider = explorer()._live().children
    assert image.value == plot.png(draw(1), dpi=100)
    slider.index = 2
    assert image.value == plot.png(draw(3), dpi=100)


def test_each_choice_has_its_own_feedback():
    quiz = Quiz(
        [
            Question("First?", [Choice("a", "no, a", right=False), Choice("b", "yes, b", right=True)]),
            Question("Second?", [Choice("c", "yes, c", right=True), Choice("d", "no, d"), Choice("e", "no, e")]),
        ]
    )
    html = quiz._repr_html_()
    page = Parsed(html)
    assert len(page.all("fieldset")) == 2 and len(page.all("input")) == 5
    assert [p["class"] for p in page.all("p")] == ["wrong", "right", "right", "wrong", "wrong"]
    assert all("hidden" in p for p in page.all("p"))
    assert len({i["name"] for i in page.all("input")}) == 2
    assert html.index("no, a") < html.index("yes, b") < html.index("yes, c") < html.index("no, e")
    assert html == quiz._repr_html_()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Explorer(draw, [], label="k", alt="x"), "at least one value"),
        (lambda: explorer(start=3), "from 0 to 2, got 3"),
        (lambda: explorer(label=" "), "needs a label and a description: .*label=..., alt='what it shows'"),
        (lambda: explorer(alt=""), "needs a label and a description"),
        (lambda: Choice("4", ""), "the choice '4' needs feedback: say why"),
        (lambda: Choice("4", "\n ", right=True), "the choice '4' needs feedback"),
        (lambda: Quiz([]), "at least one question"),
        (lambda: Question("Why?", [Choice("a", "x", right=True)]), "two or more choices"),
        (lambda: Question("Why?", [Choice("a", "x"), Choice("b", "y")]), "at least one of them right"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
