"""The report: verdict words, escaping, partial and empty runs, weight."""

import re
from base64 import b64decode
from collections.abc import Collection
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest
from PIL import Image

from tiny_report import (
    FLOWING,
    HOSTILE_CLASS,
    HOSTILE_ID,
    INFO,
    FakeRun,
    Tags,
    blob,
    drawn_from,
    outcome,
    picture,
    render,
    table,
    these,
)
from underfire.core.io import rows_where
from underfire.report import figures, write_report
from underfire.report.changes import Bending, changes_of
from underfire.report.figures import Encoding
from underfire.report.gallery import TOGETHER, collect, encoding_of
from underfire.report.lead import Lead, LeadCell, LeadRow
from underfire.report.sections import classes, distances
from underfire.report.tables import AVERAGES, AVERAGES_COLUMNS, averages, tabulate
from underfire.report.verdict import judge, missing_parts
from underfire.report.view import as_text
from underfire.report.wording import HIDING, SHOWING
from underfire.runs.outcomes import summarise


@pytest.fixture
def run() -> FakeRun:
    return FakeRun((HOSTILE_ID, *(f"photo-{number}.jpg" for number in range(11))))


def verdict_of(*endings: tuple[bool, float], pgd: int = 0) -> Any:
    """The verdict on hand-made ADV² outcomes (success, IoU), and so many PGD outcomes with changed maps."""
    rows = [
        outcome(str(index), "adv2", "cam", success=success, iou_mean=iou)
        for index, (success, iou) in enumerate(endings)
    ]
    rows += [outcome(str(index), "pgd", "cam", iou_mean=0.2) for index in range(pgd)]
    (verdict,) = judge(table(rows))
    return verdict


def test_every_ending_is_counted_once() -> None:
    verdict = verdict_of((True, 0.9), (True, 0.9), (True, 0.9), (True, 0.2), (False, 0.9), pgd=5)
    adv2, pgd = verdict.tallies
    assert (adv2.plausible, adv2.endings["changed"], adv2.failed) == (3, 1, 1)
    assert (pgd.plausible, pgd.endings["changed"], pgd.failed) == (0, 5, 0)
    assert verdict.sentences == (
        "ADV² fooled the classifier on 4 of 5 images and kept the map plausible on 3 of those 4 (75 %).",
        "PGD fooled the classifier on 5 of 5 images and left the map plausible on 0 (0 %).",
    )


@pytest.mark.parametrize(
    ("plausible", "n", "headline"),
    [
        (60, 60, "CAM would not have warned you."),
        (70, 100, "CAM would mostly not have warned you."),
        (30, 100, "CAM would mostly have warned you."),
        (0, 60, "CAM would have warned you."),
        (16, 16, "CAM would mostly not have warned you; whether nearly always is undecided: about 35 images would "
                 "decide it."),
        (1, 16, "CAM would mostly have warned you; whether nearly always is undecided: about 246 images would "
                "decide it."),
        (3, 4, "Whether CAM would have warned you is undecided on 4 images: about 16 images would decide it."),
        (1, 1, "Whether CAM would have warned you is undecided on 1 image: about 4 images would decide it."),
        (8, 16, "Whether CAM would have warned you is undecided on 16 images: at this share more images will not "
                "decide it."),
    ],
)  # fmt: skip
def test_the_headline_claims_what_the_interval_of_the_share_allows(plausible: int, n: int, headline: str) -> None:
    verdict = verdict_of(*[(True, 0.9)] * plausible, *[(True, 0.1)] * (n - plausible))
    assert verdict.headline == headline


def test_so_many_images_decide_of_which_as_many_are_fooled() -> None:
    """12 of 16 fooled: it takes 16 fooled ones, so 22 to be attacked."""
    verdict = verdict_of(*[(True, 0.9)] * 9, *[(True, 0.1)] * 3, *[(False, 0.1)] * 4)
    assert (
        verdict.headline
        == "Whether CAM would have warned you is undecided on 12 images: about 22 images would decide it."
    )


def test_maps_that_did_not_move_warn_nobody() -> None:
    rows = [
        outcome(str(i), "adv2", "mask", iou_mean=0.1, judgement="unchanged" if i else "plausible") for i in range(40)
    ]
    (verdict,) = judge(table(rows))
    assert verdict.headline == "MASK would not have warned you."
    assert verdict.sentences[0].endswith("kept the map plausible on 40 (100 %), 39 of them to within its own noise.")


def test_where_there_is_nothing_to_see_images_are_counted_apart() -> None:
    """In headline, sentence, tally and caution."""
    blank = {"judgement": "nothing to see", "iou_mean": None}
    rows = [outcome(str(i), "adv2", "mask", **(blank if i < 3 else {})) for i in range(43)]
    (verdict,) = judge(table(rows))
    (tally,) = verdict.tallies
    assert (tally.fooled, tally.seen, tally.plausible, tally.endings["nothing to see"]) == (43, 40, 40, 3)
    assert verdict.headline == "MASK would not have warned you."
    assert verdict.sentences[0] == (
        "ADV² fooled the classifier on 43 of 43 images; on 3 of these there is nothing to see in the benign map. "
        "On the others it kept the map plausible on 40 of those 40 (100 %)."
    )
    assert any(said.startswith("3 images of 43 counted apart") for said in verdict.cautions)
    (only,) = judge(table(rows[:3]))
    assert only.headline == "MASK had nothing to show."
    assert only.sentences[0].endswith("on all of which there is nothing to see in the benign map.")


def floored(unrelated: float, within: bool | None) -> list[dict[str, Any]]:
    """Forty plausible maps; so large a share of unrelated ones would be plausible, too."""
    return [
        outcome(str(i), "adv2", "cam", unrelated_l1=0.2, unrelated_iou=0.9 if i < 40 * unrelated else 0.1,
                mean_map_l1=0.2, mean_map_iou=0.4, natural_l1=None if within is None else 0.04,
                natural_iou=None if within is None else 0.9, within_natural=within)
        for i in range(40)
    ]  # fmt: skip


def test_where_unrelated_maps_pass_for_each_other_none_is_called_plausible(tmp_path: Path) -> None:
    """The verdict is that of natural variation; below one pair in five it is not."""
    (strict,), (usual,) = judge(table(floored(0.25, within=False))), judge(table(floored(0.2, within=False)))
    assert strict.headline == "CAM would have warned you."
    assert usual.headline == "CAM would not have warned you."
    assert strict.cautions[0].startswith("No map is called plausible here: 25 % of the benign maps of other images")
    assert "natural variation on 0 (0 %)" in strict.sentences[0]
    assert "plausible" not in " ".join(strict.sentences)
    (within,) = judge(table(floored(0.25, within=True)))
    assert within.headline == "CAM would not have warned you."

    class Alike(FakeRun):
        def outcomes(self) -> pa.Table:
            return table([row for row in floored(0.25, within=False) if int(row["id"]) < 12])

    page = render(Alike(tuple(map(str, range(12))), attacks=("adv2",), interpreters=("cam",)), tmp_path)
    assert {row[5] for card in drawn_from(page)["cards"] for row in card["rows"]} == {2}
    assert drawn_from(page)["endings"][2] == ["changed", "fooled, map changed"]
    assert "<dt>Natural variation</dt>" in page
    assert re.findall(r'<th scope="col">(other image|mean map|harmless changes)</th>', page) == [
        "harmless changes",
        "other image",
        "mean map",
    ]


def test_an_image_that_is_alone_has_no_unrelated_one() -> None:
    alone = {"unrelated_l1": None, "unrelated_iou": None, "mean_map_l1": None, "mean_map_iou": None}
    (verdict,) = judge(table([{**floored(0.0, within=True)[0], **alone}]))
    assert verdict.headline.startswith("Whether CAM would have warned you is undecided on 1 image")


def test_where_natural_variation_was_not_measured_the_word_carries_a_caution() -> None:
    (verdict,) = judge(table(floored(0.25, within=None)))
    assert verdict.headline == "CAM would not have warned you."
    assert verdict.cautions[0].startswith("That a map is plausible says little here: 25 %")


def test_gaps_of_a_run_are_dashes(tmp_path: Path) -> None:
    """Of an attack that never succeeded, of maps without cells to compare: no share, no nan, no None."""

    class Failed(FakeRun):
        def outcomes(self) -> pa.Table:
            rows = super().outcomes().to_pylist()
            gap = {"iou_half": None, "iou_mean": None, "judgement": "nothing to see"}
            return table([{**row, "success": False, **(gap if row["id"] == "b" else {})} for row in rows])

    page = render(Failed(("a", "b")), tmp_path)
    text = " ".join(re.sub(r"<[^>]+>", " ", page[: page.index("<script ")]).split())
    assert "Nothing put CAM and GRAD to the test." in text
    assert "fooled 0" in text
    assert not re.search(r"\b(nan|None|NaN)\b", text)
    plausible = page[page.index('<th scope="row">Plausible</th>') :].partition("</tr>")[0]
    assert re.findall(r"<span>(.*?)</span>", plausible)[1::2] == ["–", "–"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (16 / 255, "16/255"), (0.5 / 255, "0.5/255"), (0.2, "0.2"), (1.0, "1"), (0.031, "0.031"), (1e-05, "1e-05"),
        (True, "yes"), (None, ""), ([], ""), (("cam", "grad"), "cam, grad"), ([0.485, None], "0.485"), ("a", "a"),
    ],
)  # fmt: skip
def test_facts_are_written_as_a_reader_would(value: Any, text: str) -> None:
    assert as_text(value) == text


def test_what_was_left_open_is_no_fact(run: FakeRun, tmp_path: Path) -> None:
    spec = {"weights": None, "evade": (), "eps": 16 / 255, "interpreters": ["cam", "grad"], "n": 0}
    page = render(replace(run, info={**INFO, "spec": spec}), tmp_path)
    facts = page[page.index("<h3>Parameters</h3>") :].partition("</dl>")[0]
    told = re.findall(r"<dt>(.*?)</dt> <dd>(.*?)</dd>", facts)
    assert told == [("eps", "16/255"), ("interpreters", "cam, grad"), ("n", "0")]


def test_a_failed_attack_is_no_acquittal() -> None:
    verdict = verdict_of((False, 0.9), (False, 0.9))
    assert verdict.headline == "Nothing put CAM to the test."
    assert verdict.sentences[0].startswith("ADV² fooled the classifier on none of 2 images")


def test_few_images_and_a_lazy_interpreter_are_said() -> None:
    rows = [outcome(str(index), attack, "rts") for index in range(16) for attack in ("pgd", "adv2")]
    odd = outcome("16", "adv2", "rts", success=False, map_constant=True, judgement="nothing to see")
    (verdict,) = judge(table([*rows, odd]))
    few, failed, lazy, constant, blank = verdict.cautions
    assert "judged on 16 images" in few
    assert "81 % to 100 %" in few
    assert failed.startswith("On 1 of 17 images ADV² failed")
    assert lazy.startswith("PGD ignores the map")
    assert constant.startswith("1 map is constant")
    assert blank.startswith("1 image of 17 counted apart: the benign map spans less than 25 % of the scale")


def test_another_wanted_map_is_judged_in_other_words(run: FakeRun, tmp_path: Path) -> None:
    """Title, headline, endings, the distance to the benign map and a picture of the wanted map."""
    targeted = replace(run, info={**INFO, "spec": {"target_map": "patch"}})
    pages = render(targeted, tmp_path), render(run, tmp_path)
    for words in ("made to show another map?", "CAM could mostly be made to show the wanted map;", "map not as wanted",
                  "made the map look like the wanted one on 10", "ΔL1 to the wanted map", ">As wanted<",
                  '<th scope="col">Wanted</th>'):  # fmt: skip
        assert [words in page for page in pages] == [True, False], words
    for words in (">Plausible<", "warned you", "plausible on"):
        assert [words in page for page in pages] == [False, True], words
    albums = [drawn_from(page)["album"] for page in pages]
    assert len(albums[0]) == len(albums[1]) + 12 * 2


def test_missing_parts_are_named(run: FakeRun) -> None:
    assert missing_parts(run.outcomes(), run.info) == []
    short = missing_parts(run.outcomes(), {"selection": {"requested": 20}})
    assert short[0] == "PGD against CAM covers 12 of 20 images."
    adv2_only = run.outcomes().filter(pc.field("attack") == "adv2")
    assert missing_parts(adv2_only, {})[0] == "PGD against CAM covers 0 of 12 images."


def test_hostile_names_stay_text(run: FakeRun, tmp_path: Path) -> None:
    page = render(run, tmp_path)
    tags = Tags(page)
    assert len(tags.all("script")) == 2
    assert not [attributes for _, attributes in tags.found if any(name.startswith("on") for name in attributes)]
    assert HOSTILE_CLASS not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert [card for card in drawn_from(page)["cards"] if card["id"] == HOSTILE_ID]


def test_the_page_is_self_contained(run: FakeRun, tmp_path: Path) -> None:
    tags = Tags(render(run, tmp_path))
    references = [
        value or ""
        for _, attributes in tags.found
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action")
    ]
    assert references
    assert all(reference.startswith(("data:", "#")) for reference in references)


def test_each_picture_lies_in_the_data_once_and_every_place_is_one(run: FakeRun, tmp_path: Path) -> None:
    page = render(run, tmp_path)
    data = drawn_from(page)
    photos_and_changes, maps = 12 * (1 + 2 + 2 * 2), 12 * 2 * 3
    assert len(data["album"]) == photos_and_changes + maps
    places = [each for card in data["cards"] for each in (card["photo"], *card["heats"])]
    places += [place for card in data["cards"] for row in card["rows"] for place in row[2:5]]
    assert set(places) == set(range(len(data["album"])))
    assert all(image["alt"] for image in Tags(page).all("img") if "class" in image and image["class"] != "heat")
    assert all(span.get("aria-label") for span in Tags(page).all("span") if span.get("role") == "img")


def typical(moved: dict[str, tuple[float, float]], tmp_path: Path) -> list[str]:
    """The ids of the cards of images whose ADV² maps, CAM's and GRAD's, have these distances."""

    class Moved(FakeRun):
        def outcomes(self) -> pa.Table:
            rows = super().outcomes().to_pylist()
            return table([{**row, "map_l1": moved[row["id"]][row["interpreter"] == "grad"]} for row in rows])

    return [card["id"] for card in drawn_from(render(Moved(tuple(moved)), tmp_path))["cards"]]


def test_cards_start_with_what_is_typical(tmp_path: Path) -> None:
    """With the median of all interpreters, and not with what deceives best."""
    moved = {"best": (0.0, 0.1), "worse": (0.35, 0.5), "middle": (0.2, 0.3), "worst": (0.9, 0.9), "near": (0.1, 0.28)}
    assert typical(moved, tmp_path) == ["middle", "near", "worse", "best", "worst"]


def test_the_first_screen_has_sentence_number_conditions_and_a_row_for_each_interpreter(
    run: FakeRun, tmp_path: Path
) -> None:
    perturbed = [{"perturbation": {"eps": 16 / 255}}, {"perturbation": {"smooth": True}}]
    page = render(replace(run, info={**INFO, "recipe": perturbed}), tmp_path)
    first = page[page.index('<section id="verdict"') :].partition("</section>")[0]
    text = " ".join(re.sub(r"<[^>]+>", " ", first).split()).replace("&nbsp;", " ")
    for said in (
        "CAM and GRAD would mostly not have warned you.",
        "100 % 72–100 % with 95 % confidence",
        "ADV² kept the map plausible on 10 of the 10 images on which it fooled the classifier, as shown by CAM, which "
        "is deceived most often of 2 interpreters.",
        "ε = 16/255",
        "80 % right, on 12 of 15 examined",
        "nobody has it at hand when a picture arrives",
    ):
        assert said in text, said
    assert first.count('class="picture"') == 3 + 2 * 3
    assert first.index("picture") < first.index("PGD on classifier and explanation at once")
    assert "#attack=adv2&amp;interpreter=grad&amp;ending=deceived" in first


def test_another_lead_takes_the_place_of_the_attacks(run: FakeRun, tmp_path: Path) -> None:
    row = LeadRow("cam", "holds", (LeadCell("adv2", "3 %", "1 of 31", "1–16 %", "#limits"),))
    conditions, shares = (("Suite", "quick"),), "share of images"
    other = Lead("What can be believed?", "Nothing <b>.", None, conditions, ("adv2",), (row,), (), shares)
    page = write_report(run, tmp_path / "report.html", first=other).read_text(encoding="utf-8")
    first = page[page.index('<section id="verdict"') :].partition("</section>")[0]
    assert "<h1>Nothing &lt;b&gt;.</h1>" in first
    assert [said in first for said in ("What can be believed?", "Suite", "3 %", "1–16 %", "77 %")] == 4 * [True] + [
        False
    ]


def test_classes_and_pairs_are_counted_where_they_have_several_images(run: FakeRun, tmp_path: Path) -> None:
    rows = [outcome(str(i), "adv2", "cam", class_true=i % 2, iou_mean=0.9 if i % 2 else 0.1) for i in range(8)]
    (found,) = classes.compose(table(rows), ["nevus", "melanoma", "bcc"])
    assert [(each.name, each.n, each.deceived) for each in found.classes] == [("melanoma", 4, 4), ("nevus", 4, 0)]
    pairs = [(each.name, each.cells[0].deceived, each.cells[0].interval) for each in found.pairs]
    assert pairs == [("melanoma → bcc", 4, "51–100 %"), ("nevus → bcc", 0, "0–49 %")]
    assert classes.compose(table(rows[:2]), []) == []


def test_attacks_and_natural_variation_stand_on_one_axis(tmp_path: Path) -> None:
    rows = [*floored(0.1, within=True), *(outcome(str(i), "pgd", "cam", map_l1=0.4) for i in range(40))]
    ((title, plot), _) = distances.compose(table(rows), HIDING)[0].plots
    drawn = b64decode(plot.source.partition(",")[2]).decode()
    assert title == "ΔL1 to the benign map"
    assert [name in drawn for name in ("<!-- PGD -->", "<!-- harmless changes -->", "<!-- another image -->")] == 3 * [
        True
    ]
    assert not distances.compose(table(rows), SHOWING)[0].beside


def test_the_averages_lie_beside_the_page_as_numbers(run: FakeRun, tmp_path: Path) -> None:
    page = render(run, tmp_path)
    outcomes, numbers = run.outcomes(), pyarrow.csv.read_csv(tmp_path / AVERAGES)
    assert numbers.schema.names == AVERAGES_COLUMNS.names
    for interpreter in run.interpreters:
        for attack in run.attacks:
            rows, found = (rows_where(each, attack=attack, interpreter=interpreter) for each in (outcomes, numbers))
            fooled = rows_where(rows, success=True)
            for over, of in (("all", rows), ("fooled", fooled)):
                (iou,) = rows_where(found, over=over, measure="iou_mean").to_pylist()
                assert (iou["n"], iou["value"]) == (of.num_rows, pytest.approx(pc.mean(of["iou_mean"]).as_py()))
                assert iou["low"] <= iou["value"] <= iou["high"]
                assert f"<span>{iou['value']:.3f}</span> <small>{iou['low']:.3f}–{iou['high']:.3f}</small>" in page
            (asr,) = rows_where(found, measure="asr").to_pylist()
            assert (asr["over"], asr["n"], asr["value"]) == ("all", 12, fooled.num_rows / 12)
            (mc,) = rows_where(found, measure="mc").to_pylist()
            assert (mc["over"], mc["n"]) == ("fooled", fooled.num_rows)


def test_averages_have_what_attacks_are_to_be_held_against() -> None:
    outcomes = table(floored(0.1, within=True))
    numbers = averages(tabulate(outcomes, summarise(outcomes), ["map_l1", "plausible"], HIDING))
    floors = rows_where(numbers, attack=None).to_pylist()
    assert [(each["over"], each["measure"], each["value"], each["n"]) for each in floors] == [
        (over, measure, pytest.approx(value), 40)
        for measure, values in (("map_l1", (0.04, 0.2, 0.2)), ("plausible", (1, 0.1, 0)))
        for over, value in zip(("harmless changes", "other image", "mean map"), values, strict=True)
    ]


def test_an_empty_run_says_so(tmp_path: Path) -> None:
    page = render(FakeRun((), info={}), tmp_path)
    assert "nothing to judge" in page
    assert "<table" not in page


def test_a_partial_run_says_what_it_lacks(run: FakeRun, tmp_path: Path) -> None:
    page = render(replace(run, attacks=("pgd",), info={}), tmp_path)
    assert "Nothing is known of CAM yet." in page
    assert "ADV² against CAM covers 0 of 12 images." in page
    assert "There is no outcome of ADV² in this run." in page


def test_how_the_run_was_made_is_told(run: FakeRun, tmp_path: Path) -> None:
    text = re.sub(r"<[^>]+>", " ", render(run, tmp_path))
    for fact in ("craft.eps", "torch", "12.3 s", "broken.jpg", "layer3", "underfire attack photos"):
        assert fact in text


def test_equal_runs_give_equal_pages(run: FakeRun, tmp_path: Path) -> None:
    assert render(run, tmp_path) == render(run, tmp_path)


def test_sections_of_the_page_are_those_of_its_index(run: FakeRun, tmp_path: Path) -> None:
    for page in (render(run, tmp_path), render(FakeRun((), info={}), tmp_path)):
        tags = Tags(page)
        links = [link["href"] for link in tags.all("a") if "=" not in (link["href"] or "")]
        assert links[0] == "#verdict"  # the one that skips
        assert links[1:] == [f"#{section['id']}" for section in tags.all("section")]


FOUR = ("cam", "grad", "mask", "rts")
TEN = ("pgd", "adv2", "adv2-ensemble", "stadv", "adv2-stadv", *(f"adv2-evading-fs:bits:{n}" for n in range(1, 6)))


@pytest.mark.parametrize(
    ("side", "interpreters", "attacks"),
    [
        (64, ("cam",), ("pgd", "adv2")),
        pytest.param(224, FOUR, ("pgd", "adv2"), marks=pytest.mark.extended),
        pytest.param(224, FOUR, TEN, marks=pytest.mark.extended),
    ],
)
def test_two_hundred_grainy_images_stay_below_twenty_megabytes(
    side: int, interpreters: tuple[str, ...], attacks: tuple[str, ...], tmp_path: Path
) -> None:
    """Large ones are shrunk; small ones, which would stay as they are, are compressed; what is said of them counts."""

    class Grainy(FakeRun):
        def images(
            self, attack: str, interpreter: str | None = None, only: Collection[str] | None = None
        ) -> tuple[tuple[str, ...], Any]:
            grain = np.random.default_rng(0).normal(0, 0.03, (2, 3, side, side))
            image = picture(3, side) + grain[0] + (grain[1] if attack != "benign" else 0)
            return these(self.ids, np.broadcast_to(image.clip(0, 1), (200, *image.shape)), only)

        def maps(
            self, attack: str, interpreter: str, only: Collection[str] | None = None
        ) -> tuple[tuple[str, ...], Any]:
            rough = np.random.default_rng(0).random((56, 56), dtype=np.float32) * blob(0.4, 0.5, 56)
            return these(self.ids, np.broadcast_to(rough, (200, 56, 56)), only)

        def thetas(
            self, attack: str, interpreter: str | None = None, only: Collection[str] | None = None
        ) -> tuple[tuple[str, ...], Any]:
            rough = np.random.default_rng(0).normal(0, 1, (2, side, side)).astype(np.float32)
            return these(self.ids, np.broadcast_to(rough, (200, 2, side, side)), only)

    run = Grainy(tuple(map(str, range(200))), interpreters=interpreters, attacks=attacks)
    assert 4e6 < write_report(run, tmp_path / "report.html").stat().st_size < 20e6


@pytest.mark.parametrize("size", [32, 64, 96, 224, 600])
@pytest.mark.parametrize("images", [1, 60, 200, 1000])
def test_pictures_keep_what_their_number_allows(size: int, images: int) -> None:
    encoding = encoding_of(size, photos=images * 11, maps=images * 12)
    photo, half = min(size, encoding.side), min(size, encoding.side // 2)
    if encoding.lossless and size <= encoding.lossless:
        assert images * 11 * size**2 * 3.5 < 7e6
    elif images <= 200:
        assert images * 0.35 * (6 * photo**2 + 5 * 4 * half**2 + 12 * half**2) < 15e6
    assert (encoding.side == 224) == (images == 1 or (size == 32 and images == 60))


# ------------------------------------------------------------------ bent images


@pytest.fixture
def bent() -> FakeRun:
    return FakeRun(tuple(f"photo-{number}.jpg" for number in range(4)), attacks=FLOWING)


def test_attacks_that_bend_are_named_and_judged_as_the_others(bent: FakeRun) -> None:
    for verdict in judge(bent.outcomes()):
        assert [tally.attack for tally in verdict.tallies] == ["adv2-stadv", "stadv"]
        assert verdict.sentences[0].startswith("ADV² on StAdv fooled the classifier on 4 of 4 images and kept the map")
        assert verdict.sentences[1].startswith("StAdv fooled the classifier on 4 of 4 images and left the map")
    lacking = replace(bent, attacks=("stadv",), interpreters=("cam",))
    assert missing_parts(lacking.outcomes(), {}) == ["ADV² on StAdv against CAM covers 0 of 4 images."]


def test_flows_are_drawn_and_measured_in_place_of_differences(bent: FakeRun, run: FakeRun, tmp_path: Path) -> None:
    page, of_pixels = render(bent, tmp_path), render(run, tmp_path)
    for word in ("colour wheel of directions", "where its pixels were taken from", ">812<", "Mean distance in pixels"):
        assert (word in page, word in of_pixels) == (True, False)
    assert "amplified 16 times around grey" in of_pixels
    assert "amplified" not in page
    assert len(drawn_from(page)["album"]) == 4 * (1 + 2 + 2 * 2) + 4 * 2 * 3


def test_tables_of_runs_without_columns_for_flows_are_those_of_pixels(run: FakeRun, tmp_path: Path) -> None:
    class Older(FakeRun):
        def outcomes(self) -> pa.Table:
            return super().outcomes().drop_columns(["flow_mean", "flow_smoothness"])

    assert render(Older(run.ids), tmp_path) == render(run, tmp_path)


def decoded(uri: str) -> npt.NDArray[Any]:
    """The pixels of a picture in the page."""
    return np.asarray(Image.open(BytesIO(b64decode(uri.partition(",")[2]))))


def test_a_flow_has_the_colours_of_the_wheel() -> None:
    """From the middle of the wheel towards the right, down, left and up."""
    wheel = decoded(figures.wheel(65))
    assert wheel[0, 0, 3] == 0
    assert tuple(wheel[32, 32]) == (255, 255, 255, 255)
    for down, along in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        field = np.zeros((2, 8, 8), np.float32)
        field[0], field[1] = 3 * down, 3 * along
        pure, half, beyond = (decoded(figures.flow(field, reach, Encoding()))[0, 0] for reach in (3.0, 6.0, 1.0))
        assert tuple(pure) == tuple(beyond) == tuple(wheel[32 + 32 * down, 32 + 32 * along, :3])
        np.testing.assert_allclose(half, (255.0 + pure) / 2, atol=1)
    assert (decoded(figures.flow(0 * field, 1.0, Encoding())) == 255).all()


def test_pictures_that_did_not_move_are_drawn_white() -> None:
    class Still(FakeRun):
        def thetas(
            self, attack: str, interpreter: str | None = None, only: Collection[str] | None = None
        ) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
            ids, flows = super().thetas(attack, interpreter, only)
            return ids, 0 * flows

    still = Still(("a.jpg",), attacks=FLOWING, interpreters=("cam",))
    changes = changes_of(still, still.outcomes().to_pylist(), [("stadv", None)])
    assert changes == {"stadv": Bending(1.0)}


# ------------------------------------------------------------------ several attacks in one run

EVADING = "adv2-evading-fs:median:3"
MANY = ("stadv", "adv2-stadv", EVADING, "pgd", "adv2", "adv2-ensemble")
IN_ORDER = ("PGD", "ADV²", "ADV² evading median 3×3", "ADV² on the ensemble", "StAdv", "ADV² on StAdv")


@pytest.fixture
def many() -> FakeRun:
    return FakeRun(tuple(f"photo-{number}.jpg" for number in range(4)), attacks=MANY)


def test_the_verdict_speaks_of_every_attack(many: FakeRun) -> None:
    for verdict in judge(many.outcomes()):
        titles = ("ADV²", "PGD", "ADV² evading median 3×3", "ADV² on the ensemble", "ADV² on StAdv", "StAdv")
        assert len(verdict.sentences) == len(verdict.tallies) == len(titles)
        assert all(said.startswith(f"{name} fooled") for name, said in zip(titles, verdict.sentences, strict=True))


def test_the_headline_follows_the_solver_that_deceives_best() -> None:
    rows = [outcome(str(i), "adv2", "cam", iou_mean=0.2) for i in range(40)]
    rows += [outcome(str(i), "adv2-stadv", "cam", iou_mean=0.9) for i in range(40)]
    (verdict,) = judge(table(rows))
    assert verdict.headline == "CAM would not have warned you."
    evading = [outcome(str(i), EVADING, "cam", iou_mean=0.9) for i in range(40)]
    (verdict,) = judge(table(rows[:40] + evading))
    assert verdict.headline == "CAM would have warned you."


def test_attacks_aimed_at_some_interpreters_are_missed_by_no_other(many: FakeRun) -> None:
    outcomes = many.outcomes()
    evades = pc.equal(outcomes["attack"], EVADING)
    of_grad = pc.equal(outcomes["interpreter"], "grad")
    assert missing_parts(outcomes.filter(pc.invert(pc.and_(evades, of_grad))), {}) == []
    first = pc.equal(outcomes["id"], "photo-0.jpg")
    short = missing_parts(outcomes.filter(pc.invert(pc.and_(evades, first))), {})
    assert short[0] == "ADV² evading median 3×3 against CAM covers 3 of 4 images."


def test_averages_have_a_column_and_plots_a_strip_per_attack(many: FakeRun, tmp_path: Path) -> None:
    page = render(many, tmp_path)
    heads = re.findall(r'<th scope="colgroup" colspan="2">([^<]*?)</th>', page)
    assert tuple(heads) == IN_ORDER * 2
    assert page.count('<th scope="col">all 4</th>') == page.count('<th scope="col">fooled 4</th>') == len(heads)
    tables = [each for each in Tags(page).all("div") if each.get("class") == "scroll wide"]
    assert [each["tabindex"] for each in tables] == ["0"] * 2
    heights = {int(each["height"] or 0) for each in Tags(page).all("img") if (each["alt"] or "").startswith("IoU")}
    assert heights == {int(96 * 3.22)}


def test_cards_draw_every_attack_but_those_that_evade(many: FakeRun, tmp_path: Path) -> None:
    page = render(many, tmp_path)
    data = drawn_from(page)
    assert [each["title"] for each in data["attacks"]] == list(IN_ORDER)
    assert [each["title"] for each in data["attacks"] if not each["drawn"]] == ["ADV² evading median 3×3"]
    assert {len(card["rows"]) for card in data["cards"]} == {6 * 2}
    assert {row[2] is None for card in data["cards"] for row in card["rows"] if row[0] == 2} == {True}
    assert "Attacks that evade a detector have numbers and no pictures." in page


def test_each_attack_is_drawn_by_what_it_did(many: FakeRun, tmp_path: Path) -> None:
    """Differences for those that change pixels, flows for those that bend."""
    page = render(many, tmp_path)
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "Beside each picture of PGD, ADV², ADV² on the ensemble its difference from the benign one" in text
    assert "Beside each picture of StAdv, ADV² on StAdv where its pixels were taken from" in text
    assert page.count('class="wheel"') == 1


def test_cards_are_judged_by_the_first_adv2(many: FakeRun, tmp_path: Path) -> None:
    assert '<option value="adv2" selected>' in render(many, tmp_path)


def test_an_attack_of_others_is_shown_and_not_judged_beside_ours(many: FakeRun, tmp_path: Path) -> None:
    class Foreign(FakeRun):
        def outcomes(self) -> pa.Table:
            foreign = [outcome(id, "<b>$x", "cam", iou_mean=0.4) for id in self.ids]
            return table([*super().outcomes().to_pylist(), *foreign])

    page = render(Foreign(many.ids, attacks=("pgd", "adv2")), tmp_path)
    assert '<th scope="colgroup" colspan="2">&lt;b&gt;$x</th>' in page
    assert "<b>$x" not in page
    assert len(judge(Foreign(many.ids, attacks=("pgd", "adv2")).outcomes())[0].tallies) == 2


# ------------------------------------------------------------------ memory


def test_pictures_are_read_some_images_at_a_time(tmp_path: Path) -> None:
    """However many there are; and none is left out."""
    asked = list[int]()

    class Noted(FakeRun):
        def images(
            self, attack: str, interpreter: str | None = None, only: Collection[str] | None = None
        ) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
            ids, images = super().images(attack, interpreter, only)
            asked.append(len(ids))
            return ids, images

    run = Noted(tuple(f"{number:03}.jpg" for number in range(2 * TOGETHER + 1)), interpreters=("cam",))
    cards = collect(run, run.outcomes(), ())
    assert set(asked) == {1, TOGETHER}
    assert {id for kind, *_, id in cards.pictures if kind == "photo"} == set(run.ids)
