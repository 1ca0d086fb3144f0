"""The report in a real browser: its controls, its width on a phone, its silence on the network, whom it shuts out."""

import csv
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from PIL import Image

from tiny_report import (
    HOSTILE_ID,
    FakeRun,
    benign_rows,
    detection_rows,
    gap_row,
    keep_study,
    these,
    transfer_row,
    write_detections,
    write_rows,
)
from tiny_report import INFO as TOLD
from underfire.metrics.intervals import wilson
from underfire.report import write_report, write_report_of
from underfire.runs.outcomes import OUTCOMES
from underfire.studies import case_study, gap, transfers

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>'
IDS = ("b.jpg", HOSTILE, "=a.jpg")
INFO = {"classes": [HOSTILE, "x" * 80], "command": "underfire attack " + "y" * 200}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path")


@dataclass(frozen=True)
class SmallRun:
    """Three noisy images under two interpreters; the ADV² IoU falls in the order of IDS, and so does ΔL1.

    PGD fails on the last, and none of its maps is plausible.
    """

    path: Path = Path("nowhere")
    attacks: tuple[str, ...] = ("pgd", "adv2")
    info: Mapping[str, Any] = field(default_factory=lambda: INFO)

    def outcomes(self) -> pa.Table:
        rows = [
            {
                "id": id, "attack": attack, "interpreter": interpreter, "class_true": 0, "class_target": 1,
                "class_predicted": 1, "confidence": 0.9 + 0.03 * index, "success": attack != "pgd" or index < 2,
                "map_l1": 0.3 - 0.1 * index, "map_l2": 0.2, "iou_half": 0.5,
                "iou_mean": 0.1 + 0.1 * index if attack == "pgd" else 0.9 - 0.3 * index,
                "iou_top15": 0.5, "map_constant": False, "target_constant": False, "repeat_l1": 0.0, "linf": 0.031,
                "success_png": True, "steps": 300, "reason": "budget",
            }
            for attack in self.attacks
            for interpreter in ("cam", "grad")
            for index, id in enumerate(IDS)
        ]  # fmt: skip
        return pa.Table.from_pylist(rows)

    def images(
        self, attack: str, interpreter: str | None = None, only: Collection[str] | None = None
    ) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
        return these(IDS, np.random.default_rng(0).random((3, 3, 32, 32)), only)

    def thetas(
        self, attack: str, interpreter: str | None = None, only: Collection[str] | None = None
    ) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
        raise AssertionError("images that were not bent have no flow to be drawn")

    def maps(
        self, attack: str, interpreter: str, only: Collection[str] | None = None
    ) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
        return these(IDS, np.random.default_rng(0).random((3, 7, 7)), only)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(SmallRun(), tmp_path_factory.mktemp("run") / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as manager:
        browser = manager.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, report: str) -> Iterator[Any]:
    """The open report."""
    with quiet(browser, report) as page:
        yield page


@contextmanager
def quiet(browser: Any, report: str, scheme: str = "light") -> Iterator[Any]:
    """The report in a page; fails at the end if it spoke to the console or asked for anything but itself."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    requests: list[str] = []
    noises: list[str] = []
    page.route(lambda url: url != report.partition("#")[0], lambda route: route.abort())
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: noises.append(message.text))
    page.on("pageerror", lambda error: noises.append(str(error)))
    page.on("dialog", lambda dialog: (noises.append(dialog.message), dialog.dismiss()))
    page.goto(report)
    yield page
    page.close()
    own = (report.partition("#")[0], "data:", "blob:")  # the page, its pictures, and the answers that it saves
    assert [url for url in requests if not url.startswith(own)] == []
    assert noises == []


def shown(page: Any) -> list[str]:
    """Ids of the cards, in their order on the page."""
    return [card.get_attribute("data-id") for card in page.locator(".card").all()]


def active(page: Any) -> str:
    """The text of the element that has the focus."""
    text: str = page.evaluate("document.activeElement.textContent.trim()")
    return text


def violations(page: Any) -> list[Any]:
    """What axe-core finds wrong: rules and elements."""
    found = axe.Axe().run(page).response["violations"]
    return [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]


def test_the_slider_fades_the_maps(page: Any) -> None:
    opacity = "getComputedStyle(document.querySelector('.card .heat')).opacity"
    assert page.evaluate(opacity) == "0.8"
    page.get_by_role("slider", name="Map").focus()
    page.keyboard.press("End")
    assert page.evaluate(opacity) == "1"
    assert page.locator(".toolbar output").inner_text() == "100 %"


def test_sorting_reorders_the_cards(page: Any) -> None:
    """The map distances of IDS fall in their order."""
    assert shown(page) == [HOSTILE, "=a.jpg", "b.jpg"]
    page.get_by_label("Sort").select_option("Nearest map first")
    assert shown(page) == ["=a.jpg", HOSTILE, "b.jpg"]
    page.get_by_label("Sort").select_option("Farthest map first")
    assert shown(page) == ["b.jpg", HOSTILE, "=a.jpg"]
    page.get_by_label("Sort").select_option("Name")
    assert shown(page)[-1] == "b.jpg"


def test_filters_leave_cards_and_say_how_many(page: Any) -> None:
    ending = page.get_by_role("combobox", name="Ending")
    ending.select_option("fooled, nobody warned")
    assert shown(page) == [HOSTILE, "b.jpg"]
    ending.select_option("fooled, map changed")
    assert shown(page) == ["=a.jpg"]
    assert page.get_by_role("status").last.inner_text() == "1 of 1 images"
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function("document.getElementById('count').textContent === '3 of 3 images'")
    page.get_by_role("combobox", name="Attack").select_option("PGD")
    page.get_by_role("combobox", name="Interpreter").select_option("GRAD")
    ending.select_option("classifier not fooled")
    assert shown(page) == ["=a.jpg"]


def test_a_number_leads_to_the_images_that_it_counts(page: Any) -> None:
    page.locator(".number a").click()
    assert shown(page) == [HOSTILE, "b.jpg"]
    assert page.get_by_role("combobox", name="Interpreter").input_value() == "cam"
    assert page.locator("#gallery").bounding_box()["y"] == pytest.approx(0, abs=2)
    page.get_by_role("link", name="1 fooled, map changed").last.click()
    page.wait_for_function("document.querySelectorAll('.card').length === 1")
    assert shown(page) == ["=a.jpg"]
    assert page.get_by_role("combobox", name="Interpreter").input_value() == "grad"


def test_twelve_cards_are_drawn_and_more_are_asked_for(browser: Any, tmp_path: Path) -> None:
    report = write_report(FakeRun(tuple(map(str, range(30))), side=16), tmp_path / "report.html").as_uri()
    with quiet(browser, report) as page:
        assert len(shown(page)) == 12
        page.get_by_role("button", name="Show 12 more of 18").click()
        assert len(shown(page)) == 24
        assert active(page) == shown(page)[12]
        page.get_by_role("button", name="Show 6 more of 6").click()
        assert len(shown(page)) == 30
        assert page.locator("#more").is_hidden()
        page.get_by_label("Sort").select_option("Name")
        assert len(shown(page)) == 12


def test_the_first_screen_holds_the_verdict_and_its_pictures(page: Any) -> None:
    for selector in ("h1", ".number", ".lead .picture", ".terms"):
        box = page.locator(selector).last.bounding_box()
        assert box["y"] + box["height"] < 900, selector
    assert page.locator(".lead .picture").count() == 3 * 3


def test_pictures_are_drawn_and_named(page: Any) -> None:
    first = page.locator(".card .picture").nth(3)
    assert first.get_attribute("aria-label") == f"benign picture of {HOSTILE} under its CAM map"
    assert [image.evaluate("each => each.naturalWidth > 0") for image in first.locator("img").all()] == [True, True]
    assert first.bounding_box()["width"] > 60


@pytest.mark.parametrize("width", [360, 700, 1280])
def test_nothing_scrolls_sideways(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_paper_is_white_and_one_page_without_a_control(browser: Any, report: str) -> None:
    with quiet(browser, report, "dark") as page:
        background = "getComputedStyle(document.body).backgroundColor"
        assert page.evaluate(background) == "rgb(20, 19, 18)"
        page.emulate_media(media="print")
        assert page.evaluate(background) == "rgb(255, 255, 255)"
        for control in ("input", "select", "button", "nav", ".skip", "dialog", ".card"):
            assert page.locator(f"{control}:visible").count() == 0, control
        assert page.locator("h1:visible, .number:visible, .terms:visible").count() == 3
        assert len(re.findall(rb"/Type\s*/Page[^s]", page.pdf(format="A4"))) == 1


def test_the_first_key_leads_past_the_index(page: Any) -> None:
    page.keyboard.press("Tab")
    assert active(page) == "Skip to the verdict"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('nav')") is None
    page.get_by_role("navigation", name="Sections").get_by_role("link", name="Image by image").click()
    assert page.locator("#gallery").bounding_box()["y"] == pytest.approx(0, abs=2)


# ------------------------------------------------------------------ one image


def test_an_image_is_viewed_by_mouse_and_left_by_key(page: Any) -> None:
    """Its pictures and numbers are there, and the focus returns."""
    page.locator(".card .picture").first.click()
    viewer = page.get_by_role("dialog")
    assert viewer.get_by_role("heading", level=2).inner_text() == f"{HOSTILE} image 1 of 3"
    assert viewer.locator(".maps .picture").count() == 3 * 3
    assert viewer.locator(".numbers tbody tr").count() == 2 * 2
    assert viewer.get_by_text("amplified 16 times around grey").count() == 1
    assert page.url.endswith(f"#image={quote(HOSTILE, safe='()')}")
    page.keyboard.press("Escape")
    assert viewer.count() == 0
    page.wait_for_function("!location.hash")
    assert active(page) == HOSTILE


def test_keys_and_buttons_lead_through_the_images_that_the_filter_leaves(page: Any) -> None:
    page.get_by_role("combobox", name="Ending").select_option("fooled, map plausible")
    page.locator("#cards h3 a").first.focus()
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    title = page.locator("#viewer-title")
    assert title.inner_text() == f"{HOSTILE} image 1 of 2"
    page.keyboard.press("ArrowRight")
    assert title.inner_text() == "b.jpg image 2 of 2"
    page.get_by_role("button", name="Next").click()
    assert title.inner_text() == f"{HOSTILE} image 1 of 2"
    page.keyboard.press("ArrowLeft")
    assert title.inner_text() == "b.jpg image 2 of 2"
    slider = page.get_by_role("dialog").get_by_role("slider")
    slider.focus()
    page.keyboard.press("ArrowRight")  # moves the slider alone
    assert title.inner_text() == "b.jpg image 2 of 2"
    assert slider.input_value() == "81"
    page.get_by_role("button", name="Close").click()
    assert page.locator(".toolbar .fader").input_value() == "81"
    assert active(page) == HOSTILE


def test_an_image_is_viewed_by_address(browser: Any, report: str) -> None:
    with quiet(browser, f"{report}#image=%3Da.jpg") as page:
        assert page.locator("#viewer-title").inner_text() == "=a.jpg image 2 of 3"
        page.evaluate("location.hash = ''")
        page.get_by_role("dialog").wait_for(state="hidden")
    for nothing in ("#image=%E0%A4%A", "#image=javascript:alert(1)", "#image="):
        with quiet(browser, report + nothing) as page:
            assert page.get_by_role("dialog").count() == 0


def test_attacks_without_pictures_are_listed_with_the_image(browser: Any, grown: str) -> None:
    with quiet(browser, f"{grown}#image=b.jpg") as page:
        lines = page.get_by_role("dialog").locator(".numbers tbody tr").all_inner_texts()
        assert [line.split("\t")[1] for line in lines if line.startswith("CAM")] == [
            "PGD", "ADV²", "ADV² evading median 3×3", "ADV² evading 2 bits", "ADV² evading feature squeezing",
            "ADV² on the ensemble",
        ]  # fmt: skip
        assert lines[4].split("\t")[4:] == ["0.900", "0.900", "0.300", "–"]


# ------------------------------------------------------------------ blinded review


def test_a_review_does_not_tell_until_it_is_over(page: Any) -> None:
    """From the start to the table of answers: balanced, without a trace of what is shown, and scored as it should."""
    page.get_by_role("button", name="Blinded review").click()
    review = page.get_by_role("dialog")
    assert review.get_by_label("How many").input_value() == "6"
    review.get_by_role("button", name="Start").click()
    seen = []
    for number in range(6):
        assert review.get_by_role("status").inner_text().startswith(f"Map {number + 1} of 6, by ")
        assert active(page) == "Blinded review" if number == 0 else True
        picture = review.get_by_role("img")
        assert picture.get_attribute("aria-label") == f"Map {number + 1} of 6"
        markup = review.evaluate("each => each.querySelector('.item').outerHTML")
        markup = re.sub('src="data:[^"]*"', "", markup)
        assert not any(word in markup for word in ("pgd", "adv2", "PGD", "ADV", ".jpg", "script", "data-", "title="))
        assert "#" not in page.url
        seen.append(picture.locator("img.heat").get_attribute("src"))
        page.keyboard.press("b" if number % 2 else "a")
        if number == 3:
            page.keyboard.press("u")
            assert review.get_by_role("status").inner_text().startswith("Map 4 of 6")
            review.get_by_role("button", name="Benign").click()
    with page.expect_download() as saving:
        review.get_by_role("button", name="Save answers").click()
    assert saving.value.suggested_filename == "review-maps-over-pictures-seed-0.csv"
    text = Path(saving.value.path()).read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert list(rows[0]) == ["item", "image", "interpreter", "shown", "answer", "correct", "milliseconds"]
    assert [row["answer"] for row in rows] == ["attacked", "benign"] * 3
    assert sorted(row["shown"] for row in rows).count("benign") == 3
    assert {row["shown"] for row in rows} == {"benign", "pgd", "adv2"}
    assert {(row["image"], row["interpreter"]) for row in rows} == {
        (image, interpreter) for image in ("b.jpg", HOSTILE, "'=a.jpg") for interpreter in ("cam", "grad")
    }
    right = [(row["answer"] == "attacked") == (row["shown"] != "benign") for row in rows]
    assert [row["correct"] for row in rows] == [str(each).lower() for each in right]
    assert all(0 <= int(row["milliseconds"]) < 600_000 for row in rows)
    low, high = (round(100 * each) for each in wilson(sum(right), 6))
    assert review.get_by_role("status").inner_text() == (
        f"You were right on {sum(right)} of 6 maps: {round(100 * sum(right) / 6)} % "
        f"(95 % interval {low}–{high} %). Guessing gives 50 %."
    )
    benign = [each for each, row in zip(right, rows, strict=True) if row["shown"] == "benign"]
    assert review.get_by_role("row").nth(1).inner_text().startswith(f"Benign\t{sum(benign)} of 3\t")
    names = page.evaluate(
        "rows => rows.map(({ image, interpreter, shown }) => [...document.querySelectorAll('#cards .card')]"
        ".find(({ dataset }) => dataset.id === image.replace(/^'/, ''))"
        ".querySelector(`[data-interpreter=${interpreter}] [data-attack=${shown}] .heat`).getAttribute('src'))",
        rows,
    )
    assert seen == names


def test_reviews_are_drawn_from_the_seed_whatever_the_gallery_shows(page: Any) -> None:
    def drawn(seed: str, view: str) -> list[str]:
        page.get_by_role("button", name="Blinded review").click()
        review = page.get_by_role("dialog")
        review.get_by_label("Drawn from seed").fill(seed)
        review.get_by_label("How many").fill("4")
        review.get_by_label("Show").select_option(view)
        review.get_by_role("button", name="Start").click()
        seen = []
        while review.get_by_role("progressbar").count():
            seen.append(review.locator(".shown img").last.get_attribute("src"))
            assert review.locator(".shown img").count() == (1 if view == "maps alone" else 2)
            page.keyboard.press("a")
        review.get_by_role("button", name="Start again").click()
        review.get_by_role("button", name="Close").click()
        return seen

    first = drawn("7", "maps alone")
    page.get_by_label("Sort").select_option("Name")
    page.get_by_role("combobox", name="Interpreter").select_option("CAM")
    assert len(first) == 4
    assert drawn("7", "maps over their pictures") == first
    assert drawn("8", "maps over their pictures") != first


def test_a_review_that_was_closed_goes_on_where_it_was(page: Any) -> None:
    page.get_by_role("button", name="Blinded review").click()
    page.get_by_role("button", name="Start").click()
    page.get_by_role("button", name="Attacked").click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Blinded review").click()
    assert page.get_by_role("dialog").get_by_role("status").inner_text().startswith("Map 2 of 6")


# ------------------------------------------------------------------ nothing to show, and nobody shut out


@pytest.mark.parametrize("attacks", [(), ("adv2-evading-fs",)])
def test_runs_without_pictures_say_so(browser: Any, attacks: tuple[str, ...], tmp_path: Path) -> None:
    class Bare(SmallRun):
        def outcomes(self) -> pa.Table:
            return super().outcomes() if self.attacks else SmallRun().outcomes().slice(0, 0)

    report = write_report(Bare(attacks=attacks), tmp_path / "report.html").as_uri()
    with quiet(browser, report) as page:
        said = "No attack of this run has pictures" if attacks else "This run contains no outcome yet"
        assert page.get_by_text(said).is_visible()
        assert page.locator("dialog, form").count() == 0


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.extended)])
def test_axe_finds_no_obstacle(browser: Any, grown: str, scheme: str) -> None:
    with quiet(browser, grown, scheme) as page:
        assert violations(page) == []
        page.get_by_text("Numbers and changes").first.click()
        page.get_by_text("All metrics").click()
        assert violations(page) == []
        page.locator("#cards a").first.click()
        assert violations(page) == []
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Blinded review").click()
        assert violations(page) == []
        page.get_by_role("button", name="Start").click()
        assert violations(page) == []
        while page.locator(".item").is_visible():
            page.keyboard.press("a")
        assert violations(page) == []


# ------------------------------------------------------------------ a run with all that studies add


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a run with adaptive attacks, detections, transfer and gap."""
    path = tmp_path_factory.mktemp("grown")
    evading = [f"adv2-evading-{name}" for name in ("fs:median:3", "fs:bits:2", "fs")]
    attackers = [("pgd", None), *((name, made) for name in ("adv2", *evading) for made in ("cam", "grad"))]
    rows = []
    for detector in ("fs:bits:2", "fs", "consistency:cam:noise", "consistency:cam", HOSTILE):
        rows += benign_rows(detector)
        for attack, made in attackers:
            rows += detection_rows(detector, attack, made, scores=[0.5, 2.0, 3.0])
    write_detections(path, rows)
    pairs = [(source, shown) for source in ("cam", "grad", None) for shown in ("cam", "grad")]
    write_rows(path / transfers.TABLE, [transfer_row(*pair, distance=0.1) for pair in pairs], transfers.SCHEMA)
    write_rows(path / gap.TABLE, [gap_row("adv2", HOSTILE, 0.5, 0.9)], gap.SCHEMA)
    run = SmallRun(path, attacks=("pgd", "adv2", *evading, "adv2-ensemble"))
    return write_report(run, path / "report.html").as_uri()


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.extended)])
def test_the_parts_of_studies_are_drawn(browser: Any, grown: str, scheme: str) -> None:
    with quiet(browser, grown, scheme) as page:
        for section, pictures in (("detection", 3), ("transfer", 1), ("gap", 1)):
            shown = page.locator(f"#{section}")
            assert shown.locator("img").count() == pictures
            for picture in shown.locator("img").all():
                picture.scroll_into_view_if_needed()
                assert picture.evaluate("each => each.complete && each.naturalWidth") > 100
                assert contrast(picture.screenshot()) > 60
            assert contrast(shown.screenshot()) > 100


@pytest.mark.parametrize("width", [360, 1280])
def test_wide_tables_scroll_by_keyboard_and_the_page_does_not(browser: Any, grown: str, width: int) -> None:
    with quiet(browser, grown) as page:
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        table = page.get_by_role("region", name="Detectors against attackers")
        table.focus()
        assert table.evaluate("each => each === document.activeElement && each.scrollWidth > each.clientWidth") or (
            width == 1280
        )
        first = table.locator("tbody th").nth(1)
        before = first.bounding_box()["x"]
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        if width == 360:
            page.wait_for_function("each => each.scrollLeft > 0", arg=table.element_handle())
        assert first.bounding_box()["x"] == pytest.approx(before, abs=3)  # the names stay in sight


# ------------------------------------------------------------------ a folder of studies


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of studies that attacked, detected, transferred and classified, and of one that is not finished."""
    folder = tmp_path_factory.mktemp("studied")
    run = FakeRun(("a.png", HOSTILE_ID), side=32, info={**TOLD, "model": {**TOLD["model"], "fingerprint": "f0"}})
    for name in ("effectiveness", "evasiveness", "transfer", "gap", "case-study", "spatial"):
        keep_study(run, folder / name)
    (folder / "spatial" / OUTCOMES).unlink()
    attackers = (("pgd", None), ("adv2", "cam"), ("adv2", "grad"))
    rows = [row for attack in attackers for row in detection_rows("fs", *attack, scores=[0.5, 2.0])]
    write_detections(folder / "evasiveness", benign_rows("fs") + rows)
    pairs = [(source, shown) for source in ("cam", "grad", None) for shown in ("cam", "grad")]
    table = [transfer_row(*pair, distance=0.1) for pair in pairs]
    write_rows(folder / "transfer" / transfers.TABLE, table, transfers.SCHEMA)
    write_rows(folder / "gap" / gap.TABLE, [gap_row("adv2", "cam", 0.5, 0.9)], gap.SCHEMA)
    reported = [{"id": str(i), "class_true": i, "class_predicted": 0} for i in range(3)]
    write_rows(folder / "case-study" / case_study.PREDICTIONS, reported, case_study.PREDICTION_COLUMNS)
    return write_report_of(folder).as_uri()


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.extended)])
def test_studies_are_shown_without_obstacle(browser: Any, studied: str, scheme: str) -> None:
    with quiet(browser, studied, scheme) as page:
        assert violations(page) == []
        links = [link.get_attribute("href") for link in page.locator("nav a").all()]
        assert links == [f"#{each.get_attribute('id')}" for each in page.locator("main > section").all()]
        assert {"#detection", "#transfer", "#gap", "#studies", "#gallery"} <= set(links)
        assert page.locator("#study-spatial .notice").inner_text() == "Not finished yet; run it again."
        assert page.locator("#study-case-study th").filter(has_text="<script>alert(1)</script>").count() == 1
        pictures = page.locator(".study img").all()
        assert len(pictures) >= 7
        for picture in pictures:
            picture.scroll_into_view_if_needed()
            assert picture.evaluate("each => each.complete && each.naturalWidth") > 100
            assert contrast(picture.screenshot()) > 60


@pytest.mark.parametrize("width", [360, 1280])
def test_no_study_widens_the_page(browser: Any, studied: str, width: int) -> None:
    with quiet(browser, studied) as page:
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == width


def contrast(picture: bytes) -> float:
    """The range of grey values in a screenshot."""
    grey = np.asarray(Image.open(BytesIO(picture)).convert("L"), dtype=float)
    return float(np.ptp(grey))
