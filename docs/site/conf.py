"""The documentation site: the repository's own pages, read where they lie (``make docs``).

The sources are the whole checkout, so that the links between README, CONTRIBUTING and docs/ hold on
a code host and here alike. This folder has only what makes no sense on a code host.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes
from sphinx.application import Sphinx

from hiso_ray import __version__

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.append(str(HERE))  # for options_page

project = "hiso-ray"
release = __version__
root_doc = "docs/site/index"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "options_page",
]
include_patterns = ["*.md", "docs/*.md", "docs/results/*.md", "docs/site/*.md"]
exclude_patterns = [".*", "**/.*", "build", "report", "runs", "site", "hiso_ray", "tests"]

smartquotes = False  # quotes and dashes are as the pages have them
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]  # as code hosts have it: ```math
myst_heading_anchors = 4
html_math_renderer = "mathml"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
napoleon_use_ivar = True
copybutton_prompt_text = "$ "
copybutton_line_continuation_character = "\\"

html_theme = "furo"
html_title = f"hiso-ray {release}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_extra_path = ["index.html"]
html_copy_source = False
html_show_copyright = False
html_use_index = False
html_theme_options = {"top_of_page_buttons": []}


def inline_math(writer: Any, node: nodes.math) -> None:
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def block_math(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def unlink_folders(app: Sphinx, page: nodes.document) -> None:
    """The site has no page for a folder of the checkout: a link to one becomes its text."""
    here = Path(page["source"]).parent
    for link in list(page.findall(addnodes.pending_xref)):
        if link["refdomain"] != "doc" and (here / link["reftarget"]).is_dir():
            link.replace_self(link.children)


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    app.connect("doctree-read", unlink_folders)
