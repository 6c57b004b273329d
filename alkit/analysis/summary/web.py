"""The executed notebook of a summary as one HTML page without scripts, under the study's title.

`alkit summary` needs this much of the package itself, the rest is its notebook's: it is imported without torch.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from alkit.config import Study
from alkit.errors import AlkitError
from alkit.errors.words import counted

_STYLE = """
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; color: #1a1a1a; background: #fff;
       max-width: 1120px; margin: 0 auto; padding: 1.5em 1.2em 4em; }
h1 { font-size: 1.8em; margin: 0.4em 0; } h2 { font-size: 1.35em; margin: 2em 0 0.5em; padding-top: 0.6em; border-top: 1px solid #ddd; }
h3 { font-size: 1.1em; margin: 1.6em 0 0.4em; } p, ul { max-width: 52em; } code { font-size: 0.92em; }
.anchor-link { display: none; } img { max-width: 100%; height: auto; }
.output_area pre { white-space: pre-wrap; font-size: 13px; }
.wide { overflow-x: auto; margin: 0.8em 0; }
table.alkit { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
table.alkit caption { text-align: left; font-weight: 600; padding: 0.3em 0; white-space: nowrap; }
table.alkit th, table.alkit td { padding: 3px 7px; border-bottom: 1px solid #e3e3e3; text-align: left; vertical-align: top; }
table.alkit th { border-bottom: 2px solid #888; vertical-align: bottom; } table.alkit .n { text-align: right; }
table.alkit td.n { white-space: nowrap; } details { margin: 0.8em 0; } summary { cursor: pointer; }
p.warn { background: #fff4d6; border-left: 4px solid #e69f00; padding: 0.4em 0.8em; }
ul.verdict { font-size: 1.07em; padding: 0.7em 1em 0.7em 2em; background: #f2f6fa; border-left: 4px solid #0072b2; }
ul.verdict li { margin: 0.25em 0; } nav ul { padding: 0; } nav li { display: inline-block; margin: 0 1.2em 0.2em 0; }
"""  # noqa: E501


def page(notebook: Path, title: str) -> str:
    """The executed notebook as one HTML page: results without code, pictures inside, no scripts, nothing fetched.

    Cells tagged `notebook-only` are left out. Before the first section stands a list of the sections.
    """
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    remove = Config(TagRemovePreprocessor={"enabled": True, "remove_cell_tags": ["notebook-only"]})
    exporter = HTMLExporter(
        template_name="basic", exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True,
        embed_images=True, config=remove,
    )  # fmt: skip
    body, _ = exporter.from_filename(str(notebook))
    sections = re.findall(r'<h2 id="([^"]*)">(.*?)<a class="anchor-link"', body)
    listed = "".join(f'<li><a href="#{place}">{name}</a></li>' for place, name in sections)
    start = body.find('<h2 id="')
    if sections:
        body = f'{body[:start]}<nav aria-label="Contents"><ul>{listed}</ul></nav>{body[start:]}'
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def made_title(study: Study) -> str:
    """A title for a study whose file gives none, from its numbers, so that it stays true when they change."""
    try:
        first = study.experiment()
    except AlkitError:
        return study.study
    start, bought = first.first_count, (first.cycle_count - 1) * first.budget
    labels = f"from {start:,} to {start + bought:,} labels" if bought else f"{start:,} labels"
    return f"{study.study}: {labels}, {counted(len(study.labels) or 1, 'method')}, {counted(len(study.seeds), 'seed')}"


def title_of(path: Path) -> str:
    """The title in the folder's study file, or one made of its numbers; without a file the folder's name."""
    try:
        study = Study.from_yaml(path / "study.yaml", check=False)
        return study.title or made_title(study)
    except AlkitError:
        return path.name
