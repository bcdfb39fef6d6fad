import pytest

from delf_d2r.index import builder, search, stored_index, updates


@pytest.fixture
def small_segments(monkeypatch):
  """Segments of 8 entries, so that small tests have several."""
  for module in (builder, search, stored_index, updates):
    monkeypatch.setattr(module, 'SEGMENT_ENTRIES', 8)
