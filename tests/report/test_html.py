"""The page: whole, self-contained, repeatable, and safe against names that look like HTML."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from limbeck.errors import InputError
from limbeck.report.disagreement import data_uri, disagreements
from limbeck.report.figures import curve
from limbeck.report.html import write_report
from limbeck.report.ink import inks
from limbeck.report.reading import read_arms, read_run


class _Page(HTMLParser):
    """Collects tags, headings and addresses, and checks that tags are closed in order."""

    empty = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.headings, self._open = [], [], [], []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.empty:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name == "xlink:href"]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] == ["h2"]:
            self.headings.append(data)


@pytest.fixture(scope="module")
def report(comparison, bench, tmp_path_factory):
    folder = tmp_path_factory.mktemp("html") / "comparison"
    shutil.copytree(comparison, folder)
    return write_report(folder, images=bench.pictures).read_text()


def test_a_comparison_has_every_section(report):
    page = _Page(report)
    assert page.headings == ["Results", "Training", "Predictions", "Accuracy against cost",
                             "Where student and teacher disagree", "Provenance"]  # fmt: skip
    assert report.count("<figure>") == 6
    for title in ("Arms", "Accuracy % by seed", "Paired tests", "Recipe", "Environment", "Data"):
        assert f"<summary>{title}</summary>" in report


def test_the_verdict_stands_first(report):
    verdict = report.index("kd_tuned (+3.56 points, Holm p = 0.002) beats the no-teacher arm")
    assert verdict < report.index("<table") < report.index("<figure")


def test_it_needs_no_network_and_no_script(report):
    page = _Page(report)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert "@import" not in report
    assert not re.search(r"url\((?!#)", report)


def test_figures_follow_the_color_scheme(report):
    svgs = "".join(re.findall(r"<svg.*?</svg>", report, re.S))
    colors = set(re.findall(r"#[0-9a-fA-F]{6}\b", svgs))
    assert colors == set()
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", svgs))
    light, dark = re.findall(r":root \{(.*?)\}", report, re.S)
    for scheme in (light, dark):
        assert used <= set(re.findall(r"(--[a-z0-9-]+):", scheme))


def test_the_same_files_give_the_same_bytes(report, comparison, bench, tmp_path):
    folder = tmp_path / "elsewhere"
    shutil.copytree(comparison, folder)
    assert write_report(folder, images=bench.pictures).read_text() == report


def test_a_run_without_a_teacher(tmp_path, make_run):
    make_run(tmp_path / "run", "none", 0)
    text = write_report(tmp_path / "run").read_text()
    assert "The student reaches 92.67 % accuracy on the test split with 1,170 parameters." in text
    assert _Page(text).headings == ["Results", "Training", "Predictions", "Provenance"]


def test_a_run_with_a_teacher_says_how_they_compare(tmp_path, make_run):
    make_run(tmp_path / "run", "kd", 0)
    text = write_report(tmp_path / "run").read_text()
    assert "kd on digits, seed 0" in text
    assert re.search(r"its teacher reaches 98\.22 % accuracy with 62 k; they agree on", text)
    assert "change against the teacher" in text


def test_texts_stand_where_there_are_no_images(tmp_path, make_run):
    make_run(tmp_path / "run", "kd", 0)
    text = write_report(
        tmp_path / "run", texts=lambda rows: [f"<b>text {row}</b>" for row in rows]
    ).read_text()
    assert "&lt;b&gt;text " in text
    assert "<img" not in text


def test_names_are_escaped(tmp_path, make_run):
    make_run(tmp_path / "run", "kd", 0)
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    card["classes"][0] = "<script>alert(1)</script>"
    card["data"]["source"] = "<script>alert(2)</script>"
    card["model"]["source"] = "<script>alert(3)</script>"
    (tmp_path / "run" / "card.json").write_text(json.dumps(card))
    assert "script" not in _Page(write_report(tmp_path / "run").read_text()).tags


def test_a_folder_that_is_no_run(tmp_path, make_run):
    with pytest.raises(InputError, match="no run folder"):
        write_report(tmp_path)
    make_run(tmp_path / "run", "kd", 0)
    (tmp_path / "run" / "card.json").unlink()
    with pytest.raises(InputError, match="has not come to its end"):
        write_report(tmp_path / "run")


def test_a_broken_log_names_its_line(tmp_path, make_run):
    make_run(tmp_path / "run", "kd", 0)
    log = tmp_path / "run" / "metrics.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join([*lines[:3], "{broken", *lines[3:]]))
    with pytest.raises(InputError, match="line 4"):
        write_report(tmp_path / "run")


def test_curves_are_means_over_the_seeds(comparison):
    runs = read_arms(comparison)["kd"]
    found = curve(runs, "val", "accuracy", "epoch")
    values = [[e["accuracy"] for e in run.events if e["event"] == "val"] for run in runs]
    assert found.x.tolist() == list(range(1, 21))
    assert found.mean == pytest.approx(np.mean(values, axis=0))
    assert found.deviation == pytest.approx(np.std(values, axis=0, ddof=1))


def test_disagreements_are_sorted_into_three_ways(comparison, bench):
    run = read_run(comparison / "arms" / "rkd" / "seed-0")
    groups = disagreements(run, run.card["classes"], bench.pictures, None)
    student, teacher = run.logits().argmax(-1), run.logits("teacher").argmax(-1)
    assert sum(group.count for group in groups) == (student != teacher).sum()
    first = groups[0].samples[0]
    assert groups[0].title == "The teacher is right"
    assert first.teacher == first.label == str(bench.y[first.position])
    assert first.student == str(student[first.position])
    surest = [sample.student_confidence for sample in groups[0].samples]
    assert surest == sorted(surest, reverse=True)
    shown = Image.open(io.BytesIO(base64.b64decode(first.image.split(",")[1])))
    expected = bench.pictures([first.position])[0, 0]
    assert np.asarray(shown) == pytest.approx(expected * 255, abs=0.51)


def test_images_keep_their_colors_and_shrink():
    image = np.zeros((3, 300, 200))
    image[0] = 1.0
    shown = Image.open(io.BytesIO(base64.b64decode(data_uri(image).split(",")[1])))
    assert shown.mode == "RGB"
    assert shown.size == (64, 96)
    assert shown.getpixel((5, 5)) == (255, 0, 0)


def test_arms_keep_apart_in_color_dash_or_marker():
    looks = inks(["none", *(f"arm{number}" for number in range(18)), "teacher"]).values()
    assert len({(look.color, str(look.dash)) for look in looks}) == 20
