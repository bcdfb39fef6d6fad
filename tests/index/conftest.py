import pytest

from delf_d2r.index import builder, inverted_index, searcher, stored_index


@pytest.fixture
def small_segments(monkeypatch):
  """Segments of 8 entries, so that small tests have several."""
  for module in (builder, inverted_index, searcher, stored_index):
    monkeypatch.setattr(module, 'SEGMENT_ENTRIES', 8)
