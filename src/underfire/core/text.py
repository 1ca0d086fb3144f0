"""Words for numbers in sentences."""


def counted(count: int, noun: str) -> str:
    """A count and what is counted: 1 image, 2 images."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
