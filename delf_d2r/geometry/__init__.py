"""Geometry: boxes, putative matches and their verification. Arrays only."""
