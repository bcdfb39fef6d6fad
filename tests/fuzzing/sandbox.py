"""Detects forbidden actions of readers: hanging, allocating memory, executing code, writing other files."""

import contextlib
import os
import pathlib
import signal
import sys

SECONDS = 10.0
MEBIBYTE = 1 << 20

# Audit events that change files, and the number of their arguments that are paths.
_CHANGES = {
  'os.chmod': 1,
  'os.link': 2,
  'os.mkdir': 1,
  'os.remove': 1,
  'os.rename': 2,
  'os.rmdir': 1,
  'os.symlink': 2,
  'os.truncate': 1,
}
_FORBIDDEN = (
  'os.system',
  'os.exec',
  'os.fork',
  'os.posix_spawn',
  'os.putenv',
  'subprocess.Popen',
  'socket.connect',
  'urllib.Request',
  # Raised by the default lookup of globals in pickles, which restricted readers override.
  'pickle.find_class',
)


class Violation(BaseException):
  """A forbidden action. It is no Exception, so that a reader cannot mistake it for a damaged file."""


class _AuditHook:
  """The audit hook. It cannot be uninstalled and is active only while `folder` is set."""

  def __init__(self):
    self.folder: str | None = None
    self.found: list[str] = []

  def __call__(self, event: str, arguments: tuple) -> None:
    if self.folder is None:
      return
    if event in _FORBIDDEN:
      self.found.append(f'{event}{arguments[:2]}')
    elif event == 'open':
      path, mode, flags = arguments
      writes = any(letter in (mode or '') for letter in 'wax+') or (flags or 0) & (os.O_WRONLY | os.O_RDWR)
      if writes and isinstance(path, str | bytes | os.PathLike):
        self._check(event, path)
    elif event in _CHANGES:
      for path in arguments[: _CHANGES[event]]:
        self._check(event, path)

  def _check(self, event: str, path) -> None:
    if isinstance(path, int) or not os.path.abspath(os.fsdecode(path)).startswith(self.folder):
      self.found.append(f'{event} {path!r} outside {self.folder}')


_hook = _AuditHook()


@contextlib.contextmanager
def sandboxed(folder: pathlib.Path, *, memory: int = 256 * MEBIBYTE, seconds: float = SECONDS):
  """Raises Violation if the body performs a forbidden action.

  Args:
    folder: the only folder that may be written to.
    memory: greatest increase of the peak of resident memory, in bytes.
    seconds: time limit.
  """
  if not getattr(_hook, 'installed', False):
    sys.addaudithook(_hook)
    _hook.installed = True

  def on_alarm(_signal, _frame):
    raise Violation(f'took longer than {seconds:g} s')

  pathlib.Path('/proc/self/clear_refs').write_text('5')
  before = _memory('VmRSS')
  _hook.found = []
  previous = signal.signal(signal.SIGALRM, on_alarm)
  signal.setitimer(signal.ITIMER_REAL, seconds)
  _hook.folder = str(folder.resolve())
  try:
    yield
  finally:
    _hook.folder = None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)
  if _hook.found:
    raise Violation('; '.join(_hook.found))
  rise = _memory('VmHWM') - before
  if rise > memory:
    raise Violation(f'took {rise / MEBIBYTE:.0f} MiB, at most {memory / MEBIBYTE:.0f} are allowed')


def _memory(field: str) -> int:
  for line in pathlib.Path('/proc/self/status').read_text().splitlines():
    if line.startswith(f'{field}:'):
      return int(line.split()[1]) * 1024
  raise KeyError(field)
