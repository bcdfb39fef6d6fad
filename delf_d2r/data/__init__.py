"""Everything that touches files: photos, lists, ground truth, boxes, and the artefacts of the stages."""
