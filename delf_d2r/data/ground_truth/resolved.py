"""The ground truth of an artefact of rankings: its images as the image ids of the rankings."""

import pathlib

from delf_d2r.data import files
from delf_d2r.data.artefacts import artefact_writer
from delf_d2r.data.artefacts.artefact import Artefact, Input
from delf_d2r.data.artefacts.ranking_files import StoredRankings
from delf_d2r.data.ground_truth import ground_truth
from delf_d2r.data.ground_truth.ground_truth import GroundTruth, ResolvedQuery


def resolved_queries(
  rankings: Artefact, stored: StoredRankings, truth: GroundTruth
) -> tuple[ResolvedQuery, ...]:
  """Returns the queries of a ground truth with image ids of the rankings in place of names.

  Args:
    rankings: the artefact.
    stored: its rankings.
    truth: the ground truth of its images.

  Returns:
    The queries. Images that could not be read have no place in the rankings; they get the ids after the last
    one, so that they count as not found.
  """
  unreadable = [error['name'] for error in artefact_writer.read_errors(rankings)]
  end = len(stored.image_names)
  distractors = range(end - rankings.counts.get('distractors', 0), end)
  return ground_truth.resolve(truth, [*stored.image_names, *unreadable], distractors=distractors)


def ground_truth_input(path: str | pathlib.Path) -> Input:
  """Returns a file of ground truth as the input of an artefact."""
  return Input('ground_truth', files.content_fingerprint(path), pathlib.Path(path).resolve())
