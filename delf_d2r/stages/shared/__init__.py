"""Helpers of several stages."""
