"""Runs many `d2r` commands, each in a process that has all imports already.

Importing TensorFlow takes longer than most commands on tiny data. Therefore one process imports it, and every
command runs in a fork of that process.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from unittest import mock

# What commands without a network import.
WITHOUT_NETWORKS = (
  'delf_d2r.experiments.experiment',
  'delf_d2r.experiments.comparison',
  'delf_d2r.engine',
  'delf_d2r.report.answers',
)
IMPORTED = (
  *WITHOUT_NETWORKS,
  'delf_d2r.models.saved_models.local_features',
  'delf_d2r.models.saved_models.detections',
)


@dataclasses.dataclass(frozen=True)
class Result:
  """The result of a command: its exit code and its output."""

  returncode: int
  stdout: str
  stderr: str


class Commands:
  """Runs commands one after the other; a context manager."""

  def __init__(self, imported: Sequence[str] = IMPORTED):
    """Starts nothing yet.

    Args:
      imported: modules that are imported before the first command.
    """
    self._imported = imported

  def __enter__(self):
    self._server = subprocess.Popen(
      [sys.executable, __file__, *self._imported], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return self

  def __exit__(self, *_):
    self._server.stdin.close()
    self._server.wait()
    self._server.stdout.close()

  def run(self, arguments, *, folder: pathlib.Path, replaced=()) -> Result:
    """Runs `d2r ARGUMENTS` in `folder`.

    Args:
      arguments: arguments of d2r.
      folder: working directory of the command.
      replaced: dotted names of functions to replace by mocks, which check the signature and must be called.
    """
    with tempfile.TemporaryDirectory() as said:
      job = {'arguments': arguments, 'folder': str(folder), 'replaced': replaced, 'said': said}
      print(json.dumps(job), file=self._server.stdin, flush=True)
      code = int(self._server.stdout.readline())
      return Result(code, *(pathlib.Path(said, name).read_text('utf-8') for name in ('out', 'err')))


def _serve() -> None:
  for module in sys.argv[1:]:
    importlib.import_module(module)
  for line in sys.stdin:
    child = os.fork()
    if not child:
      os._exit(_run(**json.loads(line)))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _run(arguments, folder, replaced, said) -> int:
  from delf_d2r import command_line

  for number, name in enumerate(('out', 'err'), 1):
    os.dup2(os.open(os.path.join(said, name), os.O_WRONLY | os.O_CREAT), number)
  os.chdir(folder)
  sys.argv = ['d2r', *arguments]
  code = 1
  with contextlib.ExitStack() as patches:
    mocks = [patches.enter_context(mock.patch(name, autospec=True)) for name in replaced]
    try:
      code = command_line.main() or 0
    except SystemExit as end:
      code = end.code or 0
    except BaseException:
      sys.excepthook(*sys.exc_info())
    if code == 0 and not all(function.called for function in mocks):
      print('not called:', [n for n, f in zip(replaced, mocks, strict=True) if not f.called], file=sys.stderr)
      code = 1
  sys.stdout.flush()
  sys.stderr.flush()
  return code


if __name__ == '__main__':
  _serve()
