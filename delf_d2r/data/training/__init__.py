"""Examples for training DELF and detectors, and the records that hold them."""
