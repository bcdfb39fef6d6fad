"""The codebook on disk."""

import numpy as np
import pytest

from delf_d2r.data.artefacts import codebook_files
from delf_d2r.errors import ArtefactError


def test_centroids_round_trip(tmp_path):
  centroids = np.random.default_rng(0).normal(size=(5, 3))
  codebook_files.save_centroids(centroids, tmp_path)
  found = codebook_files.load_centroids(tmp_path)
  np.testing.assert_array_equal(found, centroids.astype(np.float32))
  assert found.dtype == np.float32
  assert isinstance(found, np.memmap)


@pytest.mark.parametrize(
  ('array', 'message'),
  [
    (np.zeros((5, 3)), r'expected float32 \[K, D\], found float64 \(5, 3\)'),
    (np.zeros(5, np.float32), r'found float32 \(5,\)'),
    (np.zeros((0, 3), np.float32), r'found float32 \(0, 3\)'),
    (np.array([[0, np.nan]], np.float32), 'not finite'),
    (np.array([[0, np.inf]], np.float32), 'not finite'),
  ],
)
def test_what_is_no_codebook(tmp_path, array, message):
  np.save(tmp_path / 'codebook.npy', array)
  with pytest.raises(ArtefactError, match=r'codebook\.npy: .*' + message):
    codebook_files.load_centroids(tmp_path)


def test_missing_codebook(tmp_path):
  with pytest.raises(ArtefactError, match=r'codebook\.npy: missing'):
    codebook_files.load_centroids(tmp_path)
