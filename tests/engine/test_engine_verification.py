"""What the engine cannot verify is said, and shown as nothing."""

import numpy as np
import pytest

from delf_d2r import config
from delf_d2r.engine.spatial_verification import SpatialVerification
from delf_d2r.errors import UserError
from delf_d2r.protos.extraction_pb2 import ExtractionConfig
from delf_d2r.structures import LocalFeatures, Ranking

RANKING = Ranking('q', np.zeros(1, np.int64), np.ones(1, np.float32), np.full(1, -1, np.int64))


@pytest.mark.parametrize(
  ('extractor', 'says'),
  [
    (ExtractionConfig.GLOBAL, 'no places that could agree'),
    (ExtractionConfig.ACTIVATION_REGIONS, 'cannot be matched by DESCRIPTORS'),
  ],
)
def test_features_that_cannot_be_matched_are_refused(extractor, says):
  verification = config.default('verification').verification
  candidates = SpatialVerification(verification, ExtractionConfig(extractor=extractor), read=pytest.fail)
  query = LocalFeatures.empty(2)
  with pytest.raises(UserError, match=says):
    candidates.verify(None, query, RANKING)
  assert len(candidates.match(None, query, 0)) == 0


def test_local_features_are_not_refused():
  verification = config.default('verification').verification
  assert not SpatialVerification(
    verification, ExtractionConfig(extractor=ExtractionConfig.DELF), read=pytest.fail
  ).why_unverifiable
