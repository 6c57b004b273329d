"""How a summary is shown in its notebook: text, tables and figures; `web` makes the HTML page of it."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable, Iterable
from functools import wraps
from io import BytesIO
from typing import Any

import pandas as pd
from IPython.display import Image, display
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from alkit.analysis.plots.style import in_style
from alkit.analysis.summary.study import StudyFolder
from alkit.analysis.summary.tables import Format, text
from alkit.errors import AlkitError
from alkit.storage.files import atomic_write, write_text

SHOWN_ROWS = 200
"""Rows of a table that are shown; its CSV has them all."""

MOST_DIAGRAMS = 12
"""Labels of which reliability diagrams and bought images are shown."""
MOST_UNFOLDED = 20
"""Rows of a table that only some readers need; a longer one is folded."""

Section = Callable[[StudyFolder], None]


def section(function: Section) -> Section:
    """A section that does not apply leaves one line: no run has finished, or a file that it needs is not there."""

    @wraps(function)
    def shown(study: StudyFolder) -> None:
        if not len(study.frame) and function.__name__ not in ("what_it_is", "what_there_is"):
            say("Nothing to show yet: no run of this study has finished.")
            return
        try:
            function(study)
        except AlkitError as error:
            say(f"Not shown: {error}")

    return shown


def say(*lines: str, warn: bool = False, code: bool = False) -> None:
    """Show lines of plain text, each a paragraph; whatever they hold is text, but for `code` in backticks."""
    kind, shown = ' class="warn"' if warn else "", _code if code else html.escape
    _show("".join(f"<p{kind}>{shown(line)}</p>" for line in lines), "\n".join(lines))


def explain(title: str, *lines: str) -> None:
    """Show lines of the kit's own, `*emphasis*` and code marked, after a click; a table's columns are explained so."""
    marked = "".join(f"<li>{_marked(line)}</li>" for line in lines)
    _show(f"<ul>{marked}</ul>", "\n".join(lines), title)


def _code(line: str) -> str:
    """A line as HTML with the code of Markdown."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(line))


def _marked(line: str) -> str:
    """A line as HTML with the emphasis and code of Markdown."""
    return re.sub(r"\*([^*]+)\*", r"<em>\1</em>", _code(line))


def items(lines: list[str], verdict: bool = False, folded: str = "") -> None:
    """Show lines of plain text as a list (`folded`: after a click on these words); that of a `verdict` stands out."""
    if lines:
        kind = ' class="verdict"' if verdict else ""
        marked = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
        _show(f"<ul{kind}>{marked}</ul>", "\n".join(lines), folded)


def heading(line: str, level: int = 3) -> None:
    """Show a heading made of text from the records."""
    _show(f"<h{level}>{html.escape(line)}</h{level}>", line)


def table(
    study: StudyFolder, name: str, frame: pd.DataFrame, caption: str, formats: dict[str, Format], folded: bool = False,
    only_saved: tuple[str, ...] = (),
) -> None:  # fmt: skip
    """Show a table (`folded`: after a click, which needs no script) and save the same text as `tables/NAME.csv`.

    The columns `only_saved` are in the file alone.
    """
    shown = text(frame, formats)
    write_text(study.out_dir / "tables" / f"{name}.csv", shown.to_csv(index=False))
    shown = shown.drop(columns=list(only_saved))
    if "method" not in shown:  # the file's name for what a run is called; on the page labels are those of images
        shown = shown.rename(columns={"label": "method"})
    more = len(shown) - SHOWN_ROWS
    note = f" (the first {SHOWN_ROWS} of {len(shown)} rows; all are in tables/{name}.csv)" if more > 0 else ""
    shown = shown.head(SHOWN_ROWS)
    _show(as_html(shown, caption + note), shown.to_string(index=False), caption if folded else "")


def as_html(shown: pd.DataFrame, caption: str) -> str:
    """A table of text as HTML; columns of numbers are set to the right, and have a true minus."""
    numbers = [name for name in shown.columns if _numeric(shown[name])]
    places = [' class="n"' if name in numbers else "" for name in shown.columns]
    shown = shown.assign(**{name: shown[name].str.replace(r"^-", "−", regex=True) for name in numbers})

    def row(kind: str, values: Iterable[Any]) -> str:
        cells = (f"<{kind}{place}>{html.escape(str(v))}</{kind}>" for place, v in zip(places, values, strict=True))
        return f"<tr>{''.join(cells)}</tr>"

    body = "".join(row("td", values) for values in shown.itertuples(index=False, name=None))
    return (
        f'<div class="wide"><table class="alkit"><caption>{html.escape(caption)}</caption>'
        f"<thead>{row('th', shown.columns)}</thead><tbody>{body}</tbody></table></div>"
    )


def figure(study: StudyFolder, name: str, fig: Figure, alt: str, folded: str = "") -> None:
    """Show a figure (`folded`: after a click on these words) and save the same picture as `figures/NAME.png`.

    `figures/NAME.pdf` is the same again for a journal: its lines and letters, at the width and size of print.
    """
    stream, vector = BytesIO(), BytesIO()
    with in_style():
        fig.savefig(stream, format="png", dpi=1.5 * fig.dpi, metadata={"Software": None})
        fig.set_layout_engine("none")  # as it was just laid out
        fig.savefig(vector, format="pdf", metadata={"CreationDate": None, "Title": alt})
    plt.close(fig)
    picture = _smaller(stream)
    for ending, content in (("png", picture), ("pdf", vector.getvalue())):
        with atomic_write(study.out_dir / "figures" / f"{name}.{ending}") as file:
            file.write(content)
    width = round(fig.get_figwidth() * fig.dpi)
    if not folded:
        display(Image(data=picture, format="png", width=width, alt=alt))
        return
    source = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    _show(f'<img width="{width}" alt="{html.escape(alt)}" src="{source}">', folded, folded)


def _smaller(stream: BytesIO) -> bytes:
    """The same picture in 256 colours: a third of the bytes, and no difference that can be seen."""
    from PIL import Image as Picture

    smaller = BytesIO()
    picture = Picture.open(stream).convert("RGB")
    few = picture.quantize(256, Picture.Quantize.MAXCOVERAGE, kmeans=2, dither=Picture.Dither.NONE)
    few.save(smaller, "png", optimize=True)
    return smaller.getvalue()


def _show(marked: str, plain: str, folded: str = "") -> None:
    """Show HTML, or where there is none plain text; `folded`: after a click on these words."""
    if folded:
        marked = f"<details><summary>{html.escape(folded)}</summary>{marked}</details>"
    display({"text/html": marked, "text/plain": plain}, raw=True)


def _numeric(column: Any) -> bool:
    known = pd.to_numeric(column[~column.isin(["", "–"])], errors="coerce")
    return bool(len(column)) and bool(known.notna().all())
