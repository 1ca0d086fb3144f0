"""What detectors and squeezers are called on the command line."""

FAMILIES = {
    "fs": "feature squeezing",
    "consistency": "self-consistency",
    "ensemble": "ensemble disagreement",
    "joint": "several families together",
}
DETECTORS = (
    "fs",
    "fs:SQUEEZER+…",
    "consistency",
    "consistency:INTERPRETER[:CHANGE]+…",
    "ensemble",
    "ensemble:INTERPRETER+…",
    "fs+consistency",
)
SQUEEZERS = ("bits:2", "median:3", "nlm:11-3-4")  # one example of each kind


def families_in(detector: str) -> list[str]:
    """The families that are joined by +, each with its parts: of "fs:bits:2+median:3+consistency" there are two."""
    found = list[str]()
    for each in detector.split("+"):
        if found and each.partition(":")[0].strip() not in FAMILIES:
            found[-1] += f"+{each}"
        else:
            found.append(each.strip())
    return found
