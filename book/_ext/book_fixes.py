"""What the book's pages need and its tools do not bring: drawings in the page's own colours, and visitors for printing.

- An image of class ``inline-svg`` is put into the page as SVG, so that ``currentColor`` and the theme's variables work.
- sphinx-exercise and its like register visitors for the one-page build only, which hides those for ordinary pages; the
  one-page build gets the ordinary ones as well.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx


def put_drawings_into_the_page(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Replace images of class ``inline-svg`` by their SVG, described by the image's alternative text."""
    if app.builder.format != "html":
        return
    for image in list(doctree.findall(nodes.image)):
        if "inline-svg" not in image.get("classes", []):
            continue
        svg = (Path(app.srcdir) / image["uri"]).read_text(encoding="utf-8")
        svg = re.sub(r"^.*?(?=<svg)", "", svg, flags=re.DOTALL)
        label = html.escape(image.get("alt", ""))
        classes = " ".join(image["classes"])
        svg = svg.replace("<svg", f'<svg role="img" aria-label="{label}" class="{classes}"', 1)
        image.replace_self(nodes.raw("", svg, format="html"))


def complete_visitors(app: Sphinx) -> None:
    """Let the one-page build use the visitors that extensions registered for ordinary pages."""
    handlers = app.registry.translation_handlers
    for node, visitors in handlers.get("html", {}).items():
        if "singlehtml" in handlers:
            handlers["singlehtml"].setdefault(node, visitors)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", complete_visitors, priority=1)
    app.connect("doctree-resolved", put_drawings_into_the_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
