"""Detectors: scores of suspicion, thresholds fitted on benign images, and how they are named."""
