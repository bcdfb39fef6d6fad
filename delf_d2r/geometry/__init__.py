"""Boxes, putative matches and their verification: functions of arrays, not of files."""
