"""What verification does not look at, because a protocol calls it junk: `verification.junk`.

The research code verifies the first images that are not junk, once for Medium and once for Hard, and takes
the numbers of each protocol from its own order (docs/reference.md 4.7).
"""

import pathlib

import numpy as np
from absl import logging

from delf_d2r.data.artefacts.artefact import Artefact, Input
from delf_d2r.data.artefacts.ranking_files import StoredRankings
from delf_d2r.data.ground_truth import ground_truth, resolved
from delf_d2r.errors import UserError
from delf_d2r.evaluation import protocol as protocols
from delf_d2r.protos.verification_pb2 import VerificationConfig


def protocol_of(options: VerificationConfig, *, each: str | None) -> str | None:
  """The protocol whose junk is skipped, None where none is; for SKIP_EACH it is `each`.

  Raises:
    UserError: SKIP_EACH, but `each` does not say which.
  """
  if options.junk == VerificationConfig.SKIP_EACH:
    if each is None:
      raise UserError(
        'verification.junk: SKIP_EACH makes two rankings, as run_experiment does. Verify with SKIP_MEDIUM and'
        ' with SKIP_HARD, each into an --output of its own, and give both to evaluate_retrieval'
      )
    return each
  if options.junk == VerificationConfig.LIKE_OTHERS and options.compat:
    logging.warning(
      'verification.compat: junk takes up places among the first %d images; the research code leaves out what'
      ' is junk to the protocol that it scores. For its numbers set verification.junk: SKIP_EACH',
      options.num_images,
    )
  return {VerificationConfig.SKIP_MEDIUM: 'medium', VerificationConfig.SKIP_HARD: 'hard'}.get(options.junk)


def inputs(options: VerificationConfig, path: str | pathlib.Path | None, protocol: str) -> list[Input]:
  """What is junk, as inputs of an artefact; UserError without a ground truth."""
  if path is None:
    raise UserError(
      'verification.junk has junk skipped, but without --ground_truth nothing is known to be junk. Give it,'
      ' or set verification.junk: LIKE_OTHERS'
    )
  found = [resolved.ground_truth_input(path)]
  if options.junk == VerificationConfig.SKIP_EACH:
    # Two artefacts have this config.
    found.append(Input('part', protocol, pathlib.Path(protocol)))
  return found


def of_queries(
  path: str | pathlib.Path, protocol: str, rankings: Artefact, stored: StoredRankings
) -> dict[str, np.ndarray]:
  """By query, int64 [J]: the image ids that are junk under `medium` or `hard`."""
  queries = resolved.resolved_queries(rankings, stored, ground_truth.load(path))
  return {query.name: protocols.positives_and_junk(query, protocol)[1] for query in queries}
