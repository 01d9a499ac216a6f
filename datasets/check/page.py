"""The findings as one page that opens anywhere: no script, nothing fetched, no word of where the data lie."""

import base64
import html
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from umamba_seg.datasets.findings import Finding, Report

PATH = re.compile(r"(?<![\w.\-/\\])(?:/|[A-Za-z]:\\+)(?:[^/\\'\"<>,;\n]+[/\\]+)+")  # folders may have blanks
LONGEST_VALUE = 300
STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1a1a1a; }
h1 { margin-bottom: 0; } .sub { color: #555; margin-top: .2rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 2rem; }
th, td { text-align: left; vertical-align: top; padding: .45rem .6rem; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #888; } td:first-child { white-space: nowrap; } code { font-size: .95em; }
.error { color: #a3260c; font-weight: 600; } .warning { color: #7a5200; font-weight: 600; }
.small { color: #555; font-size: .9em; } img { max-width: 100%; border: 1px solid #ddd; }
figure { margin: 1rem 0 2rem; }
.good { color: #00624b; font-weight: 600; }
@media print { body { margin: 0; max-width: none; font-size: 12px; } figure, tr { break-inside: avoid; } }
""".strip()
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(report: Report, pictures: Mapping[str, bytes] | None = None) -> str:
    """The page.

    Args:
        report: What the check found.
        pictures: By case, a PNG to show below.
    """
    name = _text(report.dataset)
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Check of {name}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n<main>",
        f'<h1>{name}</h1>\n<p class="sub">{_facts(report)}</p>',
        _verdict(report),
        _kinds(report),
        _table("Findings", report.findings),
        _table("Set aside", report.accepted),
        _pictures(pictures or {}),
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(part for part in parts if part)


def without_paths(text: str) -> str:
    """A text in which files that are named from the root on are named by themselves alone."""
    return PATH.sub("", text)


def _text(value: Any) -> str:
    text = without_paths(str(value))
    return html.escape(text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]} …")


def _facts(report: Report) -> str:
    classes = [name for name in report.labels if name not in ("background", "ignore")]
    spacing = " × ".join(f"{low:.3g}–{high:.3g}" for low, high in report.facts.get("spacing", []))
    parts = [
        f"{report.cases} cases",
        f"channels {', '.join(report.channels) or 'none'}",
        f"classes {', '.join(classes) or 'none'}",
        f"{spacing} mm" if spacing else "",
    ]
    return _text(" · ".join(part for part in parts if part))


def _verdict(report: Report) -> str:
    errors, warnings = report.count("error"), report.count("warning")
    kind = "error" if errors else "warning" if warnings else "good"
    aside = f", {len(report.accepted)} set aside" if report.accepted else ""
    return f'<p class="{kind}">{errors} errors, {warnings} warnings{aside}</p>'


def _kinds(report: Report) -> str:
    counts = Counter((finding.severity, finding.code) for finding in report.findings)
    if len(counts) < 2:
        return ""
    rows = [
        f'<tr><td class="{severity}">{severity}</td><td><code>{_text(code)}</code></td><td>{count}</td></tr>'
        for (severity, code), count in sorted(counts.items())
    ]
    head = '<tr><th scope="col">Severity</th><th scope="col">Kind</th><th scope="col">Findings</th></tr>'
    return f"<h2>Kinds of fault</h2>\n<table>\n<thead>{head}</thead>\n<tbody>\n{chr(10).join(rows)}\n</tbody>\n</table>"


def _table(title: str, findings: tuple[Finding, ...]) -> str:
    if not findings:
        return ""
    columns = ("Severity", "Kind", "Cases and files", "What is wrong, and the way out")
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    rows = "\n".join(_row(finding) for finding in findings)
    return f"<h2>{title}</h2>\n<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"


def _row(finding: Finding) -> str:
    where = "<br>".join(_text(case) for case in finding.cases)
    files = "<br>".join(f"<code>{_text(name)}</code>" for name in finding.files)
    details = [("expected", finding.expected), ("found", finding.found), ("nnU-Net", finding.nnunet)]
    notes = "; ".join(f"{name}: {_text(value)}" for name, value in details if value not in (None, "", ()))
    lines = [
        f"<div>{_text(finding.message)}</div>",
        f"<div><b>Mend:</b> {_text(finding.mend)}</div>" if finding.mend else "",
        f'<div class="small">{notes}</div>' if notes else "",
    ]
    return (
        f'<tr><td class="{finding.severity}">{finding.severity}</td><td><code>{_text(finding.code)}</code></td>'
        f'<td>{where}<div class="small">{files}</div></td><td>{"".join(lines)}</td></tr>'
    )


def _pictures(pictures: Mapping[str, bytes]) -> str:
    if not pictures:
        return ""
    figures = [
        f'<figure><img alt="Slices of {_text(case)} with its label" '
        f'src="data:image/png;base64,{base64.b64encode(content).decode()}">'
        f"<figcaption>{_text(case)}</figcaption></figure>"
        for case, content in pictures.items()
    ]
    return "<h2>Cases at fault</h2>\n" + "\n".join(figures)
