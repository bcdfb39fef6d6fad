"""What a reader may not do, whatever it is given: hang, take memory, run code, touch other files."""

import contextlib
import os
import pathlib
import signal
import sys

SECONDS = 10.0
MEBIBYTE = 1 << 20

# Paths of what these events write or remove are among their arguments.
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
  # Raised by pickle's own way of finding what a pickle names; restricted readers have theirs.
  'pickle.find_class',
)


class Misdeed(BaseException):
  """A reader did what it may not; no reader can take it for a damaged file."""


class _Watch:
  """The audit hook: once installed it stays, and looks only while `folder` is set."""

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


_watch = _Watch()


@contextlib.contextmanager
def watched(folder: pathlib.Path, *, memory: int = 256 * MEBIBYTE, seconds: float = SECONDS):
  """Raises Misdeed if what runs inside does what it may not.

  Args:
    folder: the only one that may be written to.
    memory: bytes by which resident memory may rise at its highest.
    seconds: how long it may take.
  """
  if not getattr(_watch, 'installed', False):
    sys.addaudithook(_watch)
    _watch.installed = True

  def on_alarm(_signal, _frame):
    raise Misdeed(f'took longer than {seconds:g} s')

  pathlib.Path('/proc/self/clear_refs').write_text('5')
  before = _memory('VmRSS')
  _watch.found = []
  previous = signal.signal(signal.SIGALRM, on_alarm)
  signal.setitimer(signal.ITIMER_REAL, seconds)
  _watch.folder = str(folder.resolve())
  try:
    yield
  finally:
    _watch.folder = None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)
  if _watch.found:
    raise Misdeed('; '.join(_watch.found))
  rise = _memory('VmHWM') - before
  if rise > memory:
    raise Misdeed(f'took {rise / MEBIBYTE:.0f} MiB, at most {memory / MEBIBYTE:.0f} are allowed')


def _memory(field: str) -> int:
  for line in pathlib.Path('/proc/self/status').read_text().splitlines():
    if line.startswith(f'{field}:'):
      return int(line.split()[1]) * 1024
  raise KeyError(field)
