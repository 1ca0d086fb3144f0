"""The worst case of a suite of attacks on each interpreter: on which share of images would nobody have noticed?

    run = execute(settings, Subject(classifier, image_set), Path("runs/audit"), Manner("…"))
    audit_of(run).worst.robust

The attacks are those of a run of `underfire attack`; which images each of them meets is up to the walk (see
`underfire.studies.audit_walk`). audit.json is written last (see `underfire.studies.audits`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from underfire.core.io import write_json
from underfire.detection.calibration import check_enough
from underfire.detection.registry import Judgement, judgements_named
from underfire.interpreters import Interpreter
from underfire.runs.attack_settings import AuditSettings
from underfire.runs.compute import Context
from underfire.runs.execute import Experiment, Manner, adding_to, perform
from underfire.runs.execute import execute as execute_experiment
from underfire.runs.folder import Run
from underfire.runs.plan import AttackPlan, Planned, PlannedAttack, stages_of
from underfire.runs.specs import Detect, Meet, key
from underfire.runs.store import Store
from underfire.studies import effectiveness, outcome_rows
from underfire.studies.audit_record import record
from underfire.studies.audit_walk import Compute, Deployed, Walk
from underfire.studies.audits import AUDIT
from underfire.studies.base import Subject, identity, select_from
from underfire.studies.calibration_images import met, not_attacked
from underfire.studies.detect import Pictured, calibrate
from underfire.studies.detect import plan as detection_stages

NAME = "audit"  # in run.json


def execute(
    settings: AuditSettings,
    subject: Subject,
    out: Path,
    manner: Manner,
    explainers: Sequence[Interpreter] | None = None,
) -> Run:
    """Compute what the folder `out` does not hold yet; UnderfireError if it holds a run with other settings.

    Stages are shared with those of the folder around `out`, where that is a run folder or one of studies. Explainers
    that are given stand in for those that the settings name.
    """
    select = select_from(settings, subject.classifier, subject.image_set)
    audit = Auditing(settings, subject, AttackPlan.of(settings.attacks(), select, explainers))
    shared = (out.absolute().parent / "stages").is_dir()
    made = audit.experiment(manner.batch_size)
    made = made if explainers is None else replace(made, asked=None)
    run = execute_experiment(made, out, subject.classifier, manner, shared=shared)
    with adding_to(run):
        walk = audit.walk(run, run.ids, lambda stages, ids: None)
        write_json(run.path / AUDIT, record(settings, run, subject.classifier, walk).model_dump(mode="json"))
    return run


@dataclass(frozen=True)
class Auditing:
    """What is audited, and the attacks."""

    settings: AuditSettings
    subject: Subject
    plan: AttackPlan

    def experiment(self, batch_size: int) -> Experiment:
        """The suite's attacks, each on those images that the walk leaves to it."""
        if self.settings.detector is not None:
            spare = min(self.settings.benign, len(self.subject.image_set) - self.settings.n)
            check_enough(spare // 2, self.settings.fpr)
        return replace(
            effectiveness.experiment(self.settings.attacks(), self.subject, batch_size, self.plan.explainers),
            spec=identity(self.settings, self.plan.select, NAME),
            tabulate=partial(_table, self.plan),
            continues=self._continues,
            perform=self._perform,
            asked=self.settings,
        )

    def walk(self, run: Run, ids: tuple[str, ...], compute: Compute) -> Walk:
        """Through what the run's store holds, and what is computed on the way."""
        return Walk(self.plan, ids, run.store, compute, self._deployed(run, ids, compute))

    def _perform(
        self,
        stages: Iterable[Planned],
        ids: tuple[str, ...],
        context: Context,
        run: Run,
        manner: Manner,
    ) -> bool:
        """The whole walk; what an earlier one found stands no longer."""
        (run.path / AUDIT).unlink(missing_ok=True)
        computed = list[bool]()

        def compute(stages: Iterable[Planned], ids: tuple[str, ...]) -> None:
            computed.append(perform(stages, ids, context, run, manner))

        for _ in self.walk(run, ids, compute).trails():
            pass
        return any(computed)

    def _deployed(self, run: Run, ids: tuple[str, ...], compute: Compute) -> Deployed | None:
        """The detector, calibrated on images that are not attacked."""
        settings, classifier = self.settings, self.subject.classifier
        judgement = _judgement(settings)
        if judgement is None:
            return None
        unseen = not_attacked(run, ids, self.subject.image_set)
        source = Meet(classifier.fingerprint(), unseen.digest, settings.benign, settings.seed)
        found = met(source, unseen, classifier, run.store, settings.fpr)
        benign = found.halved(settings.seed, unseen.groups_of(found.ids))
        compute(detection_stages(judgement.parts, Pictured(key(source), "benign", None, benign.ids)), benign.ids)
        scores = [run.store.read(key(Detect(key(source), each)), "score", benign.ids) for each in judgement.parts]
        return Deployed(judgement, calibrate(judgement, [each[benign.fitting] for each in scores], settings.fpr))

    def _continues(self, held: Mapping[str, Any]) -> tuple[Planned, ...] | None:
        """An audit of fewer images goes on with more."""
        spec = identity(self.settings, self.plan.select, NAME)
        return self.plan.stages if {**held, "n": spec["n"]} == spec and held["n"] < spec["n"] else None


def _judgement(settings: AuditSettings) -> Judgement | None:
    """The detector that is deployed: all parts of what was named, as a whole."""
    if settings.detector is None:
        return None
    return judgements_named(settings.detector, settings.interpreters)[-1]


def _table(plan: AttackPlan, ids: tuple[str, ...], store: Store) -> Iterator[pa.Table]:
    """One row per image x attack x interpreter, of the images that the attack met."""
    for shown in plan.interpreters:
        beside = outcome_rows.floors(shown, plan.select, ids, store)
        for attack in plan.attacks:
            if shown.name in attack.scored.maps and (met_by_it := _met(attack, ids, store)):
                yield outcome_rows.outcomes_of(attack, shown, plan.select, met_by_it, beside, store)


def _met(attack: PlannedAttack, ids: tuple[str, ...], store: Store) -> tuple[str, ...]:
    """The images on which all is there that is measured of the attack."""
    *_, last = stages_of(attack)
    held = set(store.done(key(last.spec)))
    return tuple(name for name in ids if name in held)
