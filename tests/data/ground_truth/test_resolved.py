"""Ground truth with the image ids of rankings: unreadable images come last, distractors are named by none."""

import numpy as np
import pytest

from delf_d2r import config as configs
from delf_d2r.data.artefacts import artefact_writer
from delf_d2r.data.artefacts.artefact import Plan
from delf_d2r.data.artefacts.ranking_files import StoredRankings, Timing
from delf_d2r.data.ground_truth import ground_truth, resolved

TRUTH = """
{
  "version": 1,
  "name": "mini",
  "index_images": ["a.jpg", "b.jpg", "broken.jpg"],
  "queries": [{"name": "q", "image": "q.jpg", "box": [0, 0, 1, 1], "easy": ["b.jpg", "broken.jpg"],
    "hard": [], "junk": ["a.jpg"]}]
}
"""


@pytest.fixture
def truth_path(tmp_path):
  (tmp_path / 'truth.json').write_text(TRUTH)
  return tmp_path / 'truth.json'


def rankings(folder, *, distractors):
  with artefact_writer.writing(folder, Plan('rankings', configs.default('search'), ())) as writer:
    for shard in writer.ledger.missing(1, 1):
      with writer.ledger.write(shard) as file:
        file.add_error('broken.jpg', 'is broken')
    return writer.finish({'distractors': distractors})


def test_unreadable_images_have_ids_after_all_others(tmp_path, truth_path):
  stored = StoredRankings(('a.jpg', 'b.jpg', 'other.jpg'), (), Timing((), ()))
  made = rankings(tmp_path / 'rankings', distractors=1)
  [query] = resolved.resolved_queries(made, stored, ground_truth.load(truth_path))
  assert np.array_equal(query.easy, [1, 3])
  assert np.array_equal(query.junk, [0])


def test_the_input_is_that_of_the_file(truth_path):
  found = resolved.ground_truth_input(truth_path)
  assert (found.role, found.path) == ('ground_truth', truth_path)
  truth_path.write_text(TRUTH + ' ')
  assert resolved.ground_truth_input(truth_path).fingerprint != found.fingerprint
