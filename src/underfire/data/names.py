"""What harmless changes of images are called on the command line."""

CORRUPTIONS = ("noise", "jpeg", "blur", "crop")
