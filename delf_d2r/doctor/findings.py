"""What an inspection finds, in text, as JSON and as an exit code."""

import dataclasses
import enum
import pathlib
import re
from collections.abc import Iterator, Sequence


class Severity(enum.Enum):
  """How bad a finding is; the value is the exit code that it asks for."""

  NOTE = 0  # worth knowing
  WARNING = 1  # works, but perhaps not as meant
  ERROR = 2  # wrong answers, or none


@dataclasses.dataclass(frozen=True)
class Finding:
  """One thing that is not as it should be.

  Attributes:
    severity: how bad it is.
    place: the file or directory.
    problem: what is there, with what was expected and what was found.
    remedy: what to do.
  """

  severity: Severity
  place: str
  problem: str
  remedy: str


def note(place: object, problem: str, remedy: str) -> Finding:
  """A finding that is worth knowing and changes no exit code."""
  return Finding(Severity.NOTE, str(place), problem, remedy)


def warning(place: object, problem: str, remedy: str) -> Finding:
  """A finding that works, but perhaps not as meant."""
  return Finding(Severity.WARNING, str(place), problem, remedy)


def error(place: object, problem: str, remedy: str) -> Finding:
  """A finding that makes answers wrong or impossible."""
  return Finding(Severity.ERROR, str(place), problem, remedy)


# Between what a message says and the remedy that it ends with.
_THEN = re.compile(r'\. (?=[A-Z])|; (?=build the index|evaluate again)')


def stopped(place: object, problem: Exception, *, remedy: str) -> Finding:
  """The error that stopped the reading of `place`; where it names a file there or a remedy, these count.

  Args:
    place: what was read.
    problem: what was raised.
    remedy: what to do where the error does not say.
  """
  if isinstance(problem, OSError):
    is_missing = isinstance(problem, FileNotFoundError)
    return error(
      problem.filename or place,
      problem.strerror or str(problem),
      remedy if is_missing else 'Mend permissions or disk; nothing is known to be wrong with it',
    )
  head, colon, text = str(problem).partition(': ')
  if not colon or not f'{head}/'.startswith(f'{place}/'):
    head, text = str(place), str(problem)
  *_, last = [None, *_THEN.finditer(text)]
  if last:
    text, remedy = text[: last.start()], text[last.end()].upper() + text[last.end() + 1 :]
  return error(head, text, remedy)


class FindingCounter:
  """Counts what has one and the same problem, and keeps the first three names: one finding, not a million."""

  def __init__(self):
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
  """All of one inspection.

  Attributes:
    path: what was inspected.
    inspected: path, kind and state of each artefact in it.
    findings: the worst first; of equal severity in the order of the data flow.
  """

  path: pathlib.Path
  inspected: Sequence[tuple[pathlib.Path, str]]
  findings: Sequence[Finding]

  @property
  def exit_code(self) -> int:
    """0: sound, notes aside; 1: warnings; 2: errors."""
    return max((finding.severity.value for finding in self.findings), default=0)

  def to_text(self) -> str:
    """For people."""
    return '\n'.join(self._lines())

  def to_document(self) -> dict:
    """For JSON: path, exit_code, inspected (path, what), findings (severity, place, problem, remedy)."""
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
  """A diagnosis with its findings in order."""
  return Diagnosis(path, tuple(inspected), tuple(sorted(findings, key=lambda f: -f.severity.value)))
