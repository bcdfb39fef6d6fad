"""The DELF network: training, export and inference."""
