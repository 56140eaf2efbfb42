"""A report as one page of HTML: pictures and style inside, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import html
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from branchnets.report.content import Section, Table

#: A longer table shows so many rows; the rest is folded away.
ROWS_SHOWN = 25

_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 52rem; padding: 1rem 1rem 4rem; background: #fff; color: #1a1a1a;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; border-top: 1px solid #ccc; padding-top: 1rem; }
a { color: #005a9c; }
nav ol { margin: .5rem 0; padding-left: 1.4rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 1rem 0;
  font-size: .9rem; }
dt { color: #555; }
dd { margin: 0; min-width: 0; }
figure { margin: 1.5rem 0; }
img { display: block; max-width: 100%; height: auto; }
figcaption, .caption { font-size: .9rem; color: #333; margin: .4rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem .2rem 0; text-align: left; vertical-align: top; }
th { border-bottom: 1px solid #888; font-weight: 600; }
td { border-bottom: 1px solid #eee; }
.n { text-align: right; white-space: nowrap; }
summary { cursor: pointer; color: #005a9c; font-size: .9rem; margin: .4rem 0; }
footer { margin-top: 3rem; border-top: 1px solid #ccc; padding-top: .5rem; font-size: .85rem;
  color: #555; }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .4rem; } }
""".strip()


def render(
    title: str,
    sections: Sequence[Section],
    pictures: Mapping[str, bytes],
    header: Mapping[str, str],
    footer: str = "",
) -> str:
    """The page.

    Args:
      title: its heading.
      sections: in order.
      pictures: name of a figure -> its PNG.
      header: facts that hold for all of it, name -> text.
      footer: a line at the end.
    """
    anchors = [f"section-{number}" for number in range(1, len(sections) + 1)]
    contents = "\n".join(
        f'<li><a href="#{anchor}">{escape(section.title)}</a></li>'
        for anchor, section in zip(anchors, sections, strict=True)
    )
    facts = "\n".join(
        f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in header.items()
    )
    body = "\n".join(
        _section(anchor, section, pictures)
        for anchor, section in zip(anchors, sections, strict=True)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{_STYLE}
</style>
</head>
<body>
<h1>{escape(title)}</h1>
<dl>
{facts}
</dl>
<nav aria-label="Contents">
<ol>
{contents}
</ol>
</nav>
<main>
{body}
</main>
<footer>{escape(footer)}</footer>
</body>
</html>
"""


def escape(text: Any) -> str:
    """Text that is shown as it is, in quotes too."""
    return html.escape(str(text), quote=True)


def shown(value: Any) -> str:
    """A cell as a person reads it: four significant digits, thousands apart, None as "–"."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return str(value)
    if isinstance(value, numbers.Integral):
        return f"{int(value):,}"
    number = float(value)
    if math.isnan(number):
        return "–"
    if math.isinf(number):
        return str(number)
    if abs(number) >= 1000:
        return f"{number:,.0f}" if abs(number) < 1e7 else f"{number:.4g}"
    return f"{number:.4g}"


def _section(anchor: str, section: Section, pictures: Mapping[str, bytes]) -> str:
    parts = [f'<section id="{anchor}">', f"<h2>{escape(section.title)}</h2>"]
    paragraphs = (part.strip() for part in section.text.split("\n\n"))
    parts += [f"<p>{escape(part)}</p>" for part in paragraphs if part]
    for figure in section.figures:
        data = base64.b64encode(pictures[figure.name]).decode("ascii")
        name = escape(figure.name)
        kinds = ("png", "svg") if figure.svg else ("png",)
        links = " ".join(f'<a href="{name}.{kind}">{name}.{kind}</a>' for kind in kinds)
        parts.append(
            f'<figure id="{name}.png">\n'
            f'<img alt="{escape(figure.caption)}" src="data:image/png;base64,{data}">\n'
            f"<figcaption>{escape(figure.caption)} {links}</figcaption>\n</figure>"
        )
    parts += [_table(table) for table in section.tables]
    return "\n".join([*parts, "</section>"])


def _table(table: Table) -> str:
    name = escape(table.name)
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.headers)
    right = [all(_is_number(value) for value in column) for column in columns]
    first, rest = table.rows[:ROWS_SHOWN], table.rows[ROWS_SHOWN:]
    parts = [
        f'<div id="{name}.csv">',
        f'<p class="caption">{escape(table.caption)} <a href="{name}.csv">{name}.csv</a></p>',
        _grid(table.headers, first, right),
    ]
    if rest:
        parts += [
            f"<details><summary>{len(rest):,} more rows</summary>",
            _grid(table.headers, rest, right),
            "</details>",
        ]
    return "\n".join([*parts, "</div>"])


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, numbers.Real) and not isinstance(value, bool))


def _grid(headers: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[bool]) -> str:
    kinds = [' class="n"' if number else "" for number in right]
    head = "".join(
        f'<th scope="col"{kind}>{escape(text)}</th>'
        for kind, text in zip(kinds, headers, strict=True)
    )
    lines = [
        "".join(
            f"<td{kind}>{escape(shown(value))}</td>" for kind, value in zip(kinds, row, strict=True)
        )
        for row in rows
    ]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )
