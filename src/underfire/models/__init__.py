"""Classifiers over [0, 1] images, how they are loaded and traced, the masker of RTS, and their files."""
