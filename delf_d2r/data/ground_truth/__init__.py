"""Ground truth of retrieval benchmarks: values, file formats, and the folders of published benchmarks."""
