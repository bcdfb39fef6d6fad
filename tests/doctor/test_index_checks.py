"""Checks of posting lists: damaged values, entries without words, empty and unbalanced lists."""

import dataclasses

import numpy as np
import pytest
from oracles.index_inputs import random_descriptors

from delf_d2r.doctor.findings import Severity
from delf_d2r.doctor.index_checks import IndexCheck
from delf_d2r.index import InvertedIndex, builder, updates
from delf_d2r.kernels.aggregation import Kernel

OPTIONS = {'num_words': 9, 'dimensions': 16}


def findings(directory, descriptors, kernel=Kernel.ASMK, num_words=9, **entries):
  """Returns (severity, text) of each finding on an index of some descriptors."""
  names = [f'image {m}' for m in range(len(descriptors))]
  if entries:
    names = names[: max(entries['entry_images']) + 1]
  InvertedIndex.build(
    descriptors, names, num_words=num_words, kernel=kernel, dimensions=16, directory=directory, **entries
  )
  return [(finding.severity, finding.problem) for finding in IndexCheck(directory).run()]


def test_a_sound_index_has_no_findings(tmp_path):
  descriptors = random_descriptors(0, 5, kernel=Kernel.ASMK, present=9, **OPTIONS)
  assert findings(tmp_path / 'index', descriptors) == []


@pytest.mark.parametrize('value', [np.nan, 2.0])
def test_values_that_are_no_unit_vectors(tmp_path, monkeypatch, value):
  # Indexes of earlier versions may hold values that are refused now.
  monkeypatch.setattr(builder, 'check_kind', lambda descriptor, layout: None)
  descriptors = random_descriptors(0, 5, kernel=Kernel.ASMK, present=9, **OPTIONS)
  descriptors[3].values[2] = value
  ((severity, problem),) = findings(tmp_path / 'index', descriptors)
  assert severity is Severity.ERROR
  assert problem.startswith('1 postings whose values are not finite or not of length 1')


def test_a_region_without_words_is_named_by_its_image(tmp_path):
  descriptors = random_descriptors(0, 5, kernel=Kernel.ASMK, present=9, **OPTIONS)
  descriptors[3] = dataclasses.replace(
    descriptors[3], visual_words=descriptors[3].visual_words[:0], values=descriptors[3].values[:0]
  )
  ((severity, problem),) = findings(tmp_path / 'index', descriptors, entry_images=[0, 0, 1, 2, 2])
  assert severity is Severity.WARNING
  assert 'regions without visual words' in problem
  assert 'image 2' in problem


def test_no_postings_at_all(tmp_path):
  nothing = random_descriptors(0, 2, kernel=Kernel.ASMK_STAR, present=0, **OPTIONS)
  found = findings(tmp_path / 'index', nothing, Kernel.ASMK_STAR)
  assert any(severity is Severity.ERROR and 'no postings at all' in problem for severity, problem in found)


def test_one_word_has_everything(tmp_path):
  descriptors = random_descriptors(0, 40, kernel=Kernel.ASMK_STAR, present=1, num_words=1, dimensions=16)
  found = findings(tmp_path / 'index', descriptors, Kernel.ASMK_STAR, num_words=50)
  assert [severity for severity, _ in found] == [Severity.NOTE, Severity.WARNING]
  assert 'factor 50.0' in found[1][1]
  assert 'visual word 0 has 100.0%' in found[1][1]


def test_removed_images_that_keep_their_postings_are_no_fault(tmp_path, monkeypatch):
  monkeypatch.setattr(updates, 'SMALL_BYTES', 0)
  descriptors = random_descriptors(0, 20, kernel=Kernel.ASMK, present=9, **OPTIONS)
  for emptied in (3, 12):
    descriptors[emptied] = random_descriptors(1, 1, kernel=Kernel.ASMK, present=0, **OPTIONS)[0]
  names = [f'image {m}' for m in range(20)]
  index = InvertedIndex.build(
    descriptors, names, num_words=9, kernel=Kernel.ASMK, directory=tmp_path / 'index'
  )
  index.remove(['image 3', 'image 4'])
  index.save()
  problems = {finding.severity: finding.problem for finding in IndexCheck(tmp_path / 'index').run()}
  assert problems.keys() == {Severity.NOTE, Severity.WARNING}
  assert 'has the postings of 2 images that were removed, of 20 in all' in problems[Severity.NOTE]
  assert 'image 12' in problems[Severity.WARNING]
  assert 'image 3' not in problems[Severity.WARNING]
