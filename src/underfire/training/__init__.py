"""Training: classifiers, the masker of RTS and its defence AID, with one loop, checkpoints and curves."""
