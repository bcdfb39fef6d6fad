"""Detect-to-Retrieve landmark image search (Teichmann, Araujo, Zhu, Sim, CVPR 2019).

Importing this package imports nothing else; every room is imported by its own name.
"""
