"""Files of the research code and of hloc to artefacts and back; `run.py` finds out which is which."""
