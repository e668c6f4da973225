"""How Sphinx builds the documentation: ``sphinx-build -W -n docs docs/_build``."""

import re

import latex2mathml.converter
from docutils import nodes

import cpunorm

project = "cpunorm"
author = "The cpunorm developers"
copyright = author
version = release = cpunorm.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
default_role = "autolink"
nitpick_ignore_regex = [  # not of this site; what can be imported, but is a parameter or listed by another name
    ("py:obj", r"(torch|numpy|threadpoolctl|sklearn|dask)\b.*"),
    ("py:obj", "array|call|transform|Moments"),
]

autodoc_typehints = "none"  # the docstrings say it in words
numpydoc_show_class_members = False  # the template of classes has them
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
highlight_language = "none"  # where a block does not say
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_math_renderer = "mathml"  # browsers draw it: no script, and nothing to fetch
html_title = "cpunorm"
html_static_path = ["_static"]
html_css_files = ["figures.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5d8f", "color-brand-content": "#0b5d8f"},
    "dark_css_variables": {"color-brand-primary": "#6cb6ff", "color-brand-content": "#6cb6ff"},
}

PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}  # what includes them


def _link_inside(app, where, *rest):
    """A link to a file of the repository leads to the page that shows it."""
    text = rest[-1]
    text[0] = text[0].replace("](docs/", "](")
    for file, page in PAGES.items():
        text[0] = re.sub(rf"\]\((\.\./)?{file}", f"]({page}", text[0])


def _math(display):
    """What writes a formula as MathML."""

    def write(translator, node):
        translator.body.append(latex2mathml.converter.convert(node.astext(), display=display))
        raise nodes.SkipNode

    return write, None


def setup(app):
    """Sphinx calls this."""
    app.add_html_math_renderer("mathml", _math("inline"), _math("block"))
    app.connect("source-read", _link_inside)
    app.connect("include-read", _link_inside)
