"""The report as one HTML file that needs nothing else."""

import jinja2

from fgr_jax.report.contents import Contents


def as_html(contents: Contents) -> str:
    """Fills in the template; what comes from the data set or the file system is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fgr_jax.report", "template"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(contents=contents)
