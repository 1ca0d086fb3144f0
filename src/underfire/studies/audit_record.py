"""From the walk of an audit to its record: shares, curves, and the flags that speak for or against them.

found = record(settings, run, classifier, walk)
"""

from collections.abc import Iterator
from importlib.metadata import version

import numpy as np
import pyarrow as pa

from underfire.attacks.names import attack_name
from underfire.core.io import rows_where
from underfire.data.corruptions import FILES
from underfire.metrics.betrayal import DEFINITIONS
from underfire.metrics.intervals import Estimate, share
from underfire.models.classifier import Classifier
from underfire.runs.attack_settings import AuditSettings
from underfire.runs.folder import Run
from underfire.runs.outcomes import quoted
from underfire.studies.audit_flags import Case, flags, plausible_maps
from underfire.studies.audit_walk import Trail, Tried, Walk, budget_of
from underfire.studies.audits import (
    Audit,
    Audited,
    AuditedModel,
    CurvePoint,
    DeployedDetector,
    Distances,
    Lasting,
    SecurityCurve,
    Share,
    SuiteMember,
)


def record(settings: AuditSettings, run: Run, classifier: Classifier, walk: Walk) -> Audit:
    """Everything that audit.json holds; all of it is in the store already."""
    info, outcomes = run.info, run.outcomes()
    chosen = info["selection"]
    right = np.arange(chosen["examined"]) < chosen["examined"] - chosen["misclassified"]
    trails = list(walk.trails())
    return Audit(
        underfire=version("underfire"),
        command=info["command"],
        model=AuditedModel(name=settings.model, fingerprint=classifier.fingerprint(), accuracy=_share(share(right))),
        images=settings.images,
        n=len(walk.ids),
        eps=budget_of(trails[0].first.craft),
        suite=settings.suite,
        seed=settings.seed,
        detector=_detector(settings, walk),
        interpreters=[_audited(trail, outcomes, walk, settings, classifier) for trail in trails],
    )


def _detector(settings: AuditSettings, walk: Walk) -> DeployedDetector | None:
    if walk.deployed is None:
        return None
    threshold = walk.deployed.calibrated.detector.threshold
    return DeployedDetector(name=walk.deployed.judgement.name, threshold=threshold, fpr=settings.fpr)


def _audited(trail: Trail, outcomes: pa.Table, walk: Walk, settings: AuditSettings, classifier: Classifier) -> Audited:
    ours = rows_where(outcomes, interpreter=trail.shown.name)
    robust = {name: share([id not in trail.betrayed_by(name) for id in trail.ids]) for name in DEFINITIONS}
    curve, (median, low, high) = trail.curve, trail.curve.median
    return Audited(
        interpreter=trail.shown.name,
        definition=trail.definition,
        robust=_share(robust[trail.definition]),
        robust_by={name: _share(each) for name, each in robust.items()},
        plain_robust=_share(share(~trail.plain.fooled)),
        plausible_under_pgd=_share(share(plausible_maps(_quoted(ours, trail.plain))[trail.definition])),
        members=[_member(each) for each in trail.everything],
        lasting=list(_lasting(trail, rows_where(ours, attack=trail.first.name))),
        curve=SecurityCurve(
            attack=trail.first.name,
            points=[
                CurvePoint(
                    eps=each.eps, betrayed=Share(value=each.share, low=each.low, high=each.high, n=len(trail.ids))
                )
                for each in curve.points()
            ],
            median=median,
            median_low=low,
            median_high=high,
        ),
        distances=list(_distances(trail, ours)),
        flags=list(flags(Case(trail, ours, walk, settings, classifier))),
        betrayed=trail.betrayed_by(trail.definition),
    )


def _quoted(ours: pa.Table, tried: Tried) -> pa.Table:
    """What the table says of an attack, on PNG files."""
    return quoted(rows_where(ours, attack=tried.name))


def _member(tried: Tried) -> SuiteMember:
    return SuiteMember(
        attack=tried.name,
        title=attack_name(tried.name),
        attacked=len(tried.ids),
        fooled=int(tried.fooled.sum()),
        betrayed={name: int(each.sum()) for name, each in tried.betrayed.items()},
    )


def _lasting(trail: Trail, rows: pa.Table) -> Iterator[Lasting]:
    """Of the images that the first member betrays, what is left on files of each form."""
    betrayed = set(trail.first.betrays(trail.definition))
    rows = rows.filter(pa.array([name in betrayed for name in rows["id"].to_pylist()], pa.bool_()))
    for form in FILES:
        fooled = rows[f"success_{form}"].to_numpy().astype(bool)
        both = fooled & plausible_maps(rows, f"_{form}")[trail.definition]
        yield Lasting(form=form, success=_share(share(fooled)), betrayed=_share(share(both)))


def _distances(trail: Trail, ours: pa.Table) -> Iterator[Distances]:
    """Of harmless changes, PGD and the first member; a yardstick and what is held against it."""
    plain, first = _quoted(ours, trail.plain), _quoted(ours, trail.first)
    columns = (("harmless changes", first["natural_l1"]), ("PGD", plain["benign_l1"]))
    for what, values in (*columns, (attack_name(trail.first.name), first["benign_l1"])):
        low, middle, high = np.quantile(values.to_numpy(), (0.25, 0.5, 0.75)).tolist()
        yield Distances(what=what, quartiles=(low, middle, high))


def _share(estimate: Estimate) -> Share:
    value = estimate.value if estimate.n else None
    return Share(value=value, low=estimate.low, high=estimate.high, n=estimate.n)
