"""The study of effectiveness: what it plans, that its table follows from its images and maps, what it refuses."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from printed import DENSENET, by_name, held_run, names_of, numbers, printed
from underfire.attacks import engine, recipes
from underfire.attacks.perturbations import Flow
from underfire.attacks.target_maps import Patch, Pool, Wanted
from underfire.core.errors import UnderfireError
from underfire.core.rng import image_keys
from underfire.core.rows import cat, take
from underfire.core.types import Goal
from underfire.data.image_set import ImageSet, open_images
from underfire.interpreters import CAM, GRAD, Interpreter
from underfire.metrics.maps import linf
from underfire.models.classifier import Classifier
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.execute import Manner
from underfire.runs.folder import Run
from underfire.runs.plan import AttackPlan, Planned
from underfire.runs.specs import Craft, Select, key
from underfire.runs.store import Store
from underfire.studies import effectiveness
from underfire.studies.base import Subject
from underfire.studies.effectiveness import execute


@pytest.fixture(scope="module", autouse=True)
def _short_recipe() -> Iterator[None]:
    """Five steps where the annealed recipe has a hundred: what is computed matters here, not how well it works."""
    with pytest.MonkeyPatch.context() as patch:
        short = replace(recipes.RECIPES["annealed"], warm_steps=4, plain_steps=5)
        patch.setattr(recipes, "RECIPES", {**recipes.RECIPES, "annealed": short})
        yield


def settings(**changes: Any) -> AttackSettings:
    return AttackSettings(**{"model": "tiny", "images": "photos", "n": 5, "steps": 5, "normalize": "none", **changes})


def run_of(
    classifier: Classifier, image_set: ImageSet, out: Path, wanted: AttackSettings | None = None, batch_size: int = 4
) -> Run:
    return execute(wanted or settings(), Subject(classifier, image_set), out, Manner("test", batch_size))


@pytest.fixture(scope="module")
def run(tiny_model: str, tiny_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Five images by PGD and ADV² for CAM and GRAD, for tests that change nothing."""
    classifier = Classifier.load(tiny_model, None, "none")
    return run_of(classifier, open_images(tiny_photos), tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def aimed(tiny_model: str, tiny_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same at a patch, for CAM."""
    wanted, classifier = settings(target_map="patch", interpreters=("cam",)), Classifier.load(tiny_model, None, "none")
    return run_of(classifier, open_images(tiny_photos), tmp_path_factory.mktemp("runs") / "run", wanted)


def plan(settings: AttackSettings, select: Select) -> tuple[Planned, ...]:
    return AttackPlan.of(settings, select).stages


# ------------------------------------------------------------------ settings and plan


def test_stages_are_planned_once_and_after_what_they_need() -> None:
    wanted = settings(solvers=("pgd", "stadv"), recipe="paper", evade=("fs:bits:2", "fs", "ensemble"))
    planned = list(plan(wanted, Select("m", "i", 5, 0)))
    specs = [each.spec for each in planned]
    assert len(set(map(repr, specs))) == len(specs)
    for place, spec in enumerate(specs):
        needed = [
            getattr(spec, name) for name in ("of", "goal", "start", "anchor") if getattr(spec, name, None) is not None
        ]
        assert all(each in specs[:place] for each in needed), spec
    assert len({each.label for each in planned}) == len(planned)


def test_every_solver_that_can_hides_from_every_detector() -> None:
    wanted = settings(
        solvers=("pgd", "square", "stadv"), steps=None, evade=("fs", "ensemble"), interpreters=("cam", "grad")
    )
    made = AttackPlan.of(wanted, Select("m", "i", 5, 0)).attacks
    assert [(each.name, each.solver, each.evades) for each in made if each.interpreter in (None, CAM())] == [
        ("pgd", "pgd", None), ("adv2", "pgd", None), ("adv2-evading-fs", "pgd", "fs"),
        ("adv2-ensemble", "pgd", "ensemble"),
        ("square", "square", None), ("adv2-square", "square", None),
        ("stadv", "stadv", None), ("adv2-stadv", "stadv", None), ("adv2-stadv-evading-fs", "stadv", "fs"),
        ("adv2-stadv-ensemble", "stadv", "ensemble"),
    ]  # fmt: skip
    bent = [each.craft.attack for each in made if each.evades and each.solver == "stadv"]
    assert all(each.perturbation == Flow() for each in bent)


def test_the_plan_says_what_readers_find_where() -> None:
    shown = [
        (each.kind, each.attack, each.interpreter)
        for each in plan(settings(interpreters=("grad",)), Select("m", "i", 5, 0))
        if each.kind != "step"
    ]
    assert shown == [
        ("image", "benign", None),
        ("map", "benign", "grad"),
        ("image", "pgd", None),
        ("map", "pgd", "grad"),
        ("image", "adv2", "grad"),
        ("map", "adv2", "grad"),
    ]


def test_another_solver_has_a_plan_and_a_recipe_of_its_own() -> None:
    wanted, of_pixels = (settings(interpreters=("cam",), solvers=(solver,)) for solver in ("stadv", "pgd"))
    planned, others = (list(plan(each, Select("m", "i", 5, 0))) for each in (wanted, of_pixels))
    assert [(each.kind, each.attack) for each in planned if each.kind != "step"] == [
        ("image", "benign"),
        ("map", "benign"),
        ("image", "stadv"),
        ("map", "stadv"),
        ("image", "adv2-stadv"),
        ("map", "adv2-stadv"),
    ]
    shared = [each.label for each in planned if each.spec in [other.spec for other in others]]
    assert shared == ["images", "targets", "benign maps, cam", "natural variation, cam"]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("cam", "lime"), "There is no interpreter 'lime'; there are cam, grad"),
        (("cam", "grad", "cam"), "Interpreter 'cam' is named twice"),
    ],
)
def test_unknown_and_repeated_interpreters_are_refused(names: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UnderfireError, match=sentence):
        settings(interpreters=names)


@pytest.mark.parametrize(
    "changes", [{"recipe": "burnt"}, {"n": 0}, {"eps": 0.0}, {"norm": "l1"}, {"steps": 0}, {"steps_": 1}]
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"evade": ("fs:gauss:3",)}, "There is no squeezer 'gauss:3'"),
        ({"evade": ("fence",)}, "There is no detector 'fence'"),
        (
            {"evade": ("ensemble:cam+grad",)},
            "'ensemble:cam.grad' cannot be evaded; name fs, ",
        ),
        ({"evade": ("fs+ensemble",)}, "'fs.ensemble' cannot be evaded"),
        ({"solvers": ("cw",)}, "There is no solver 'cw'; there are pgd, pgd-l2, stadv"),
        ({"eps": 1.5}, "eps is 1.5; it must be at least 0 and at most 1; did you mean"),
        (
            {"norm": "l2", "solvers": ("stadv",)},
            "Solver 'stadv' moves pixels in place .* leave out --norm",
        ),
        ({"region": "gone.png"}, "There is no region 'gone.png'"),
        ({"evade": ("fs", "fs")}, "'fs' is named twice"),
        ({"solvers": ("pgd", "pgd")}, "'pgd' is named twice"),
        ({"evade": ("ensemble",), "interpreters": ("cam",)}, "name two or more"),
        ({"evade": ("ensemble",), "target_map": "patch"}, "no --target-map"),
        ({"solvers": ("stadv",), "eps": 0.1}, "leave out --eps"),
        ({"solvers": ("stadv",), "on_grid": True}, "leave out --on-grid"),
        ({"solvers": ("square",), "steps": 3}, "Solver 'square' counts queries; give --queries in place of --steps"),
        ({"solvers": ("stadv", "pgd"), "queries": 99}, "Solver 'stadv' counts steps; give --steps in place of --que"),
        ({"solvers": ("square",), "steps": None, "evade": ("fs",)}, "hides from no detector; name another --solver"),
    ],
)
def test_attacks_that_make_no_sense_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UnderfireError, match=sentence):
        settings(**changes)


# ------------------------------------------------------------------ the table


def rows_of(run: Run, attack: str, interpreter: str) -> dict[str, list[Any]]:
    rows = [r for r in run.outcomes().to_pylist() if (r["attack"], r["interpreter"]) == (attack, interpreter)]
    return {name: [row[name] for row in rows] for name in rows[0]}


def close(values: Sequence[float], expected: Tensor) -> bool:
    return torch.allclose(torch.tensor(values, dtype=torch.float32), expected, atol=1e-5)


@pytest.mark.parametrize("interpreter", [CAM(), GRAD()], ids=lambda each: each.name)
@pytest.mark.parametrize("attack", ["pgd", "adv2"])
def test_the_table_follows_from_the_stored_images(
    run: Run, classifier: Classifier, interpreter: Interpreter, attack: str
) -> None:
    name = interpreter.name
    rows, (ids, numbers) = rows_of(run, attack, name), run.images(attack, name)
    image, benign = torch.from_numpy(numbers), torch.from_numpy(run.images("benign")[1])
    target, true = torch.tensor(rows["class_target"]), torch.tensor(rows["class_true"])
    logits, rounded = classifier(image), classifier((image * 255).round() / 255)
    keys = image_keys(ids)
    shown, wanted = (
        interpreter.explain(classifier, image, logits.argmax(1), keys),
        interpreter.explain(classifier, benign, true, keys),
    )
    assert tuple(rows["id"]) == ids == run.images("benign")[0]
    assert rows["class_predicted"] == logits.argmax(1).tolist()
    assert rows["success"] == (logits.argmax(1) == target).tolist()
    assert rows["success_png"] == (rounded.argmax(1) == target).tolist()
    assert not any(rows["map_constant"])
    assert not any(rows["target_constant"])
    assert set(rows["repeat_l1"]) == {0.0}  # neither CAM nor GRAD draws
    assert set(rows["reason"]) == {"budget"}
    assert set(rows["steps"]) == {5}
    assert close(rows["confidence"], logits.softmax(1).gather(1, target[:, None])[:, 0])
    assert close(rows["linf"], linf(image, benign))
    assert close(rows["map_l1"], (shown - wanted).abs().mean((1, 2)))
    assert close(rows["map_l2"], (shown - wanted).square().mean((1, 2)).sqrt())
    assert torch.allclose(torch.from_numpy(run.maps(attack, name)[1]), shown, atol=1e-5)
    assert torch.allclose(torch.from_numpy(run.maps("benign", name)[1]), wanted, atol=1e-5)


def test_flows_have_columns_that_other_attacks_leave_empty(
    classifier: Classifier, image_set: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(recipes.FLOW_RECIPES["annealed"], warm_steps=4, plain_steps=5)
    monkeypatch.setattr(recipes, "FLOW_RECIPES", {"annealed": short})
    bent = run_of(classifier, image_set, tmp_path / "bent", settings(solvers=("stadv",), interpreters=("cam",)))
    for attack in ("stadv", "adv2-stadv"):
        rows, theta = rows_of(bent, attack, "cam"), torch.from_numpy(bent.thetas(attack, "cam")[1])
        assert close(rows["flow_mean"], Flow().size(theta))
        assert close(rows["flow_smoothness"], Flow().cost(theta))
        assert close(rows["linf"], linf(*(torch.from_numpy(bent.images(name)[1]) for name in (attack, "benign"))))
        benign = torch.from_numpy(bent.images("benign")[1])
        assert torch.equal(Flow().decode(benign, theta), torch.from_numpy(bent.images(attack)[1]))
    changed = run_of(classifier, image_set, tmp_path / "changed", settings(interpreters=("cam",)))
    for name in ("flow_mean", "flow_smoothness"):
        assert changed.outcomes()[name].null_count == changed.outcomes().num_rows
    assert bent.outcomes().schema == changed.outcomes().schema


def test_attacks_that_evade_have_images_and_rows_of_their_own(
    classifier: Classifier, image_set: ImageSet, tmp_path: Path
) -> None:
    run = run_of(classifier, image_set, tmp_path / "run", settings(evade=("fs:median:3", "ensemble")))
    assert run.outcomes().num_rows == 5 * 2 * 4
    for name in ("cam", "grad"):
        images = [run.images(attack, name)[1] for attack in ("adv2", "adv2-evading-fs:median:3", "adv2-ensemble")]
        assert all((one != other).any() for one, other in combinations(images, 2))
        rows, benign = rows_of(run, "adv2-ensemble", name), torch.from_numpy(run.maps("benign", name)[1])
        assert close(rows["map_l1"], (torch.from_numpy(run.maps("adv2-ensemble", name)[1]) - benign).abs().mean((1, 2)))
    of_each = [run.images("adv2-ensemble", name)[1] for name in ("cam", "grad")]
    assert (of_each[0] == of_each[1]).all(), "one image serves all interpreters"


def test_algorithm_2_draws_on_the_images_that_its_first_stage_has_left(
    classifier: Classifier, image_set: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(recipes.RECIPES, "paper", replace(recipes.RECIPES["paper"], warm_steps=2, plain_steps=2))
    wanted = settings(recipe="paper", interpreters=("cam",), evade=("fs:bits:2",), n=2)
    run = run_of(classifier, image_set, tmp_path / "run", wanted, batch_size=2)
    stages = {each.label: each.spec for each in plan(wanted, Select(classifier.fingerprint(), image_set.digest, 2, 0))}
    first, second = (
        stages[label] for label in ("first stage of adv2-evading-fs:bits:2", "adv2-evading-fs:bits:2, cam")
    )
    assert isinstance(first, Craft)
    assert isinstance(second, Craft)
    ids, store = run.images()[0], Store(run.path)
    goal = Goal(
        image_keys(ids),
        torch.from_numpy(run.images()[1]),
        store.read(key(first.of), "target", ids),
        torch.from_numpy(run.maps("benign", "cam")[1]),
        classifier(store.read(key(first), "image", ids)).softmax(1),
    )
    assert second.start is not None
    start = store.read(key(second.start), "theta", ids)
    index, outcomes = zip(*engine.stream(second.attack, classifier, goal, 2, start=start), strict=True)
    again = take(cat(list(outcomes)), torch.cat(index).argsort()).image
    assert torch.allclose(again, torch.from_numpy(run.images("adv2-evading-fs:bits:2", "cam")[1]), atol=1e-5)


def test_labels_are_those_of_the_image_set(run: Run) -> None:
    for row in run.outcomes().to_pylist():
        assert run.info["classes"][row["class_true"]] == row["id"].partition("/")[0]
        assert row["class_target"] != row["class_true"]


def test_the_batch_changes_no_outcome(run: Run, classifier: Classifier, image_set: ImageSet, tmp_path: Path) -> None:
    wide, narrow = run.outcomes(), run_of(classifier, image_set, tmp_path / "narrow", batch_size=2).outcomes()
    assert [row["id"] for row in wide.to_pylist()] == [row["id"] for row in narrow.to_pylist()]
    for name in ("confidence", "map_l1", "linf"):
        assert wide[name].to_pylist() == pytest.approx(narrow[name].to_pylist(), abs=1e-3)


def test_run_json_says_how_the_run_was_made(classifier: Classifier, image_set: ImageSet, tmp_path: Path) -> None:
    wanted = settings(seed=3, n=9, eps=0.02)
    info = run_of(classifier, image_set, tmp_path / "run", wanted).info
    assert info["command"] == "test"
    assert info["spec"]["seed"] == info["seed"] == 3
    assert info["spec"]["eps"] == info["recipe"][0]["perturbation"]["eps"] == 0.02
    assert info["spec"]["model_fingerprint"] == info["model"]["fingerprint"] == classifier.fingerprint()
    assert info["spec"]["images_digest"] == image_set.digest
    assert info["model"]["features"] == "features"
    assert info["model"]["normalization"] == "none, as asked for"
    assert info["versions"]["torch"] == version("torch")
    assert info["device"] == "cpu"
    assert info["classes"] == ["blue", "green", "red"]
    assert info["selection"] == {"requested": 9, "examined": 9, "misclassified": 0, "passed_over": 0}
    assert info["skipped"] == []
    assert set(info["wall_seconds"]) == {each.label for each in plan(wanted, Select("", "", 1, 0))}
    assert info["wall_seconds"]["pgd"] > 0


def test_each_stage_reports_its_progress(classifier: Classifier, image_set: ImageSet, tmp_path: Path) -> None:
    last: dict[str, tuple[int, int, int]] = {}

    def listen(planned: Planned, progress: Any) -> None:
        last[planned.label] = (progress.images, progress.steps, progress.planned_steps)

    manner = Manner("test", batch_size=4, on_progress=listen)
    execute(settings(), Subject(classifier, image_set), tmp_path / "run", manner)
    assert last["pgd"] == last["adv2, cam"] == (5, 25, 25)
    assert last["warm start of pgd"] == (5, 20, 20)
    assert last["adv2 maps, grad"] == (5, 5, 5)


# ------------------------------------------------------------------ refused before anything is written


class Flattening(nn.Module):
    """Like VGG: the features are flattened, not averaged, before the linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2))
        self.classifier = nn.Sequential(nn.Linear(4 * 7 * 7, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


class Rounding(nn.Module):
    """Its output is a step function, so it has no gradient."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return (self.net(x.detach()) * 4).round()


def recognising(net: nn.Module, image_set: ImageSet) -> ImageSet:
    """The same images with the labels that a network gives them."""
    classifier = Classifier(net)
    labels = [int(classifier(image_set.read(i)[None]).argmax()) for i in range(len(image_set))]
    return replace(image_set, labels=torch.tensor(labels))


def test_a_network_without_cam_is_refused_before_the_first_attack(image_set: ImageSet, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, out = Flattening().eval(), tmp_path / "run"
    images, wanted = recognising(net, image_set), settings(interpreters=("grad", "cam"))
    with pytest.raises(
        UnderfireError, match=r"^CAM needs .*use Grad-CAM \(grad-cam\), which explains 'features'.*--features"
    ):
        run_of(Classifier(net), images, out, wanted)
    assert not out.exists()
    run_of(Classifier(net, features="features.2"), images, out, settings(interpreters=("grad-cam",)))
    assert out.exists()


def test_a_network_without_gradient_is_refused_before_the_first_attack(
    classifier: Classifier, image_set: ImageSet, tmp_path: Path
) -> None:
    net = Rounding(classifier.network)
    with pytest.raises(UnderfireError, match="outputs have no gradient in the image"):
        run_of(Classifier(net), recognising(net, image_set), tmp_path / "run", settings(interpreters=("grad",)))
    assert not (tmp_path / "run").exists()


def test_a_folder_of_something_else_is_refused_and_kept(
    classifier: Classifier, image_set: ImageSet, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UnderfireError, match="is not empty and contains no run; choose another --out"):
        run_of(classifier, image_set, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_empty_folder_and_the_rest_of_a_killed_write_are_no_obstacle(
    classifier: Classifier, image_set: ImageSet, tmp_path: Path
) -> None:
    (tmp_path / ".kj2x81.json").write_text("half")
    wanted = settings(n=2, interpreters=("cam",))
    assert run_of(classifier, image_set, tmp_path, wanted).outcomes().num_rows == 2 * 2


def test_a_run_whose_attacks_meant_something_else_is_refused(
    run: Run, classifier: Classifier, image_set: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = replace(recipes.RECIPES["annealed"], warm_steps=3)
    monkeypatch.setattr(recipes, "RECIPES", {**recipes.RECIPES, "annealed": changed})
    with pytest.raises(
        UnderfireError, match=r"was begun by underfire 0\.\d+\.\d+, whose attacks are not those of this"
    ):
        run_of(classifier, image_set, run.path)


# ------------------------------------------------------------------ targets


def test_benign_targets_take_no_stage_of_their_own() -> None:
    benign, patch = (list(plan(settings(target_map=name), Select("m", "i", 5, 0))) for name in ("benign", "patch"))
    added = {each.label for each in patch} - {each.label for each in benign}
    assert added == {"target maps, cam", "target maps, grad"}


@pytest.mark.parametrize("attack", ["pgd", "adv2"])
def test_targeted_maps_are_measured_against_target_and_benign_maps(aimed: Run, attack: str) -> None:
    shown, target, benign = (torch.from_numpy(aimed.maps(name, "cam")[1]) for name in (attack, "target", "benign"))
    rows, keys = rows_of(aimed, attack, "cam"), image_keys(aimed.images()[0])
    wanted = Wanted(keys, keys, Pool(keys, keys, benign))
    assert torch.equal(target, Patch().maps(wanted, seed=0)[0])
    assert close(rows["map_l1"], (shown - target).abs().mean((1, 2)))
    assert close(rows["benign_l1"], (shown - benign).abs().mean((1, 2)))
    assert rows["target_map_of"] == [None] * 5


def test_a_borrowed_map_is_the_benign_map_of_the_image_that_is_named(
    classifier: Classifier, image_set: ImageSet, tmp_path: Path
) -> None:
    run = run_of(classifier, image_set, tmp_path / "run", settings(target_map="random-class", interpreters=("cam",)))
    (ids, benign), (_, target) = run.maps("benign", "cam"), run.maps("target", "cam")
    rows = rows_of(run, "adv2", "cam")
    true = dict(zip(rows["id"], rows["class_true"], strict=True))
    for i, donor in enumerate(rows["target_map_of"]):
        assert donor != ids[i]
        assert true[donor] != rows["class_target"][i]
        assert (target[i] == benign[ids.index(donor)]).all()


def test_benign_targets_have_one_distance(run: Run) -> None:
    table = run.outcomes()
    assert table["benign_l1"] == table["map_l1"]
    assert table["target_map_of"].null_count == table.num_rows


def test_images_of_the_target_class_are_passed_over_and_n_are_found(
    classifier: Classifier, image_set: ImageSet, tmp_path: Path
) -> None:
    run = run_of(classifier, image_set, tmp_path / "run", settings(target_class="1", interpreters=("cam",)))
    rows = rows_of(run, "adv2", "cam")
    assert rows["class_target"] == [1] * 5
    assert set(rows["class_true"]) == {0, 2}
    assert run.info["selection"]["passed_over"] == 4


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"target_class": "3"}, "Target class 3 does not exist; the model has classes 0 to 2"),
        ({"target_class": "worst"}, "There is no target class 'worst'"),
        ({"target_map": "random-class", "n": 1}, "No other image can lend its map"),
        ({"target_map": "nowhere.png"}, r"There is no target map 'nowhere\.png'"),
    ],
)
def test_targets_that_cannot_be_are_refused_before_anything_is_written(
    classifier: Classifier, image_set: ImageSet, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UnderfireError, match=sentence):
        run_of(classifier, image_set, tmp_path / "run", settings(**changes))
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------ the paper's tables


def test_tables_3_and_12() -> None:
    found = by_name(effectiveness.tables(held_run("pgd", "adv2")))
    assert set(found) == {"table-3", "table-12", "figure-6"}
    assert found["table-3"].columns == ("GRAD", "CAM", "MASK", "RTS")
    assert names_of(found["table-3"]) == [("PGD",), ("ADV²",)]
    assert printed(found["table-3"]) == [numbers("1 1 1 1 1 1 1 1"), numbers("1 .99 1 1 .98 .99 1 1")]
    assert found["table-12"].columns == ("ΔL1", "ΔL2")
    pairs = [(name, attack) for name in ("GRAD", "CAM", "MASK", "RTS") for attack in ("PGD", "ADV²")]
    assert names_of(found["table-12"]) == pairs
    assert printed(found["table-12"]) == [
        numbers(line)
        for line in (".10 .14", ".04 .07", ".22 .28", ".05 .06", ".28 .38", ".09 .16", ".22 .42", ".01 .06")
    ]
    ours = [value.ours.value for row in found["table-3"].rows for cell in row.cells for value in cell if value.ours]
    assert ours == pytest.approx([1.0, 0.97] * 8)


def test_columns_keep_the_order_of_the_request_and_others_have_no_anchor() -> None:
    table = by_name(effectiveness.tables(held_run("pgd", "adv2", names=("rts", "ig", "grad"))))["table-3"]
    assert table.columns == ("RTS", "IG", "GRAD")
    assert printed(table)[1] == numbers("1 1 - - 1 .99")


def test_a_densenet_stands_beside_the_papers() -> None:
    found = by_name(effectiveness.tables(held_run("pgd", "adv2", info=DENSENET)))
    assert printed(found["table-3"])[1] == numbers("1 .98 1 1 .96 .98 1 1")
    assert "the paper's DenseNet" in found["table-12"].title
    assert [row[0] for row in printed(found["table-12"])] == numbers(".11 .05 .31 .04 .27 .09 .26 .02")


def test_the_first_line_says_how_the_images_were_found(
    classifier: Classifier, image_set: ImageSet, tmp_path: Path
) -> None:
    told = list[str]()
    settings = AttackSettings(model="tiny", images="photos", n=3, steps=1, interpreters=("cam",))
    for _ in range(2):
        execute(settings, Subject(classifier, image_set), tmp_path, Manner("…", on_notice=told.append))
    (sentence,) = told
    examined = int(sentence.split(" of ")[1].split()[0])
    assert sentence == (
        f"3 of {examined} examined classified right ({300 / examined:.0f} %), 16 × 16, 3 classes, "
        "normalisation: none, as asked for."
    )
