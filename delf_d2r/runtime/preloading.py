"""What the fork server does before it makes workers: it imports modules. See fork_server.py."""

import gc
import importlib
import os
import signal

from delf_d2r.runtime import fork_server


def _preload(names: str) -> None:
  # Only the command itself reacts to Ctrl-C.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  for name in filter(None, names.split(',')):
    try:
      importlib.import_module(name)
    except Exception:  # A worker that needs it tells why it cannot be imported.
      continue
  # The collector writes to each object that it visits; left alone, they stay on memory that workers share.
  gc.collect()
  gc.freeze()


if fork_server.VARIABLE in os.environ:
  _preload(os.environ.pop(fork_server.VARIABLE))
