"""What the optional stages of a run need of each other, where it is known which of them run."""

import importlib.util
from collections.abc import Iterator

from delf_d2r.config.rules.rules import Problem
from delf_d2r.protos import experiment_pb2, extraction_pb2
from delf_d2r.protos.verification_pb2 import VerificationConfig


def problems(config: experiment_pb2.ExperimentConfig) -> Iterator[Problem]:
  """Yields why stages that are present cannot run one after the other."""
  verification = config.verification
  if config.HasField('fusion') and not config.fusion.HasField('extraction'):
    yield Problem(
      'fusion', 'fusion lacks the other search. Add extraction, codebook and aggregation to it, or remove it'
    )
  if config.HasField('fusion') and config.HasField('expansion'):
    yield Problem(
      'expansion', 'expansion asks the first search alone, so that fusion would be lost. Remove one of them'
    )
  if verification.HasField('extraction') and config.HasField('expansion'):
    yield Problem(
      'expansion',
      'expansion adds features of verified images to the query, but verification.extraction makes others than'
      ' are searched with. Remove one of the two',
    )
  if verification.junk == VerificationConfig.SKIP_EACH and config.HasField('expansion'):
    yield Problem(
      'expansion',
      'expansion goes on from one verified ranking, but verification.junk: SKIP_EACH makes two. Set another'
      ' junk, or remove expansion',
    )
  is_global = config.extraction.extractor == extraction_pb2.ExtractionConfig.GLOBAL
  if config.HasField('verification') and is_global and not verification.HasField('extraction'):
    yield Problem(
      'verification',
      'verification matches local features, but extraction.extractor is GLOBAL. Add extraction of local'
      ' features to verification, for example verification { extraction { extractor: ROOT_SIFT } }',
    )
  yield from missing_estimator(verification)


def missing_estimator(config: VerificationConfig) -> Iterator[Problem]:
  """Yields why this machine cannot verify by such a config, which is legal on others."""
  if config.estimator == VerificationConfig.DEGENSAC and importlib.util.find_spec('pydegensac') is None:
    yield Problem(
      'verification.estimator',
      'verification.estimator is DEGENSAC, which needs the package pydegensac. Install it (pip install'
      ' pydegensac), or set estimator: USAC',
    )
