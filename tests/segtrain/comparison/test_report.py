"""What is written of a comparison: sentences from figures, and a page that harms nobody."""

from __future__ import annotations

import base64
import copy
import io
import re
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from pseudolabel import console
from segtrain.comparison import charts, report, table

PAYLOADS = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", '"><svg onload=alert(1)>', "' onclick='x",
    "{{ 7*7 }}", "{% raw %}", "${7*7}", "javascript:alert(1)", "</style><script>alert(1)</script>",
    "</title><b>", "<!--", "]]>", "&lt;b&gt;", "a|b", "`code`", "[link](http://evil.example)", "**bold**",
    "# head", "$x^{$", "\\frac{", "x\ny", "tab\there", "\x1b[31mred", "[red]x[/red]", "=1+1", "‮evil", "猫",
    "url(http://evil.example)", "http://evil.example/x.png", "//evil.example", "a" * 300,
]  # fmt: skip


def scores(**changed: Any) -> dict[str, Any]:
    return {
        "images": 4, "miou": 0.4, "miou_interval": {"low": 0.3, "high": 0.5, "level": 0.95, "draws": 9},
        "classes_averaged": 3, "dr_recall": 0.9, "ndr_recall": 0.2,
        "fg_precision": 0.5, "parts": None, "reference": None, **changed,
    }  # fmt: skip


def row(name: str, miou: float | None, kind: str = "recipe", **changed: Any) -> dict[str, Any]:
    generated = kind == "recipe"
    return {
        "name": name, "kind": kind, "recipe": "cam.yaml" if generated else None,
        "threshold": 0.2 if generated else None,
        "threshold_key": "background.threshold" if generated else None,
        "threshold_picked": table.PICKED["train"] if generated else None, "held_out": None,
        "seconds_per_image": 0.25 if generated else None, "train": scores() if generated else None,
        "report": scores() if generated else None,
        "sweep": [
            {"threshold": t, "miou": 0.3 + t / 2, "ndr_recall": 0.5 - t, "dr_recall": 0.8, "fg_precision": 0}
            for t in (0.1, 0.2, 0.3)
        ] if generated else [],
        "network": {"images": 4, "miou": miou, "classes_averaged": 3, "iou": {"cat": miou}, "epochs": 2,
                    "checkpoint": {"name": "last", "sha256": "ab" * 32, "epoch": 2}},
        "share": None if miou is None else miou / 0.8, **changed,
    }  # fmt: skip


def document(*rows: dict[str, Any], **changed: Any) -> dict[str, Any]:
    content = {
        "candidates": list(rows) or [row("CAM", 0.5), row("crops", 0.6), row("truth", 0.8, "truth")],
        "classes": ["background", "cat", "dog"],
        "average_over": None,
        "splits": {"train": {"name": "train", "images": 9}, "report": {"name": "val", "images": 4}},
        "data": {"reader": "scenes"},
        "classifier": {"images": 4, "map": 0.9, "ap": {}, "epochs": 1},
        "references": {"report": {"sha256": "cd" * 32, "threshold": 0.25, "rule": "own"}},
        "recipes": {"CAM": {"maps": [{"method": {"name": "cam"}}], "seed": 0}},
        "versions": {"pseudolabel": "0"},
        **changed,
    }
    return {"verdict": table.verdict(content), **content}


def test_the_verdict_follows_the_figures() -> None:
    said = table.verdict(document())
    assert said[0] == (
        "The network trained on crops reaches 60.0 % mIoU on val, against 50.0 % on CAM; that is 75.0 % of "
        "the 80.0 % that the ground truth gives."
    )
    turned = table.verdict(
        document(row("CAM", 0.7), row("crops", 0.6), row("a", 0.2), row("truth", 0.8, "truth"))
    )
    assert turned[0] == (
        "The network trained on CAM reaches 70.0 % mIoU on val, against 60.0 % on crops and 20.0 % on a; "
        "that is 87.5 % of the 80.0 % that the ground truth gives."
    )


def test_the_verdict_names_who_recovers_which_region() -> None:
    rows = [
        row("CAM", 0.5, report=scores(dr_recall=0.95, ndr_recall=0.1)),
        row("crops", 0.6, report=scores(dr_recall=0.85, ndr_recall=0.4)),
        row("truth", 0.8, "truth"),
    ]
    said = table.verdict(document(*rows))
    assert (
        "Of the non-discriminative regions the masks of crops recover the most, 40.0 % (CAM 10.0 %)." in said
    )
    assert "Of the discriminative regions the masks of CAM recover the most, 95.0 % (crops 85.0 %)." in said
    assert said[-1].startswith("Thresholds were picked on train by looking at its masks")


def test_the_verdict_of_few_candidates() -> None:
    alone = document(row("CAM", 0.5, share=None))["verdict"]
    assert alone[0] == "The network trained on CAM reaches 50.0 % mIoU on val."
    truth = document(row("truth", 0.5, "truth"))["verdict"]
    assert truth == ["Only the ground truth was trained on; add a candidate to compare it with."]
    assert document(row("CAM", None))["verdict"] == truth


def test_columns_that_nobody_fills_are_left_out() -> None:
    titles = [title for title, _ in table.columns(document())]
    assert titles == [
        "training masks", "threshold", "mask mIoU", "DR-recall", "NDR-recall", "FG-precision", "s/image",
        "network mIoU", "of ground truth",
    ]  # fmt: skip
    parts = {"part_recall": 0.5, "body_recall": 0.25}
    titles = [title for title, _ in table.columns(document(row("CAM", 0.5, report=scores(parts=parts))))]
    assert titles[6:8] == ["part recall", "body recall"]
    titles = [title for title, _ in table.columns(document(row("truth", 0.5, "truth", share=None)))]
    assert titles == ["training masks", "network mIoU"]


def test_markdown_is_one_table_with_a_row_a_candidate() -> None:
    lines = table.markdown(document()).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 5
    assert rows[2] == "| CAM | 0.2 | 40.0 | 90.0 | 20.0 | 50.0 | 0.25 | 50.0 | 62.5 |"
    assert rows[4] == "| truth | - | - | - | - | - | - | 80.0 | 100.0 |"


def test_the_best_of_each_column_is_marked_and_the_truth_never() -> None:
    rows = [
        row("CAM", 0.5, seconds_per_image=0.01, report=scores(ndr_recall=0.1)),
        row("crops", 0.6, report=scores(ndr_recall=0.4)),
        row("truth", 0.8, "truth"),
    ]
    cells = report._cells(document(*rows))
    titles = [title for title, _ in table.columns(document(*rows))]
    best = {title: [line[i][1] for line in cells] for i, title in enumerate(titles)}
    assert best["network mIoU"] == [False, True, False]
    assert best["NDR-recall"] == [False, True, False]
    assert best["s/image"] == [True, False, False]
    assert best["DR-recall"] == [False, False, False]  # equal: nobody is best
    assert best["threshold"] == [False, False, False]


class Page(HTMLParser):
    """Tags with their attributes, and the text as a person reads it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def nasty() -> tuple[str, dict[str, Any]]:
    """A page whose every name is a payload."""
    rows = [row(name, 0.1 + index / 100) for index, name in enumerate(PAYLOADS)]
    for table_row, name in zip(rows, PAYLOADS, strict=True):
        table_row["network"]["iou"] = dict.fromkeys(PAYLOADS, 0.5)
        table_row["recipe"] = name
    comparison = document(
        *rows,
        classes=["background", *PAYLOADS],
        average_over=PAYLOADS,
        splits={"train": {"name": PAYLOADS[0], "images": 9}, "report": {"name": PAYLOADS[1], "images": 4}},
        recipes={name: {name: [{name: name}]} for name in PAYLOADS},
        versions={name: name for name in PAYLOADS},
    )
    grey = np.full((6, 8, 3), 128, np.uint8)
    strips = [
        report.Strip(name, tuple((other, "#800000") for other in PAYLOADS[:3]), (grey, None))
        for name in PAYLOADS
    ]
    return report.page(comparison, ["image", PAYLOADS[0]], strips), comparison


def test_names_are_text_and_nothing_else(nasty: tuple[str, dict[str, Any]]) -> None:
    html, _ = nasty
    page = Page(html)
    allowed = {
        "html", "head", "meta", "title", "style", "body", "main", "p", "h1", "h2", "div", "table", "thead",
        "tbody", "tr", "th", "td", "span", "img", "dl", "dt", "dd", "code", "details", "summary",
    }  # fmt: skip
    assert {tag for tag, _ in page.tags} <= allowed
    known = {
        "lang", "charset", "http-equiv", "content", "name", "class", "style", "src", "alt", "scope",
        "colspan",
    }  # fmt: skip
    assert {key for _, attrs in page.tags for key in attrs} <= known
    assert all(
        re.fullmatch(r"background:#[0-9A-Fa-f]{6}", a["style"] or "") for _, a in page.tags if "style" in a
    )
    text = "\n".join(page.text)
    for name in PAYLOADS:
        assert console.escape(name) in text, name
    assert all(
        letter.isprintable() or letter in "\n\u00a0" for letter in text
    )  # nothing turns the text around
    alts = [attrs["alt"] for tag, attrs in page.tags if tag == "img" and attrs["alt"]]
    for name in PAYLOADS:
        assert any(alt.endswith(console.escape(name)) for alt in alts), name


def test_the_page_asks_nobody_for_anything(nasty: tuple[str, dict[str, Any]]) -> None:
    html, _ = nasty
    page = Page(html)
    policies = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"
    ]
    sources = [attrs["src"] or "" for tag, attrs in page.tags if "src" in attrs]
    drawn = ""
    for source in sources:
        kind, data = re.fullmatch(r"data:(image/(?:svg\+xml|jpeg));base64,(.*)", source).groups()  # type: ignore[union-attr]
        content = base64.b64decode(data, validate=True)
        if kind == "image/jpeg":
            assert Image.open(io.BytesIO(content)).size == (8, 6)
        else:
            svg = content.decode()
            tree = ElementTree.fromstring(svg)
            tags = {element.tag.rpartition("}")[2] for element in tree.iter()}
            assert tags <= {"svg", "metadata", "defs", "style", "g", "path", "text", "use", "clipPath",
                            "rect", "tspan", "RDF", "Work", "type", "format"}  # fmt: skip
            drawn += "".join(tree.itertext())
            for element in tree.iter():
                for key, value in element.attrib.items():
                    if key.rpartition("}")[2] in ("href", "src"):
                        assert value.startswith("#"), value
                    assert not re.search(r"url\((?!#)", value), value
                if element.tag.endswith("style"):
                    assert "url" not in (element.text or "")
    assert "猫" in drawn
    style = html.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_markdown_and_terminal_show_names_literally(nasty: tuple[str, dict[str, Any]]) -> None:
    _, comparison = nasty
    text = table.markdown(comparison)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(PAYLOADS)
    cells = len(re.split(r"(?<!\\)\|", rows[0]))
    assert all(len(re.split(r"(?<!\\)\|", line)) == cells for line in rows)
    assert not re.search(r"(?<!\\)[<>\[\]`*]", text)
    for out in (text, table.terminal(comparison)):
        assert all(letter.isprintable() or letter == "\n" for letter in out)


def test_charts_are_the_same_every_time_and_draw_any_name() -> None:
    candidates = document()["candidates"]
    assert charts.scores(candidates) == charts.scores(copy.deepcopy(candidates))
    assert charts.thresholds(candidates, "train") == charts.thresholds(copy.deepcopy(candidates), "train")
    assert charts.thresholds([row("truth", 0.5, "truth")], "train") is None
    assert charts.colours(candidates) == [*charts.COLOURS[:2], charts.TRUTH]


def test_no_path_is_left_in_a_recipe() -> None:
    given = {
        "root": "/home/me/VOC2012/",
        "list": ["~/x/y.csv", "../a/b", "C:\\me\\z"],
        "plain": "runs/a",
        "n": 0.5,
    }
    assert table._unplaced(given) == {
        "root": "VOC2012", "list": ["y.csv", "b", "z"], "plain": "runs/a", "n": 0.5,
    }  # fmt: skip


def test_the_share_is_of_the_network_on_ground_truth() -> None:
    recipe = SimpleNamespace(threshold="recipe")
    candidate = SimpleNamespace(name="CAM", truth=False, generate={}, recipe=None, swept=None)
    for miou, truth, share in ((0.6, 0.8, 0.75), (0.6, None, None), (None, 0.8, None), (0.6, 0.0, None)):
        outcome: Any = SimpleNamespace(
            plan=candidate,
            network={"miou": miou},
            training=SimpleNamespace(epochs=1),
            threshold=None,
            sweep=None,
            seconds=None,
            masks={"train": None, "report": None},
        )
        row = table._row(SimpleNamespace(recipe=recipe), outcome, truth)  # type: ignore[arg-type]
        assert row["share"] == (None if share is None else pytest.approx(share))
        assert row["kind"] == "masks"
