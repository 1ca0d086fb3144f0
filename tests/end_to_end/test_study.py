"""`underfire study`: every study at tiny size, what it leaves, what it says, how it resumes and how it refuses."""

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from printed import numbers_of
from tiny_report import Tags
from underfire import open_run
from underfire.attacks import recipes
from underfire.attacks.suite import PRESET, suite
from underfire.cli.main import main
from underfire.data.image_set import open_images
from underfire.interpreters import CAM
from underfire.report import write_report_of
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.plan import AttackPlan
from underfire.runs.specs import Select, key
from underfire.runs.store import Store
from underfire.runs.study_settings import StudySettings
from underfire.studies import aid, case_study, galleries, localisation, sanity
from underfire.studies.base import FIGURES, TABLES
from underfire.studies.catalogue import STUDIES, done

MAKES = {  # tables and figures of the paper's studies, whatever others there are
    "localisation": ("table-2 localisation-rules", ""),
    "effectiveness": ("table-3 table-12 figure-6", "figure-1 figure-4 figure-5 figure-6"),
    "evasiveness": ("table-4 table-5 adaptive", ""),
    "case-study": ("case-study-asr table-13 figure-8-iou classifier overlap", "figure-7 figure-8 figure-18"),
    "spatial": ("stadv-asr figure-10-l1 figure-10-iou", "figure-9 figure-10"),
    "random-patch": ("table-6 table-7", "figure-11"),
    "random-class": ("table-8 figure-13", "figure-12 figure-13"),
    "transfer": ("table-9", "figure-14"),
    "gap": ("proposition-1", ""),
    "aid": ("table-10 defences-suite defences defences-localisation", "figure-15 figure-16"),
    "threats": ("threats-l2 threats-patch", ""),
    "sanity": ("sanity", ""),
}
Said = tuple[int, str, str]


def study(name: str, *flags: str, **options: object) -> Said:
    """Run `underfire study` in this process on 80 columns: exit code, output, errors."""
    arguments = (part for option, value in options.items() for part in (f"--{option}", str(value)))
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(StringIO()) as out,
        redirect_stderr(StringIO()) as err,
    ):
        patch.setattr(sys, "argv", ["underfire", "study", name, *arguments, *flags])
        patch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()


@contextmanager
def computing(watch: Callable[[str, tuple[str, ...]], None], out: Path) -> Iterator[None]:
    """Tell `watch` of every batch that a stage under `out` is about to store."""
    append = Store.append

    def watched(store: Store, stage: str, ids: tuple[str, ...], tensors: Mapping[str, Any]) -> None:
        if store.root == out:
            watch(stage, ids)
        append(store, stage, ids, tensors)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "append", watched)
        yield


def files(folder: Path) -> dict[Path, int]:
    """When each file was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def written(folder: Path) -> dict[str, bytes]:
    """What a study says in the end: its tables and figures."""
    kinds = ("*.parquet", "tables/*", "figures/*")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for kind in kinds for path in folder.glob(kind)}


def told(out: str) -> str:
    """What is printed once all is computed."""
    return out.partition("on top.")[2].strip()


@pytest.fixture(scope="module", autouse=True)
def _short_attacks_and_small_galleries() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RECIPES", "FLOW_RECIPES"):
            known = getattr(recipes, name)
            short = replace(known["annealed"], warm_steps=2, plain_steps=3)
            patch.setattr(recipes, name, {**known, "annealed": short})
        patch.setattr(galleries, "SAMPLES", 1)
        patch.setattr(aid, "SHOWN", 1)
        yield


def _mask(photos: Path, folder: Path) -> Path:
    """A folder with the mask of each photo: a box in its middle."""
    pixels = np.zeros((16, 16), dtype=np.uint8)
    pixels[4:12, 5:11] = 255
    for photo in photos.rglob("*.png"):
        path = folder / photo.relative_to(photos)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture
def masks(tiny_photos: Path, tmp_path: Path) -> Path:
    return _mask(tiny_photos, tmp_path / "masks")


@pytest.fixture
def tiny(tiny_model: str, tiny_photos: Path) -> dict[str, object]:
    return {"model": tiny_model, "images": tiny_photos, "normalize": "none", "interpreter": "cam"}


@dataclass(frozen=True)
class Everything:
    """All studies in one folder, the options that made it, what was said, and the batches in the order of computing."""

    folder: Path
    options: dict[str, object]
    said: Said
    computed: list[tuple[str, str]]  # stage and image


@pytest.fixture(scope="module")
def everything(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Everything:
    """On ninety photos like the tiny ones, enough to calibrate detectors on."""
    home = tmp_path_factory.mktemp("everything")
    noise = np.random.default_rng(1)
    for name, channel in {"blue": 2, "green": 1, "red": 0}.items():
        (home / "photos" / name).mkdir(parents=True)
        for number in range(30):
            pixels = noise.integers(80, 160, (16, 16, 3), dtype=np.uint8)
            pixels[..., channel] += 10
            Image.fromarray(pixels).save(home / "photos" / name / f"{name}-{number}.png")
    masks = _mask(home / "photos", home / "masks")
    options: dict[str, object] = {"model": tiny_model, "images": home / "photos", "normalize": "none", "masks": masks}
    options |= {"interpreter": "cam,grad", "defended": "smooth:cam", "scale": "quick", "n": 4, "steps": 3, "queries": 8}
    options |= {"eps": "13/255", "batch": 2, "out": home / "out"}
    computed: list[tuple[str, str]] = []

    def note(stage: str, ids: tuple[str, ...]) -> None:
        computed.extend((stage, id) for id in ids)

    with computing(note, home / "out"):
        said = study("all", **options)
    return Everything(home / "out", options, said, computed)


@pytest.fixture
def copied(everything: Everything, tmp_path: Path) -> dict[str, object]:
    """The options that go on in a copy of the folder."""
    return {**everything.options, "out": shutil.copytree(everything.folder, tmp_path / "out")}


# ------------------------------------------------------------------ all studies


def test_list_names_every_study_with_its_tables() -> None:
    code, out, err = study("list")
    assert (code, err) == (0, "")
    assert [name for name in STUDIES if name not in out] == []
    assert "quick 4, standard 64, full 1000" in out


def test_all_studies_run_in_one_folder(everything: Everything) -> None:
    code, out, err = everything.said
    assert (code, err) == (0, "")
    assert list(done(everything.folder)) == list(STUDIES)
    assert {path.name for path in everything.folder.iterdir()} == {*STUDIES, "stages", "averages.csv", "report.html"}
    assert [name for name in STUDIES if (everything.folder / name / "stages").exists()] == []
    assert "Left out" not in out
    assert "timed on one image" in out


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_leaves_what_its_row_says(everything: Everything, name: str) -> None:
    folder, study = everything.folder / name, STUDIES[name].study
    run = open_run(folder)
    assert study.is_finished(run)
    assert run.store.root == everything.folder
    assert run.info["command"].startswith("underfire study all ")
    tables, figures = list(study.tables(run)), [figure.name for figure in study.figures(run)]
    expected = {f"tables/{table.name}.{kind}" for table in tables for kind in ("csv", "tex", "html")}
    expected |= {f"figures/{figure}.{kind}" for figure in figures for kind in ("svg", "png")}
    assert tables
    assert {each for each in written(folder) if "/" in each} == expected
    assert all(written(folder).values())
    promised = set(numbers_of(STUDIES[name].paper))
    assert {f"table-{n}" for kind, n in promised if kind == "table"} <= {table.name for table in tables}
    of_the_paper = {each for each in figures if each.startswith("figure-")}
    assert of_the_paper <= {f"figure-{n}" for kind, n in promised if kind == "figure"}
    for table in tables:
        assert table.title in " ".join(told(everything.said[1]).split())
        assert (folder / "tables" / f"{table.name}.csv").read_text(encoding="utf-8").count("\n") == 1 + sum(
            len(cell) for row in table.rows for cell in row.cells
        )


@pytest.mark.parametrize("name", MAKES)
def test_the_papers_studies_make_these_tables_and_figures(everything: Everything, name: str) -> None:
    tables, figures = MAKES[name]
    held = {
        folder: {path.stem for path in (everything.folder / name / folder).glob("*")} for folder in (TABLES, FIGURES)
    }
    assert held == {TABLES: set(tables.split()), FIGURES: set(figures.split())}


def test_how_images_were_found_is_said_once(everything: Everything) -> None:
    said = [line for line in everything.said[1].splitlines() if "examined classified right" in line]
    assert said
    assert len(set(said)) == len(said)


def test_no_stage_is_computed_twice(everything: Everything) -> None:
    counted = Counter(everything.computed)
    assert len(counted) > 100
    assert {pair for pair, times in counted.items() if times > 1} == set()
    held = {name: {each["key"] for each in run.info["stages"]} for name, run in done(everything.folder).items()}
    assert held["effectiveness"] == held["transfer"] == held["gap"]
    assert held["effectiveness"] < held["evasiveness"]
    assert all(held["effectiveness"] & held[name] for name in ("random-patch", "random-class", "spatial", "aid"))


@pytest.mark.extended
def test_all_again_computes_and_rewrites_nothing(everything: Everything) -> None:
    before, computed = files(everything.folder), list[str]()
    with computing(lambda stage, ids: computed.append(stage), everything.folder):
        code, out, err = study("all", **everything.options)
    assert (code, err, computed) == (0, "", [])
    assert files(everything.folder) == before
    said, first = ([line for line in told(each).splitlines() if line] for each in (out, everything.said[1]))
    assert said == [line for line in first if line in said]  # between which there were bars
    assert "About 0 seconds" in out


@pytest.mark.extended
def test_one_study_again_says_its_part(everything: Everything) -> None:
    before = files(everything.folder)
    code, out, err = study("transfer", **everything.options)
    assert (code, err) == (0, "")
    part, _, last = told(out).rpartition("\n")
    assert part.strip() in told(everything.said[1])
    assert last == f"Report: {everything.folder / 'report.html'}"
    assert files(everything.folder) == before


@pytest.mark.extended
def test_another_setting_is_refused_and_other_studies_stay(copied: dict[str, object]) -> None:
    before = files(Path(str(copied["out"])))
    code, _, err = study("gap", **{**copied, "seed": 5})
    assert (code, err.count("\n")) == (1, 1)
    assert "holds a run with other settings: seed was 0 and is now 5" in err
    assert files(Path(str(copied["out"]))) == before


@pytest.mark.extended
def test_the_papers_network_can_be_named_and_is_written_down(tiny: dict[str, object], tmp_path: Path) -> None:
    """What is computed is the same whichever it is."""
    options, first = tiny | {"n": 4, "steps": 3, "out": tmp_path}, b""
    for asked, network in ((None, "ResNet"), ("densenet", "DenseNet"), ("resnet", "ResNet")):
        code, out, err = study("effectiveness", **(options if asked is None else options | {"anchors": asked}))
        assert (code, err) == (0, "")
        assert f"the paper's {network}" in " ".join(out.split())
        assert open_run(tmp_path / "effectiveness").info.get("anchors") == asked
        outcomes = (tmp_path / "effectiveness" / "outcomes.parquet").read_bytes()
        assert outcomes == (first := first or outcomes)


OTHERS = [pytest.param(name, marks=pytest.mark.extended) for name in ("localisation", "evasiveness", "gap", "sanity")]


@pytest.mark.extended
@pytest.mark.parametrize("name", ["transfer", *OTHERS])
def test_what_is_lost_is_made_again(everything: Everything, copied: dict[str, object], name: str) -> None:
    folder = Path(str(copied["out"])) / name
    lost = open_run(folder).info["stages"][-1]["key"]
    shutil.rmtree(folder.parent / "stages" / lost)
    for path in [*folder.glob("*.parquet"), *folder.glob("tables/*"), *folder.glob("figures/*.svg")]:
        path.unlink()
    code, _, err = study(name, **copied)
    assert (code, err) == (0, "")
    assert written(folder) == written(everything.folder / name)


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("name", "batches"), [pytest.param("transfer", 30, marks=pytest.mark.extended), ("random-class", 12)]
)
def test_a_study_that_is_killed_resumes(everything: Everything, tmp_path: Path, name: str, batches: int) -> None:
    out, computed = tmp_path / "out", list[tuple[str, str]]()

    def note(stage: str, ids: tuple[str, ...]) -> None:
        computed.extend((stage, id) for id in ids)

    def until(stage: str, ids: tuple[str, ...]) -> None:
        note(stage, ids)
        if len(computed) > 2 * batches:
            del computed[-len(ids) :]
            raise Killed

    options = {**everything.options, "out": out}
    with computing(until, out), pytest.raises(Killed):
        study(name, **options)
    assert not (out / name / "tables").exists()
    with computing(note, out):
        assert study(name, **options)[0] == 0
    assert written(out / name) == written(everything.folder / name)
    assert set(Counter(computed).values()) == {1}


def test_a_dry_run_writes_nothing(everything: Everything, tmp_path: Path) -> None:
    code, out, err = study("gap", "--dry-run", **{**everything.options, "out": tmp_path / "new"})
    assert (code, err) == (0, "")
    assert not (tmp_path / "new").exists()
    (row,) = (line.split() for line in out.splitlines() if line.split()[:1] == ["gap"])
    assert row[1] == row[2] != "0"
    before = files(everything.folder)
    code, out, err = study("all", "--dry-run", **everything.options)
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines() if line.split()[:1] and line.split()[0] in STUDIES]
    assert [(row[0], row[2]) for row in rows] == [(name, "0") for name in STUDIES]
    assert files(everything.folder) == before


@pytest.mark.extended
def test_all_leaves_out_what_lacks_something_and_goes_on_after_a_failure(
    tiny: dict[str, object], tmp_path: Path
) -> None:
    """Eight photos are left to calibrate detectors on."""
    code, out, err = study("all", **tiny, n=4, steps=2, queries=8, out=tmp_path / "run")
    assert (code, err.count("\n")) == (1, 1)
    assert "evasiveness: " in err
    assert "benign images to calibrate on" in err
    assert "Left out: localisation, which needs to know where objects are" in out
    assert "Left out: aid, which needs defended interpreters" in out
    finished = {name for name in STUDIES if (tmp_path / "run" / name / "tables").exists()}
    assert finished == set(STUDIES) - {"localisation", "aid", "evasiveness"}
    assert "Maps of the trained classifier" in out  # the last one


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("effectiveness", {"interpreter": "cam,cam"}, "Interpreter 'cam' is named twice"),
        ("effectiveness", {"interpreter": "lime"}, "There is no interpreter 'lime'"),
        ("effectiveness", {"scale": "huge"}, "--scale huge: Input should be 'quick', 'standard' or 'full'"),
        (
            "random-patch",
            {"recipe": "fast"},
            "--recipe fast: Input should be 'annealed', 'patch', 'paper', 'paper-densenet' or 'paper-isic'",
        ),
        ("spatial", {"eps": 2}, "--eps 2: Input should be less than or equal to 1."),
        ("gap", {"interpreter": "smooth:cam,smooth:cam"}, "is named twice"),
        ("gap", {"eps": "8/0"}, "--eps 8/0 is not a number; write it like 8/255 or 0.031."),
        ("gap", {"split": "val"}, "there is no split 'val' of these images: give 'test' or 'train'"),
        ("gap", {"images": "demo", "split": "test"}, "The demo's scenes are not split; leave out --split test."),
        ("gap", {"images": "nowhere"}, "nowhere"),
        ("localisation", {}, "The study 'localisation' needs to know where objects are"),
        ("localisation", {"masks": "nowhere"}, "There is no folder nowhere."),
        ("localisation", {"masks": "demo"}, "The demo's scenes bring their own masks"),
        ("aid", {}, "The study 'aid' needs defended interpreters: name them with --defended"),
        ("aid", {"defended": "cam"}, "Interpreter 'cam' is named twice; give each file a name of its own."),
        ("aid", {"defended": "nothing"}, "There is no interpreter 'nothing'"),
        ("aid", {"defended": "smooth:cam", "masks": "nowhere"}, "There is no folder nowhere."),
        ("aid", {"defended": "smooth:cam", "n": 1}, "The study 'aid' needs two images or more: raise --n."),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    tiny: dict[str, object], tmp_path: Path, name: str, options: dict[str, object], complaint: str
) -> None:
    code, _, err = study(name, **{**tiny, "n": 4, "steps": 2, **options}, out=tmp_path / "run")
    assert (code, err.count("\n")) == (1, 1)
    assert complaint in err
    assert not (tmp_path / "run").exists()


def test_a_budget_may_be_a_fraction(everything: Everything) -> None:
    assert open_run(everything.folder / "gap").info["spec"]["eps"] == 13 / 255


def test_studies_keep_to_the_part_that_is_asked_for(tiny: dict[str, object], tiny_photos: Path, tmp_path: Path) -> None:
    code, _, err = study("sanity", **tiny, split="test", n=12, out=tmp_path / "run")
    assert (code, err) == (0, "")
    run = open_run(tmp_path / "run" / "sanity")
    assert run.info["spec"]["split"] == "test"
    assert set(run.images()[0]) == set(open_images(tiny_photos, split="test").ids)
    assert len(run.images()[0]) == 3


# ------------------------------------------------------------------ localisation


def test_localisation_leaves_a_table_and_prints_it(tiny: dict[str, object], masks: Path, tmp_path: Path) -> None:
    options = {**tiny, "interpreter": "grad,cam", "masks": masks, "n": 10, "out": tmp_path / "run"}
    code, out, err = study("localisation", **options)
    assert (code, err) == (0, "")
    run = open_run(tmp_path / "run" / "localisation")
    rows = pq.read_table(run.path / localisation.TABLE).to_pylist()
    assert len(rows) == 10 * 4 * 3  # images, interpreters with the two floors, rules
    assert {row["interpreter"] for row in rows} == {"random", "centre", "grad", "cam"}
    assert sum(row["half"] == "validation" for row in rows) == 5 * 4 * 3
    assert all(row["error"] == (row["iou"] < 0.5 or row["class_true"] != row["class_predicted"]) for row in rows)
    best = [row for row in rows if row["best_rule"]]
    assert len(best) == 10 * 4
    assert all(row["iou"] > 0.5 for row in best if row["interpreter"] == "centre")  # the objects are in the middle
    ids, maps = run.maps("benign", "cam")
    assert (len(ids), maps.shape) == (10, (10, 16, 16))
    assert run.info["spec"]["study"] == "localisation"
    assert "Table 2. Error in weakly supervised localisation, 5 images" in " ".join(out.split())
    assert "43.8" in out


def test_misclassified_images_count_as_errors(
    tiny: dict[str, object], masks: Path, tiny_photos: Path, tmp_path: Path
) -> None:
    table = tmp_path / "wrong.csv"
    names = sorted(path.relative_to(tiny_photos).as_posix() for path in tiny_photos.rglob("*.png"))
    table.write_text("\n".join(["file,class_index", *(f"{name},{int('red' in name)}" for name in names)]))
    study("localisation", **tiny, masks=masks, labels=table, n=12, out=tmp_path / "run")
    run = open_run(tmp_path / "run" / "localisation")
    rows = pq.read_table(run.path / localisation.TABLE).to_pylist()
    wrong = [row for row in rows if row["class_true"] != row["class_predicted"]]
    assert run.info["selection"] == {"requested": 12, "examined": 12, "misclassified": len({r["id"] for r in wrong})}
    assert len({row["id"] for row in wrong}) == 8  # green is not blue, and red is class 2
    assert all(row["error"] for row in wrong)
    assert any(not row["box_wrong"] for row in wrong)


def test_masks_that_do_not_belong_are_refused(tiny: dict[str, object], masks: Path, tmp_path: Path) -> None:
    (masks / "red" / "red-0.png").unlink()
    code, _, err = study("localisation", **tiny, masks=masks, n=4, out=tmp_path / "run")
    assert (code, "lacks 1 of 12 masks, the first is red-0.png" in err) == (1, True)
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------ case study

SHORT: dict[str, object] = {"n": 2, "steps": 2, "eps": "60/255"}


def test_the_case_study_classifies_all_images_and_measures_maps_of_wrong_diagnoses(everything: Everything) -> None:
    run = open_run(everything.folder / "case-study")
    reported = case_study.predictions(run).to_pylist()
    assert len(reported) == 90
    assert {(row["id"].partition("/")[0], row["class_true"]) for row in reported} == {
        ("blue", 0),
        ("green", 1),
        ("red", 2),
    }
    (classifier,) = (each for each in STUDIES["case-study"].study.tables(run) if each.name == "classifier")
    assert [row.names[0] for row in classifier.rows[2:]] == run.info["classes"] == ["blue", "green", "red"]
    wrong = {(row["attack"], row["interpreter"], row["id"]) for row in run.outcomes().to_pylist() if row["success"]}
    benign = {("benign", name, id) for name in ("cam", "grad") for id in run.images()[0]}
    measured = case_study.overlaps(run).to_pylist()
    assert {(row["images"], row["interpreter"], row["id"]) for row in measured} == wrong | benign
    (first, *_) = run.maps("benign", "cam")[0]
    lesion = torch.zeros(1, 16, 16, dtype=torch.bool)
    lesion[:, 4:12, 5:11] = True
    expected = case_study.overlap(torch.from_numpy(run.maps("benign", "cam", only=(first,))[1]), lesion)
    (row,) = (
        each for each in measured if (each["images"], each["interpreter"], each["id"]) == ("benign", "cam", first)
    )
    assert {name: row[name] for name in expected} == {name: float(values) for name, values in expected.items()}


@pytest.mark.extended
def test_the_case_study_without_masks_measures_no_overlap_until_they_come(
    tiny: dict[str, object], masks: Path, tmp_path: Path
) -> None:
    options = {**tiny, **SHORT, "out": tmp_path / "run"}
    code, out, err = study("case-study", **options)
    assert (code, err) == (0, "")
    assert "balanced accuracy" in (tmp_path / "run" / "case-study" / "tables" / "classifier.csv").read_text()
    assert "How much of the maps" not in out
    before, computed = files(tmp_path / "run"), list[str]()
    with computing(lambda stage, ids: computed.append(stage), tmp_path / "run"):
        assert study("case-study", **options)[0] == 0
        assert files(tmp_path / "run") == before
        code, out, _ = study("case-study", **options, masks=masks)
    assert (code, computed) == (0, [])
    assert "How much of the maps lies on the lesion" in " ".join(out.split())
    assert (tmp_path / "run" / "case-study" / "tables" / "overlap.csv").is_file()


@pytest.mark.parametrize(
    ("pixels", "complaint"),
    [
        (np.full((16, 8), 255, dtype=np.uint8), "is not the same size as the image; give both one size with --crop."),
        (np.zeros((16, 16), dtype=np.uint8), "its mask shows no object"),
    ],
)
def test_masks_that_the_case_study_cannot_use_leave_nothing_that_looks_finished(
    tiny: dict[str, object], masks: Path, tmp_path: Path, pixels: Any, complaint: str
) -> None:
    for mask in masks.rglob("*.png"):
        Image.fromarray(pixels).save(mask)
    code, _, err = study("case-study", **tiny, **SHORT, masks=masks, out=tmp_path / "run")
    assert (code, err.count("\n")) == (1, 1)
    assert complaint in err
    folder = tmp_path / "run" / "case-study"
    assert not (folder / "tables").exists()
    assert not STUDIES["case-study"].study.is_finished(open_run(folder))
    assert "Not finished yet; run it again." in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


@pytest.mark.extended
def test_lesions_whose_masks_are_empty_are_left_out(tiny: dict[str, object], masks: Path, tmp_path: Path) -> None:
    for mask in (masks / "red").iterdir():
        Image.fromarray(np.zeros((16, 16), dtype=np.uint8)).save(mask)
    assert study("case-study", **tiny, **{**SHORT, "n": 12}, masks=masks, out=tmp_path / "run")[0] == 0
    run = open_run(tmp_path / "run" / "case-study")
    held = {name for name in run.images()[0] if not name.startswith("red")}
    measured = case_study.overlaps(run).to_pylist()
    assert {row["id"] for row in measured if row["images"] == "benign"} == held != set(run.images()[0])


# ------------------------------------------------------------------ report


def report_of(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_all_studies_make_one_report(everything: Everything) -> None:
    page = report_of(everything.folder)
    ids = [str(each["id"]) for each in Tags(page).all("article") if each["class"] == "study"]
    assert ids == [f"study-{name}" for name in STUDIES]
    notices = [each for each in Tags(page).all("p") if each.get("class") == "notice"]
    assert len(notices) == 1, "what stands in the gallery where scripts are not allowed"
    sections = [each["id"] for each in Tags(page).all("section")]
    assert {"verdict", "averages", "detection", "transfer", "gap", "studies", "gallery"} <= set(sections)
    shown = page[page.index('<section id="studies">') :]
    shown = shown[: shown.index("</section>")]
    tables, figures = (len([*everything.folder.glob(f"*/{made}")]) for made in (f"{TABLES}/*.csv", f"{FIGURES}/*.png"))
    assert (shown.count("<table>"), shown.count("<img ")) == (tables, figures)
    assert page.count('<article class="verdict">') == 2


def test_a_report_of_localisation_alone_says_that_nothing_was_attacked(
    everything: Everything, copied: dict[str, object]
) -> None:
    folder = Path(str(copied["out"]))
    for name in STUDIES:
        if name != "localisation":
            shutil.rmtree(folder / name)
    page = report_of(write_report_of(folder).parent)
    assert "There is no verdict on a run of attacks here; what was studied follows." in page
    assert "Table 2." in page
    assert {"gallery", "averages"}.isdisjoint(each["id"] for each in Tags(page).all("section"))


# ------------------------------------------------------------------ sanity


def test_sanity_compares_with_randomised_classifiers(everything: Everything) -> None:
    run = open_run(everything.folder / "sanity")
    rows = pq.read_table(run.path / sanity.TABLE).to_pylist()
    compared = ["the same again", "head randomised", "all randomised", "another image"]
    assert list(dict.fromkeys(row["compared_with"] for row in rows)) == compared
    assert len(rows) == 4 * 2 * (2 + 2 * sanity.SEEDS)
    assert all(row["rank_correlation"] == pytest.approx(1) for row in rows if row["compared_with"] == compared[0])
    assert all(row["map_l1"] == 0 for row in rows if row["compared_with"] == compared[0])
    assert run.maps("all-randomised-0", "cam")[1].shape == (4, 16, 16)
    assert "all randomised" in everything.said[1]


# ------------------------------------------------------------------ AID (any interpreter can stand for a defended one)


def test_aid_compares_the_first_interpreter_with_the_defended_ones(everything: Everything) -> None:
    run = open_run(everything.folder / "aid")
    rows = aid.comparisons(run).to_pylist()
    kinds = {(row["shown_by"], row["images"], row["made_for"]) for row in rows}
    members = [member.name for member in suite(CAM())]
    by_suite = {(row["shown_by"], row["made_for"], row["member"]) for row in rows if row["member"] is not None}
    own_suites = {(name, name, member) for name in ("cam", "smooth:cam") for member in members}
    assert by_suite == own_suites | {("smooth:cam", "cam", PRESET)}
    noises = {(f"{kind} noise, {level} %", None) for kind in ("normal", "uniform") for level in (3, 30)}
    attacks = {("pgd", None), ("adv2", "cam"), ("signs like pgd", None), ("signs like adv2", "cam")}
    own = {("adv2", "smooth:cam"), ("signs like adv2", "smooth:cam")}
    shared = {("benign", None), *noises, *attacks}
    assert kinds == {("cam", *kind) for kind in shared} | {("smooth:cam", *kind) for kind in shared | own}
    assert len(rows) == 4 * (len(kinds) + 2 * (len(members) - 1))
    assert all(row["map_l1"] == 0 for row in rows if (row["shown_by"], row["images"]) == ("cam", "benign"))
    assert any(row["map_l1"] > 0 for row in rows if (row["shown_by"], row["images"]) == ("smooth:cam", "benign"))
    for row in aid.summarise(aid.comparisons(run)):
        attacked = row.images in ("pgd", "adv2")
        assert ((row.success is not None), (row.auc is not None)) == (attacked, attacked)
        assert (row.sigma is not None) == ("noise" in row.images)
        if row.images.endswith("noise, 30 %"):
            assert row.misclassified.value >= 0.3
    assert run.maps("adv2", "smooth:cam")[1].shape == (4, 16, 16)
    assert run.maps("adv2 for cam", "smooth:cam")[1].shape == (4, 16, 16)
    assert run.images("adv2, random start", "cam")[1].shape == (4, 3, 16, 16)
    assert run.maps("normal noise, 3 %", "cam")[1].shape == (4, 16, 16)
    assert set(aid.located(run)) == {"cam", "smooth:cam"}


def test_what_a_suite_shares_is_computed_once(everything: Everything) -> None:
    """Starts are those of all interpreters and members."""
    run = open_run(everything.folder / "aid")
    steps = [each for each in run.info["wall_seconds"] if each in ("warm start", "random starts")]
    assert steps == ["random starts"], "the warm start is that of the study of effectiveness"


def test_aid_attacks_as_underfire_attack_does(everything: Everything) -> None:
    """The same stages under the same keys, so that what one has computed means the same to the other."""
    run = open_run(everything.folder / "aid")
    select = Select(run.info["spec"]["model_fingerprint"], run.info["spec"]["images_digest"], 4, 0)
    given = {name: run.info["spec"][name] for name in ("model", "images", "normalize", "n", "steps", "eps", "seed")}
    settings = AttackSettings(**given, interpreters=("cam",))
    stages = AttackPlan.of(settings, select).stages
    shared = {key(planned.spec) for planned in stages if planned.kind == "image" or "maps as png" in planned.label}
    assert len(shared) == 3 + 2, "benign, PGD's and ADV²'s images, and maps of PNG files"
    assert shared <= {stage["key"] for stage in run.info["stages"]}


def test_the_undefended_interpreter_is_an_rts_where_there_is_one() -> None:
    for names, undefended in ((("cam", "rts"), "rts"), (("grad", "cam"), "grad")):
        request = StudySettings(model="demo", images="demo", interpreters=names, defended=("smooth:cam", "smooth:grad"))
        assert aid.settings_for(request).interpreters == (undefended, "smooth:cam", "smooth:grad")
