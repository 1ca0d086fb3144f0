"""What is written on the command line for harmless changes of images, and in place of a table of labels."""

CORRUPTIONS = ("noise", "jpeg", "blur", "crop")
PREDICTED = "predicted"  # the class that the classifier reports is taken for true
