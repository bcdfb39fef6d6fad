"""Gives many inputs to a reader and collects one failure of each kind."""

import dataclasses
import pathlib
import traceback

import hypothesis
from fuzzing.reader import Reader
from hypothesis import HealthCheck, Phase, settings


@dataclasses.dataclass
class Failure:
  """A kind of failure: its smallest input (files by name) and its traceback."""

  files: dict[str, bytes]
  report: str

  def __str__(self) -> str:
    # The traceback comes first; large files are represented by name and size.
    shown = {name: data if len(data) <= 400 else f'<{len(data)} bytes>' for name, data in self.files.items()}
    return f'{self.report}input: {shown}'


@dataclasses.dataclass
class Outcome:
  """Numbers of inputs that were read with valid results or refused with clear errors, and the failures."""

  read: int = 0
  refused: int = 0
  failures: dict[tuple, Failure] = dataclasses.field(default_factory=dict)


def campaign(reader: Reader, folder: pathlib.Path, *, inputs: int, seed: int) -> Outcome:
  """Gives a reader its seeds, which it must read, and `inputs` inputs that depend only on the seed."""
  outcome = Outcome()
  for files in reader.seeds:
    # Without a sandbox, because the first call of a reader imports and compiles.
    assert reader.attempt(files, folder, is_trusted=True), f'{reader.name}: refuses a valid file'

  @hypothesis.seed(seed)
  @settings(
    max_examples=inputs,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
  )
  @hypothesis.given(reader.inputs)
  def attempt(files):
    try:
      if reader.attempt(files, folder):
        outcome.read += 1
      else:
        outcome.refused += 1
    except Exception as error:
      _keep(outcome, files, error)

  attempt()
  return outcome


def _keep(outcome: Outcome, files: dict[str, bytes], error: Exception) -> None:
  frames = traceback.extract_tb(error.__traceback__)
  own = [frame for frame in frames if 'delf_d2r' in frame.filename] or frames
  kind = (type(error).__name__, own[-1].filename, own[-1].lineno)
  before = outcome.failures.get(kind)
  if before is None or sum(map(len, files.values())) < sum(map(len, before.files.values())):
    report = ''.join(traceback.format_exception(error)[-12:])
    outcome.failures[kind] = Failure(files, report)
