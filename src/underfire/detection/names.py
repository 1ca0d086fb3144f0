"""What detectors and squeezers are called on the command line."""

DETECTORS = (
    "fs",
    "fs:SQUEEZER+…",
    "consistency",
    "consistency:INTERPRETER[:CHANGE]+…",
    "ensemble",
    "ensemble:INTERPRETER+…",
)
SQUEEZERS = ("bits:2", "median:3", "nlm:11-3-4")  # one example of each kind
