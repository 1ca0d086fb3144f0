from .attacks.api import (
    Attacker as Attacker,
    adv2 as adv2,
    adv2_square as adv2_square,
    adv2_stadv as adv2_stadv,
    pgd as pgd,
    square as square,
    stadv as stadv,
)
from .attacks.result import Result as Result
from .attacks.target_classes import (
    LeastLikelyClass as LeastLikelyClass,
    NextClass as NextClass,
    OneClass as OneClass,
    RandomClass as RandomClass,
    target_class_named as target_class_named,
)
from .attacks.target_maps import Patch as Patch, RandomClassMap as RandomClassMap, target_map_named as target_map_named
from .core.errors import UnderfireError as UnderfireError
from .detection.squeezers import BitDepth as BitDepth, Median as Median, NonLocalMeans as NonLocalMeans
from .interpreters import (
    CAM as CAM,
    GRAD as GRAD,
    IG as IG,
    MASK as MASK,
    RTS as RTS,
    Ensemble as Ensemble,
    FiniteDifferences as FiniteDifferences,
    GaussLegendre as GaussLegendre,
    GradCAM as GradCAM,
    GradRollout as GradRollout,
    LogisticGate as LogisticGate,
    Midpoints as Midpoints,
    MonotoneGate as MonotoneGate,
    OneSidedDifferences as OneSidedDifferences,
    PaperGate as PaperGate,
    Post as Post,
    Replay as Replay,
    Rollout as Rollout,
    Smooth as Smooth,
    SmoothedReLU as SmoothedReLU,
    Unrolled as Unrolled,
    explainer as explainer,
    probe as probe,
)
from .models.classifier import Classifier as Classifier
from .report.api import audit as audit, evaluate as evaluate, run as run, verdict as verdict
from .report.page import write_report as write_report
from .runs.folder import Run as Run, open_run as open_run
from .studies.audits import Audit as Audit
