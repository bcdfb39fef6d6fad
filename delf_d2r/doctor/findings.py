"""Findings of an inspection, as text, as JSON and as an exit code."""

import dataclasses
import enum
import pathlib
import re
from collections.abc import Iterator, Sequence


class Severity(enum.Enum):
  """Severity of a finding; the value is the exit code that it leads to."""

  NOTE = 0  # Informative.
  WARNING = 1  # Works, but perhaps not as intended.
  ERROR = 2  # Results are wrong or impossible.


@dataclasses.dataclass(frozen=True)
class Finding:
  """One problem that was found.

  Attributes:
    severity: of the problem.
    place: the file or directory.
    problem: the problem, with the expected and the found value.
    remedy: how to correct it.
  """

  severity: Severity
  place: str
  problem: str
  remedy: str


def note(place: object, problem: str, remedy: str) -> Finding:
  """Returns an informative finding, which changes no exit code."""
  return Finding(Severity.NOTE, str(place), problem, remedy)


def warning(place: object, problem: str, remedy: str) -> Finding:
  """Returns a finding on something that works, but perhaps not as intended."""
  return Finding(Severity.WARNING, str(place), problem, remedy)


def error(place: object, problem: str, remedy: str) -> Finding:
  """Returns a finding that makes results wrong or impossible."""
  return Finding(Severity.ERROR, str(place), problem, remedy)


# The separator between the problem in a message and the remedy that it ends with.
_THEN = re.compile(r'\. (?=[A-Z])|; (?=build the index|evaluate again)')


def stopped(place: object, problem: Exception, *, remedy: str) -> Finding:
  """Returns the finding on an exception that stopped the reading of `place`.

  If the message names a file there or a remedy, the finding has these.

  Args:
    place: the file or directory that was read.
    problem: the exception.
    remedy: the remedy if the message has none.
  """
  if isinstance(problem, OSError):
    is_missing = isinstance(problem, FileNotFoundError)
    return error(
      problem.filename or place,
      problem.strerror or str(problem),
      remedy if is_missing else 'Check permissions and disk; nothing else is known to be wrong',
    )
  head, colon, text = str(problem).partition(': ')
  if not colon or not f'{head}/'.startswith(f'{place}/'):
    head, text = str(place), str(problem)
  *_, last = [None, *_THEN.finditer(text)]
  if last:
    text, remedy = text[: last.start()], text[last.end()].upper() + text[last.end() + 1 :]
  return error(head, text, remedy)


class FindingCounter:
  """Counts the things that have the same problem and keeps the first three names, for a single finding.

  Attributes:
    count: number of things.
  """

  def __init__(self) -> None:
    self.count = 0
    self._examples: list[str] = []

  def add(self, name: object, count: int = 1) -> None:
    """Counts `count` things under one name."""
    self.count += count
    if count and len(self._examples) < 3:
      self._examples.append(str(name))

  def __bool__(self) -> bool:
    return self.count > 0

  def __str__(self) -> str:
    more = ', ...' if self.count > len(self._examples) else ''
    return f'{self.count} ({", ".join(self._examples)}{more})'


@dataclasses.dataclass(frozen=True)
class Diagnosis:
  """The result of an inspection.

  Attributes:
    path: the directory that was inspected.
    inspected: path and description of each artefact in it.
    findings: the worst first; of equal severity in the order of the data flow.
  """

  path: pathlib.Path
  inspected: Sequence[tuple[pathlib.Path, str]]
  findings: Sequence[Finding]

  @property
  def exit_code(self) -> int:
    """0: sound, perhaps with notes; 1: warnings; 2: errors."""
    return max((finding.severity.value for finding in self.findings), default=0)

  def to_text(self) -> str:
    """Returns the diagnosis for a terminal."""
    return '\n'.join(self._lines())

  def to_document(self) -> dict:
    """Returns the diagnosis for JSON.

    Its keys are path, exit_code, inspected (path, what) and findings (severity, place, problem, remedy).
    """
    return {
      'path': str(self.path),
      'exit_code': self.exit_code,
      'inspected': [{'path': str(path), 'what': what} for path, what in self.inspected],
      'findings': [
        {**dataclasses.asdict(finding), 'severity': finding.severity.name.lower()}
        for finding in self.findings
      ],
    }

  def _lines(self) -> Iterator[str]:
    for path, what in self.inspected:
      yield f'{path}: {what}'
    yield ''
    for finding in self.findings:
      yield f'{finding.severity.name.lower()}: {finding.place}: {finding.problem}'
      yield f'  {finding.remedy}'
    counts = [
      f'{number} {severity.name.lower()}{"s" if number > 1 else ""}'
      for severity in reversed(Severity)
      if (number := sum(finding.severity is severity for finding in self.findings))
    ]
    sound = '' if self.exit_code else 'sound'
    yield ', '.join(filter(None, [sound, *counts]))


def make(path: pathlib.Path, inspected, findings) -> Diagnosis:
  """Returns a diagnosis with its findings in order of severity."""
  return Diagnosis(path, tuple(inspected), tuple(sorted(findings, key=lambda f: -f.severity.value)))
