"""Aggregated descriptors as large as one likes; the generator is the planner's."""

from delf_d2r.planning.synthetic_descriptors import DescriptorGenerator

__all__ = ['DescriptorGenerator']
