"""What a query takes: searching an index, and verifying the head of its ranking."""

import itertools
import pathlib
import time

import numpy as np
from threadpoolctl import threadpool_limits

from delf_d2r.aggregator import kernel
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.data.artefacts.feature_store import FeatureStore
from delf_d2r.engine import SearchEngine
from delf_d2r.planning.synthetic_descriptors import DescriptorGenerator
from delf_d2r.protos import experiment_pb2, verification_pb2
from delf_d2r.stages import extract_features
from delf_d2r.verifier import Verifier, features_to_match

_QUERIES = 100
_PAIRS = 48


def search_seconds(
  index: pathlib.Path, config: experiment_pb2.ExperimentConfig, *, words: int, dimensions: int
) -> float:
  """CPU seconds of the median query."""
  engine = SearchEngine.load(index, one_photo=True)
  generator = DescriptorGenerator(
    num_words=config.codebook.num_words,
    dimensions=dimensions,
    kernel=kernel(config.aggregation),
    words_per_image=words,
    seed=1,
  )
  times = []
  for query in generator.draw_many(_QUERIES):
    started = time.thread_time()
    engine.rank(query, top_k=100)
    times.append(time.thread_time() - started)
  return float(np.median(times))


def verification_seconds(options: verification_pb2.VerificationConfig, features: Artefact) -> float:
  """CPU seconds of verifying one image: reading its features, matching them with a query's, geometry.

  The mean over pairs of the sample's photos, most of which show different things; the query is a whole photo.

  Args:
    options: how to verify.
    features: of at least two photos.
  """
  verifier, store = Verifier(options), FeatureStore(features)
  photos = list(itertools.islice(extract_features.read(features), _PAIRS))
  pairs = list(itertools.islice(itertools.permutations(range(len(photos)), 2), _PAIRS))
  with threadpool_limits(1, user_api='blas'):
    verifier(photos[0].region(0), features_to_match(photos[1], options))  # Has everything loaded.
    started = time.process_time()
    for query, image in pairs:
      found = store.read(photos[image].name, position=image)
      verifier(photos[query].region(0), features_to_match(found, options))
  return (time.process_time() - started) / len(pairs)
