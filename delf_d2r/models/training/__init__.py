"""Training: the parts that DELF and the detector share."""
