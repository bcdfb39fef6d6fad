"""The landmark detector: architectures, training and export."""
