"""Rules of a whole run: what its optional stages need of each other.

Single stages use the same configs, so these rules are checked only where it is known which stages will run.
"""

import importlib.util
from collections.abc import Iterator

from delf_d2r.errors import Problem
from delf_d2r.extractors import registry
from delf_d2r.extractors.registry import DescriptorKind
from delf_d2r.protos import experiment_pb2
from delf_d2r.protos.verification_pb2 import VerificationConfig


def problems(config: experiment_pb2.ExperimentConfig) -> Iterator[Problem]:
  """Yields the reasons why the stages of a config cannot be run one after the other."""
  verification = config.verification
  if config.HasField('fusion') and not config.fusion.HasField('extraction'):
    yield Problem(
      'fusion', 'fusion lacks the other search. Add extraction, codebook and aggregation to it, or remove it'
    )
  if config.HasField('fusion') and config.HasField('expansion'):
    yield Problem(
      'expansion', 'expansion searches the first index only, so the fusion would be lost. Remove one of them'
    )
  if verification.HasField('extraction') and config.HasField('expansion'):
    yield Problem(
      'expansion',
      'expansion adds the features of verified images to the query, but verification.extraction makes other'
      ' features than the search uses. Remove one of the two',
    )
  if verification.junk == VerificationConfig.SKIP_EACH and config.HasField('expansion'):
    yield Problem(
      'expansion',
      'expansion starts from one verified ranking, but verification.junk: SKIP_EACH makes two. Set another'
      ' value of junk, or remove expansion',
    )
  record = registry.record(config.extraction.extractor)
  is_global = record.descriptors is DescriptorKind.GLOBAL
  if config.HasField('verification') and is_global and not verification.HasField('extraction'):
    yield Problem(
      'verification',
      f'verification matches local features, but extraction.extractor is {record.name}. Add extraction of'
      ' local features to verification, for example verification { extraction { extractor: ROOT_SIFT } }',
    )
  yield from missing_estimator(verification)


def missing_estimator(config: VerificationConfig) -> Iterator[Problem]:
  """Yields a problem if this machine lacks the library that the estimator of a config needs."""
  if config.estimator == VerificationConfig.DEGENSAC and importlib.util.find_spec('pydegensac') is None:
    yield Problem(
      'verification.estimator',
      'verification.estimator is DEGENSAC, which needs the package pydegensac. Install it (pip install'
      ' pydegensac), or set estimator: USAC',
    )
