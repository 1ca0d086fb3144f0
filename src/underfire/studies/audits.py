"""What `underfire audit` leaves in a run folder: audit.json, its records and what programs may rely on.

    audit = audit_of(open_run("runs/audit"))
    audit.interpreters[0].robust.value          # joint robust accuracy of the first IDLS

The schema of the file is `Audit.model_json_schema()`, kept in docs/audit.schema.json; `version` rises where a field
changes its meaning or goes.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from underfire.core.errors import UnderfireError
from underfire.core.io import read_json
from underfire.metrics.betrayal import Definition
from underfire.runs.folder import Run

AUDIT = "audit.json"


class Record(BaseModel):
    """Frozen; what it holds is all that there is."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Share(Record):
    """A share of n images with its 95 % interval (Wilson); null where n is 0."""

    value: float | None
    low: float
    high: float
    n: int


class SuiteMember(Record):
    """One attack of the suite: on how many images it was tried, and of how many it deceived what."""

    attack: str
    title: str
    attacked: int
    fooled: int = Field(description="Images that are classified as the target class.")
    betrayed: dict[Definition, int] = Field(description="Of these the ones that nobody would have noticed.")


class Lasting(Record):
    """Of images that ADV2 betrays: on a file of this form the class lasts, and class and map last."""

    form: str
    success: Share
    betrayed: Share


class CurvePoint(Record):
    """The share of images that are betrayed within a budget."""

    eps: float
    betrayed: Share


class SecurityCurve(Record):
    """The smallest budgets that betray; median is null where half of the images resist the largest."""

    attack: str
    points: list[CurvePoint]
    median: float | None
    median_low: float | None
    median_high: float | None


class Distances(Record):
    """Mean absolute difference to the benign map, the quartiles over images."""

    what: str
    quartiles: tuple[float, float, float]


class Flag(Record):
    """What speaks for or against a number; `number` is what was held against `limit`, null where nothing was."""

    name: str
    raised: bool
    number: float | None
    limit: float | None
    sentence: str


class Audited(Record):
    """One IDLS: the classifier with one interpreter."""

    interpreter: str
    definition: Definition = Field(description="By which `robust` and the curve call a map plausible: the stricter.")
    robust: Share = Field(description="Joint robust accuracy: images that no attack of the suite betrays.")
    robust_by: dict[Definition, Share]
    plain_robust: Share = Field(description="Images that PGD does not fool, whatever the map shows.")
    plausible_under_pgd: Share = Field(description="Maps that PGD leaves plausible though it ignores them.")
    members: list[SuiteMember]
    lasting: list[Lasting]
    curve: SecurityCurve
    distances: list[Distances]
    flags: list[Flag]
    betrayed: dict[str, str] = Field(description="Images, each with the attack that betrays it first.")


class AuditedModel(Record):
    """The classifier, and how many of the examined images it gets right."""

    name: str
    fingerprint: str
    accuracy: Share


class DeployedDetector(Record):
    """The detector that betrayals must pass."""

    name: str
    threshold: float
    fpr: float


class Audit(Record):
    """What an audit found; written last."""

    version: Literal[1] = 1
    underfire: str
    command: str
    model: AuditedModel
    images: str
    n: int
    eps: float
    suite: str
    seed: int
    detector: DeployedDetector | None
    interpreters: list[Audited]

    @property
    def worst(self) -> Audited:
        """The IDLS with the smallest joint robust accuracy."""
        return min(self.interpreters, key=lambda each: each.robust.value or 0.0)


def audit_of(run: Run) -> Audit:
    """What the run's audit found; UnderfireError if it holds none of this version."""
    path = run.path / AUDIT
    if not path.is_file():
        raise UnderfireError(f"{run.path} contains no finished audit; make one with: underfire audit --out {run.path}")
    return read_audit(path)


def read_audit(path: Path) -> Audit:
    """What an audit.json says; UnderfireError if it is damaged or another version's."""
    try:
        return Audit.model_validate(read_json(path))
    except ValidationError as problem:
        raise UnderfireError(f"{path} is not an audit of this version; run the audit again.") from problem
