"""The page without scripts: what runs, what waits, what is done and what failed, as plain HTML."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

LANGUAGES = ("en", "zh")
FORWARD = '<!doctype html><meta charset="utf-8"><title>musedrop</title><meta http-equiv="refresh" content="0;url=/">\n'
"""Sent with a new cookie: a redirect of a link in a mail would not carry a cookie that is SameSite=Strict."""


def choose_language(accepted: str) -> str:
    """Return "zh" where the header Accept-Language prefers Chinese to English.

    >>> choose_language("zh-CN,zh;q=0.9,en;q=0.8"), choose_language("en-GB,zh;q=0.5"), choose_language("")
    ('zh', 'en', 'en')
    """
    best, chosen = 0.0, "en"
    for part in accepted.split(","):
        tag, _, weight = part.strip().partition(";q=")
        language = tag.strip().lower().partition("-")[0]
        try:
            value = float(weight) if weight else 1.0
        except ValueError:
            continue
        if language in LANGUAGES and value > best:
            best, chosen = value, language
    return chosen


@cache
def load_texts() -> dict[str, dict[str, str]]:
    """Return the texts of the page by their keys, and each by its language."""
    texts: dict[str, dict[str, str]] = json.loads((files("agent.page") / "static" / "texts.json").read_bytes())
    return texts


def render(sections: Mapping[str, Any], language: str) -> str:
    """Return the whole page. `sections`: as the live page gets them."""
    texts = {key: text[language] for key, text in load_texts().items()}
    texts["end"] = "_zh" if language == "zh" else ""
    head = sections.get("head", {})
    end = texts["end"]
    alarms = [text for text in (head.get(f"absence{end}"), *head.get(f"problems{end}", ())) if text]
    parts = [
        f'<!doctype html><html lang="{language}"><meta charset="utf-8"><title>musedrop</title>',
        '<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="15">',
        '<link rel="stylesheet" href="/static/page.css"><body class="plain"><h1>musedrop</h1>',
        *(f'<p class="alarm">{html.escape(text)}</p>' for text in alarms),
        _make_table(texts["now"], texts, ("name", "state", "stage", "percent", "device"), sections.get("running", ())),
        _make_table(texts["queue"], texts, ("position", "name", "state", "waiting_for"), sections.get("queue", ())),
        _make_table(
            texts["done"], texts, ("name", "finished_at", "duration_s", "engine"), sections.get("done", ()), links=True
        ),
        _make_table(
            texts["failed"],
            texts,
            ("name", "finished_at", "error_code", "error_message", "error_hint"),
            sections.get("failed", ()),
        ),
        _make_table(texts["devices"], texts, ("device", "name", "state", "job", "reason"), sections.get("devices", ())),
        _make_table(texts["ignored"], texts, ("name", "reason", "hint"), sections.get("ignored", ())),
    ]
    return "\n".join(parts) + "\n"


def _make_table(
    title: str,
    texts: Mapping[str, str],
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    *,
    links: bool = False,
) -> str:
    """Return a table with its title, "" without rows. `links`: each row has a video."""
    if not rows:
        return ""
    heads = "".join(f'<th scope="col">{html.escape(texts.get(f"col_{name}", name))}</th>' for name in columns)
    lines = "".join(_make_row(columns, row, texts["download"] if links else "", texts["end"]) for row in rows)
    return f"<h2>{html.escape(title)}</h2><table><tr>{heads}</tr>{lines}</table>"


def _make_row(columns: Sequence[str], row: Mapping[str, Any], link: str, end: str) -> str:
    told = ((row.get(f"{name}{end}") or row.get(name)) if end else row.get(name) for name in columns)
    cells = [html.escape("" if value is None else str(value)) for value in told]
    if link:
        path = f"/files/{html.escape(str(row['uid']))}/video"
        name = html.escape(row["name"])
        cells.append(f'<a href="{path}">{name}</a> <a href="{path}?download">{html.escape(link)}</a>')
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
