"""Reports on disk: whole, self-contained, escaped; replaced as a whole or not at all."""

import base64
import csv
import dataclasses
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from branchnets.errors import ReportError
from branchnets.report import style, write
from branchnets.report.content import Figure, Section, Table
from branchnets.report.page import shown

HEADER = {"model": "a <b> net", "seed": "0"}


def _section(title="Part & whole", name="fig1", rows=3, value=0.123456789):
    drawing, axes = style.figure(2, 1.5)
    axes.plot([0, 1], [0, value])
    return Section(
        title,
        'First <script>alert("x")</script>.\n\nSecond.',
        (Figure(f"{name}_line", 'A "line" < a curve.', drawing),),
        (
            Table(
                f"{name}_table",
                "Cells & units.",
                ("class", "share", "count"),
                tuple((f"c<{i}>", value + i, 1000 * i if i else None) for i in range(rows)),
            ),
        ),
        {"share": np.float32(0.5), "missing": float("nan"), "by_block": {"a": np.arange(2)}},
    )


class _Page(HTMLParser):
    """Collects tags, and checks that they are closed in order."""

    VOID = {"meta", "img", "br", "link"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_a_report_is_a_page_with_its_pictures_and_a_file_each(tmp_path):
    index = write.write_report(tmp_path / "report", "A run", [_section()], HEADER, "The end.")
    assert index == tmp_path / "report" / "index.html"
    assert sorted(p.name for p in index.parent.iterdir()) == [
        "fig1_line.png",
        "fig1_table.csv",
        "index.html",
        "report.json",
    ]
    text = index.read_text()
    page = _Page(text)
    assert "script" not in page.tags
    assert 'First <script>alert("x")</script>.' in page.text
    assert "a <b> net" in page.text and "c<0>" in page.text and "The end." in page.text
    # Nothing is loaded: every source is inside, every link is a neighbour or on the page.
    assert not re.search(r"https?:|@import|url\(", text)
    images = [a for tag, a in page.attributes if tag == "img"]
    png = (index.parent / "fig1_line.png").read_bytes()
    assert base64.b64decode(images[0]["src"].partition(",")[2]) == png
    assert images[0]["alt"] == 'A "line" < a curve.'
    targets = {a["id"] for _, a in page.attributes if "id" in a}
    for link in (a["href"] for tag, a in page.attributes if tag == "a"):
        assert link[1:] in targets if link.startswith("#") else (index.parent / link).exists()


def test_a_figure_to_be_enlarged_is_also_a_vector_drawing(tmp_path):
    def section():
        plain = _section()
        enlarged = (dataclasses.replace(plain.figures[0], svg=True),)
        return dataclasses.replace(plain, figures=enlarged)

    folder = write.write_report(tmp_path / "r", "A run", [section()], HEADER).parent
    text = (folder / "fig1_line.svg").read_text()
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    links = [
        a["href"] for t, a in _Page((folder / "index.html").read_text()).attributes if t == "a"
    ]
    assert {"fig1_line.png", "fig1_line.svg"} <= set(links)
    assert "fig1_line.svg" in json.loads((folder / "report.json").read_text())["files"]
    again = write.render_files("A run", [section()], HEADER)["fig1_line.svg"]
    assert again.decode() == text and "<dc:date>" not in text
    plain = write.write_report(folder, "A run", [_section()], HEADER).parent
    assert not (plain / "fig1_line.svg").exists()


def test_tables_are_full_in_csv_and_short_on_the_page(tmp_path):
    index = write.write_report(tmp_path / "r", "A run", [_section()], HEADER)
    lines = list(csv.reader((index.parent / "fig1_table.csv").open()))
    assert lines[0] == ["class", "share", "count"]
    assert lines[1] == ["c<0>", "0.123456789", ""] and lines[2][2] == "1000"
    page = _Page(index.read_text())
    assert {"0.1235", "–", "1,000"} <= set(page.text)
    assert "0.123456789" not in page.text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (np.float32(0.5), "0.5"),
        (12345, "12,345"),
        (np.int64(12345), "12,345"),
        (0.98764, "0.9876"),
        (1234.5678, "1,235"),
        (2.159e9, "2.159e+09"),
        (float("inf"), "inf"),
        (True, "True"),
        ("text", "text"),
    ],
)
def test_cells_as_shown(value, text):
    assert shown(value) == text


def test_a_long_table_is_folded(tmp_path):
    index = write.write_report(tmp_path / "r", "A run", [_section(rows=30)], HEADER)
    page = _Page(index.read_text())
    assert page.tags.count("tr") == 30 + 2 and page.tags.count("details") == 1
    assert "5 more rows" in page.text
    assert (
        "details"
        not in _Page(write.render_files("", [_section(rows=25)], {})["index.html"].decode()).tags
    )


def test_the_record_is_strict_json_of_figures_by_section(tmp_path):
    write.write_report(tmp_path / "r", "A run", [_section(), Section("Words", "Only.")], HEADER)
    text = (tmp_path / "r" / "report.json").read_text()
    record = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert record["sections"] == {
        "Part & whole": {"share": 0.5, "missing": None, "by_block": {"a": [0, 1]}}
    }
    assert record["header"] == HEADER and record["files"] == sorted(os.listdir(tmp_path / "r"))


def test_the_same_report_is_the_same_bytes():
    files = [write.render_files("A run", [_section()], HEADER) for _ in range(2)]
    assert files[0] == files[1]


def test_an_older_report_is_replaced_and_foreign_files_are_kept(tmp_path):
    folder = tmp_path / "report"
    write.write_report(folder, "Old", [_section(name="fig_old")], HEADER)
    (folder / "notes.txt").write_text("mine")
    write.write_report(folder, "New", [_section(name="fig_new")], HEADER)
    names = {p.name for p in folder.iterdir()}
    assert "notes.txt" in names and "fig_new_line.png" in names
    assert "fig_old_line.png" not in names
    assert os.listdir(tmp_path) == ["report"]
    (folder / "fig_newer_line.png").write_text("my own")
    write.write_report(folder, "Newer", [_section(name="fig_newer")], HEADER)
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "fig_newer_line.png.old").read_text() == "my own"
    assert (folder / "fig_newer_line.png").read_bytes().startswith(b"\x89PNG")


def test_a_failure_leaves_the_older_report_and_nothing_else(tmp_path, monkeypatch):
    folder = tmp_path / "report"
    write.write_report(folder, "Old", [_section()], HEADER)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    original = Path.write_bytes

    def write_bytes(self, data):
        if self.name == "report.json":
            raise OSError(28, "No space left on device")
        return original(self, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(ReportError, match="cannot be written: No space left"):
        write.write_report(folder, "New", [_section(value=0.9)], HEADER)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert os.listdir(tmp_path) == ["report"]


def test_a_figure_that_cannot_be_drawn_leaves_nothing(tmp_path):
    class Broken:
        def savefig(self, *_, **__):
            raise RuntimeError("no ink")

    section = Section("S", figures=(Figure("fig1", "c", Broken()),))
    with pytest.raises(RuntimeError, match="no ink"):
        write.write_report(tmp_path / "report", "New", [section], HEADER)
    assert os.listdir(tmp_path) == []


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ReportError, match="holds no report"):
        write.check_folder(tmp_path)
    with pytest.raises(ReportError, match="holds no report"):
        write.write_report(tmp_path, "New", [_section()], HEADER)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert write.write_report(empty, "New", [_section()], HEADER).exists()


def test_names_that_cannot_be_files_are_mistakes():
    for name in ("../up", "", "a b"):
        with pytest.raises(ValueError, match="name of a file"):
            write.render_files("", [Section("S", tables=(Table(name, "", (), ()),))], {})
    twice = [_section(), _section(title="Again")]
    with pytest.raises(ValueError, match="two figures are called 'fig1_line'"):
        write.render_files("", twice, {})
    uneven = Section("S", tables=(Table("t", "", ("a", "b"), ((1,),)),))
    with pytest.raises(ValueError, match="another length"):
        write.render_files("", [uneven], {})
