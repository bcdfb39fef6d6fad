"""Findings from exceptions: each names place and remedy once."""

import pytest

from delf_d2r.doctor import findings
from delf_d2r.errors import ArtefactError
from delf_d2r.index import IndexFormatError


@pytest.mark.parametrize(
  ('problem', 'expected'),
  [
    (
      ArtefactError('r/f/f-0.tfrecord: 7 bytes, it has 6. Delete r/f and run its stage again'),
      ('r/f/f-0.tfrecord', '7 bytes, it has 6', 'Delete r/f and run its stage again'),
    ),
    (
      ArtefactError('r/f: version 2. Sorry. Use the library that made it (0.1)'),
      ('r/f', 'version 2. Sorry', 'Use the library that made it (0.1)'),
    ),
    (
      IndexFormatError('r/f/inverted/x.npy: checksum 1, found 2; build the index again or restore it'),
      ('r/f/inverted/x.npy', 'checksum 1, found 2', 'Build the index again or restore it'),
    ),
    # Neither a place below `r/f` nor a remedy.
    (ValueError('r/foo: bad'), ('r/f', 'r/foo: bad', 'Restore it')),
    (ValueError('bad'), ('r/f', 'bad', 'Restore it')),
    (FileNotFoundError(2, 'No such file', 'r/f/x'), ('r/f/x', 'No such file', 'Restore it')),
    (
      OSError(5, 'Input/output error', 'r/f/x'),
      ('r/f/x', 'Input/output error', 'Check permissions and disk; nothing else is known to be wrong'),
    ),
  ],
)
def test_what_stopped_a_reader(problem, expected):
  finding = findings.stopped('r/f', problem, remedy='Restore it')
  assert (finding.place, finding.problem, finding.remedy) == expected
  assert finding.severity is findings.Severity.ERROR
