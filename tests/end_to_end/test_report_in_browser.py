"""The report in a real browser: its controls, its width on a phone, and its silence on the network."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from PIL import Image

from tiny_report import benign_rows, detection_rows, gap_row, transfer_row, write_detections, write_rows
from underfire.report import write_report
from underfire.studies import gap, transfer

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>'
IDS = ("b.jpg", HOSTILE, "a.jpg")
INFO = {"classes": [HOSTILE, "x" * 80], "command": "underfire attack " + "y" * 200}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path")


@dataclass(frozen=True)
class SmallRun:
    """Three noisy images under two interpreters; the ADV² IoU falls in the order of IDS, and so does ΔL1."""

    path: Path = Path("nowhere")
    attacks: tuple[str, ...] = ("pgd", "adv2")
    info: Mapping[str, Any] = field(default_factory=lambda: INFO)

    def outcomes(self) -> pa.Table:
        rows = [
            {
                "id": id, "attack": attack, "interpreter": interpreter, "class_true": 0, "class_target": 1,
                "class_predicted": 1, "confidence": 0.9 + 0.03 * index, "success": True,
                "map_l1": 0.3 - 0.1 * index, "map_l2": 0.2, "iou_mean": 0.9 - 0.3 * index, "iou_half": 0.5,
                "iou_top15": 0.5, "map_constant": False, "target_constant": False, "repeat_l1": 0.0, "linf": 0.031,
                "success_8bit": True, "steps": 300, "reason": "budget",
            }
            for attack in self.attacks
            for interpreter in ("cam", "grad")
            for index, id in enumerate(IDS)
        ]  # fmt: skip
        return pa.Table.from_pylist(rows)

    def images(self, attack: str, interpreter: str | None = None) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
        return IDS, np.random.default_rng(0).random((3, 3, 32, 32), dtype=np.float32)

    def thetas(self, attack: str, interpreter: str | None = None) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
        raise AssertionError("images that were not bent have no flow to be drawn")

    def maps(self, attack: str, interpreter: str) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
        return IDS, np.random.default_rng(0).random((3, 7, 7), dtype=np.float32)


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
    page.route(lambda url: url != report, lambda route: route.abort())
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: noises.append(message.text))
    page.on("pageerror", lambda error: noises.append(str(error)))
    page.on("dialog", lambda dialog: (noises.append(dialog.message), dialog.dismiss()))
    page.goto(report)
    yield page
    page.close()
    assert [url for url in requests if url != report and not url.startswith("data:")] == []
    assert noises == []


def shown(page: Any) -> list[tuple[str, str]]:
    """Interpreter and id of the visible cards, in their order on the page."""
    cards = page.locator(".card:visible").all()
    return [(card.get_attribute("data-interpreter"), card.get_attribute("data-id")) for card in cards]


def test_the_slider_fades_the_maps(page: Any) -> None:
    opacity = "getComputedStyle(document.querySelector('.card .heat')).opacity"
    assert page.evaluate(opacity) == "0.55"
    page.get_by_role("slider", name="Map").focus()
    page.keyboard.press("End")
    assert page.evaluate(opacity) == "1"
    assert page.locator("output").inner_text() == "100 %"


def test_sorting_reorders_the_cards(page: Any) -> None:
    assert [id for _, id in shown(page)] == ["b.jpg", "b.jpg", HOSTILE, HOSTILE, "a.jpg", "a.jpg"]
    page.get_by_label("Sort").select_option("ΔL1, lowest first")
    assert [id for _, id in shown(page)] == ["a.jpg", "a.jpg", HOSTILE, HOSTILE, "b.jpg", "b.jpg"]
    page.get_by_label("Sort").select_option("Name")
    assert [id for _, id in shown(page)][-4:] == ["a.jpg", "a.jpg", "b.jpg", "b.jpg"]


def test_filters_hide_cards_and_say_how_many_remain(page: Any) -> None:
    page.get_by_label("Interpreter").select_option("GRAD")
    assert shown(page) == [("grad", "b.jpg"), ("grad", HOSTILE), ("grad", "a.jpg")]
    page.get_by_label("Ending").select_option("fooled, map changed")
    assert shown(page) == [("grad", "a.jpg")]
    assert page.locator("#count").inner_text() == "1 of 6 cards"


def test_pictures_are_drawn_and_named(page: Any) -> None:
    first = page.locator(".card .picture").first
    assert first.get_attribute("aria-label") == "benign picture of b.jpg under its CAM map"
    assert first.locator("use").first.bounding_box()["width"] > 100


@pytest.mark.parametrize("width", [360, 700, 1280])
def test_nothing_scrolls_sideways(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_print_opens_what_is_folded(page: Any) -> None:
    page.pdf()
    assert page.locator("details:not([open])").count() == 0


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
    write_rows(path / transfer.TABLE, [transfer_row(*pair, distance=0.1) for pair in pairs], transfer.SCHEMA)
    write_rows(path / gap.TABLE, [gap_row("adv2", HOSTILE, 0.5, 0.9)], gap.SCHEMA)
    run = SmallRun(path, attacks=("pgd", "adv2", *evading, "adv2-ensemble"))
    return write_report(run, path / "report.html").as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
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


def contrast(picture: bytes) -> float:
    """The range of grey values in a screenshot."""
    grey = np.asarray(Image.open(BytesIO(picture)).convert("L"), dtype=float)
    return float(np.ptp(grey))
