from .adapters.adapter import explainer as explainer
from .adapters.probe import probe as probe
from .adapters.raw import Post as Post
from .cam import CAM as CAM, GradCAM as GradCAM
from .ensemble import Ensemble as Ensemble
from .grad import GRAD as GRAD
from .input_gradients import (
    FiniteDifferences as FiniteDifferences,
    OneSidedDifferences as OneSidedDifferences,
    SmoothedReLU as SmoothedReLU,
)
from .integrated_gradients import IG as IG, GaussLegendre as GaussLegendre, Midpoints as Midpoints
from .mask.attacker import Replay as Replay, Unrolled as Unrolled
from .mask.interpreter import MASK as MASK
from .protocol import Blind as Blind, Interpreter as Interpreter
from .relu_gates import LogisticGate as LogisticGate, MonotoneGate as MonotoneGate, PaperGate as PaperGate
from .rollout import GradRollout as GradRollout, Rollout as Rollout
from .rts import RTS as RTS
from .smooth import Smooth as Smooth
