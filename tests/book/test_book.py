"""The book as a reader meets it: in a browser, in both themes, on a phone."""

import re
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlparse

import pytest
from axe_playwright_python.sync_playwright import Axe

SITE = Path(__file__).parent.parent.parent / "_build" / "html"
PAGES = sorted(
    str(p.relative_to(SITE)) for p in SITE.rglob("*.html") if not p.relative_to(SITE).parts[0].startswith("_")
)
NOTEBOOKS = [name for name in PAGES if name.startswith("notebooks/")]
CHAPTERS = [name for name in NOTEBOOKS if name.count("/") == 1]
SLIDER = "figure.frame-slider input[type=range]"


def test_there_are_pages():
    assert {"index.html", "book/api.html", "book/glossary.html", "notebooks/02_autoencoders.html"} <= set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_without_an_error_and_without_asking_anybody_else(visit, name):
    opened = visit(name)
    assert opened.foreign == []
    assert opened.errors == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone(visit, name):
    page = visit(name, width=390).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    out_of_reach = page.eval_on_selector_all(
        "mjx-container[display=true], article pre",
        "es => es.filter((e) => e.getClientRects().length && e.getBoundingClientRect().left < 0)"
        ".map((e) => e.textContent.slice(0, 40))",
    )
    assert out_of_reach == []  # what is too wide scrolls, from its beginning


@pytest.mark.parametrize("name", PAGES)
def test_mathematics_is_typeset(visit, name):
    page = visit(name).page
    source = (SITE / name).read_text(encoding="utf-8")
    if 'class="math' in source:
        assert page.locator("mjx-container").count() >= source.count('<div class="math')
    assert page.locator("mjx-merror").count() == 0
    text = page.evaluate(
        """() => { const copy = document.querySelector('article, main').cloneNode(true);
                   copy.querySelectorAll('pre, code, script, .math').forEach((e) => e.remove());
                   return copy.textContent; }"""
    )
    assert not re.search(r"\$[^$\n]{1,80}\$|\\\(|\{cite|\{term", text)


@pytest.mark.parametrize("name", PAGES)
def test_every_picture_is_described(visit, name):
    page = visit(name).page
    undescribed = page.eval_on_selector_all(
        "article img, svg.inline-svg, .output svg:not(.icon)",
        """es => es.filter((e) => !(e.getAttribute('alt') || e.getAttribute('aria-label')))
                   .map((e) => e.outerHTML.slice(0, 80))""",
    )
    assert undescribed == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index.html", "book/glossary.html", *NOTEBOOKS])
def test_a_page_has_no_barriers(visit, name, scheme):
    opened = visit(name, scheme=scheme)
    assert opened.page.evaluate("document.documentElement.dataset.theme") == scheme
    opened.page.wait_for_timeout(500)  # until the theme has faded in
    found = Axe().run(opened.page).response["violations"]
    assert [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found] == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_moving_the_slider_changes_the_picture(visit, name):
    page = visit(name).page
    sliders = page.locator(SLIDER)
    assert sliders.count() >= 1
    for slider in sliders.all():
        figure = slider.locator("xpath=ancestor::figure")
        image, output = figure.locator("img"), figure.locator("output")
        image.scroll_into_view_if_needed()
        shown, described, value = image.screenshot(), image.get_attribute("alt"), output.text_content()
        slider.focus()
        page.keyboard.press("ArrowRight")
        assert image.screenshot() != shown
        assert image.get_attribute("alt") != described and output.text_content() != value
        assert slider.get_attribute("aria-valuetext") == output.text_content()
        page.keyboard.press("ArrowLeft")
        assert image.screenshot() == shown


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_quiz_answers_back(visit, name):
    page = visit(name).page
    questions = page.locator("form.quiz fieldset")
    assert 3 <= questions.count() <= 5
    for question in questions.all():
        said = set()
        for i, choice in enumerate(question.locator("input").all()):
            choice.check()
            (line,) = [p for p in question.locator(".feedback p").all() if p.is_visible()]
            assert line.evaluate("e => [...e.parentElement.children].indexOf(e)") == i
            said.add(line.text_content())
        assert len(said) == question.locator("input").count()
        assert any(text.startswith("✓") for text in said) and any(text.startswith("✗") for text in said)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_can_be_launched(visit, name):
    links = visit(name).page.eval_on_selector_all("a[href]", "es => es.map((e) => e.href)")
    notebook = name.replace(".html", ".ipynb")
    assert any("colab.research.google.com/github/" in link and link.endswith(notebook) for link in links)
    assert any("mybinder.org/v2/gh/" in link and notebook in unquote(link) for link in links)


@pytest.mark.parametrize("name", [name for name in NOTEBOOKS if "/solutions/" in name])
def test_answers_are_closed_until_the_reader_opens_them(visit, name):
    page = visit(name).page
    closed = page.locator("details.hide, div.toggle, .cell details")
    assert closed.count() >= 4
    answer = page.locator(".cell.tag_hide-input .cell_input").first
    assert not answer.is_visible()


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_theme_can_be_switched(visit, name):
    page = visit(name).page
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for _ in range(3):
        page.locator(".theme-switch-button").first.click()
        if page.evaluate("document.documentElement.dataset.theme") == "dark":
            break
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_links_within_the_book_lead_somewhere():
    html = {name: (SITE / name).read_text(encoding="utf-8") for name in PAGES}
    targets = {name: set(re.findall(r'\bid="([^"]+)"', text)) for name, text in html.items()}
    broken = []
    for name, text in html.items():
        for href in re.findall(r'<a\b[^>]*?\bhref="([^"]+)"', text):
            if urlparse(href).scheme or href.startswith("//"):
                continue
            path, fragment = urldefrag(urljoin("/" + name, href))
            path = unquote(path).lstrip("/")
            if path in html:
                if fragment and fragment not in targets[path]:
                    broken.append((name, href))
            elif not (SITE / path).is_file():
                broken.append((name, href))
    assert broken == []


def test_every_public_module_is_in_the_reference():
    library = SITE.parent.parent / "course_lib"
    modules = {
        ".".join(p.relative_to(library.parent).with_suffix("").parts)
        for p in library.rglob("*.py")
        if not p.name.startswith("_")
    }
    documented = set(
        re.findall(r'id="module-(course_lib[\w.]*)"', (SITE / "book/api.html").read_text(encoding="utf-8"))
    )
    packages = {".".join(p.parent.relative_to(library.parent).parts) for p in library.rglob("__init__.py")}
    assert modules == documented - packages
