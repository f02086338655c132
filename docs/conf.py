"""Configuration of the documentation site: sphinx-build -W -b html docs build/docs."""

import re

from sphinx.application import Sphinx

import fgr_jax  # noqa: F401  the API page needs the package to be importable

project = "fgr_jax"
author = "The fgr_jax authors"
html_title = "fgr_jax"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
smartquotes_action = "D"  # dashes only
highlight_language = "sh"
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!fgr_jax).*")]  # types of other packages are not linked

myst_heading_anchors = 3

# Docstrings set code in single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_ivar = True  # the fields of a tuple are its attributes already
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False

html_theme = "sphinx_book_theme"
html_theme_options = {
    "home_page_in_toc": True,
    "navbar_persistent": [],  # the sidebar has a search field
    "use_download_button": False,
}
html_copy_source = False


def _mark_code(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Ends the paragraph before an indented block with "::", so that it is set as code."""
    del app, what, name, obj, options
    for index in range(len(lines) - 2):
        paragraph, gap, block = lines[index : index + 3]
        if re.match(r"\S.*[^:]:$", paragraph) and not gap and block.startswith("    "):
            lines[index] += ":"


def _skip_bare_fields(
    app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object
) -> bool | None:
    """Leaves out the entries of a NamedTuple's fields, whose docstrings only number them."""
    del app, what, name, skip, options
    return True if (obj.__doc__ or "").startswith("Alias for field number") else None


def setup(app: Sphinx) -> None:
    """Connects the two functions above to autodoc."""
    app.connect("autodoc-skip-member", _skip_bare_fields)
    app.connect("autodoc-process-docstring", _mark_code, priority=400)  # before napoleon
