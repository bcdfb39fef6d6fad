"""Runs the commands: prints help, and reports errors in a form that a user can read.

`d2r X ...` runs `tools/X.py`; so does `python tools/X.py ...` in a checkout.
"""

import codecs
import contextlib
import difflib
import importlib
import importlib.util
import io
import logging as python_logging
import os
import pkgutil
import select
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import app, flags, logging

from delf_d2r.errors import UserError
from delf_d2r.version import VERSION

# `d2r --help` lists them in this order, which is that of the data flow.
COMMANDS = (
  'plan',
  'run_experiment',
  'search_index',
  'serve',
  'serve_shard',
  'annotate',
  'train_delf',
  'export_delf',
  'train_detector',
  'export_detector',
  'make_detection_records',
  'make_detection_scenes',
  'detect_boxes',
  'extract_features',
  'train_pca',
  'train_whitening',
  'train_codebook',
  'export_codebook',
  'aggregate_features',
  'build_index',
  'split_index',
  'train_background',
  'fuse_rankings',
  'rerank_results',
  'expand_queries',
  'evaluate_retrieval',
  'make_report',
  'compare',
  'convert',
  'threshold_curve',
  'doctor',
  'datasets',
  'reproduce',
  'make_mini_benchmark',
  'demo',
)


# Takes the name of the command and its arguments without flags.
Main = Callable[[Sequence[str]], None]

_TAKES_ARGUMENTS: set[Main] = set()
_ANSWERS_BY_EXIT_CODE: set[Main] = set()


def takes_arguments(main: Main) -> Main:
  """Marks the main function of a command that takes arguments beside its flags."""
  _TAKES_ARGUMENTS.add(main)
  return main


def answers_by_exit_code(main: Main) -> Main:
  """Marks the main function of a command whose exit codes 1 and 2 are results.

  Its failures have the exit codes of sysexits.h.
  """
  _ANSWERS_BY_EXIT_CODE.add(main)
  return main


def run(main: Main, arguments: Sequence[str] | None = None) -> None:
  """Runs the main function of a command, and ends the process.

  Errors that a user can fix are reported without a traceback.

  Args:
    main: called with the name of the command and its arguments without flags.
    arguments: the name of the command and all arguments; by default those of the process.
  """
  _prepare_output()
  with _output_errors(main):
    _run(main, list(sys.argv if arguments is None else arguments))


def _run(main: Main, arguments: list[str]) -> None:
  if any(argument in ('--help', '-help', '-h', '-?', '--helpshort') for argument in arguments[1:]):
    print(_help(main, arguments[0]))
    return
  logging.set_verbosity(logging.INFO)
  # It reports which of its variants it loads.
  python_logging.getLogger('faiss').setLevel(python_logging.WARNING)
  logging.get_absl_handler().setFormatter(_Formatter())
  app.run(lambda rest: _guarded(main, rest), argv=arguments, flags_parser=lambda given: _parse(main, given))


def _parse(main: Main, arguments: list[str]) -> list[str]:
  """Parses the flags, and returns the arguments without them."""
  try:
    return flags.FLAGS(arguments)
  except flags.Error as error:
    print(f'error: {error}\nSee --help', file=sys.stderr)
    sys.exit(_failure(main, os.EX_USAGE))


def _failure(main: Main, code: int) -> int:
  """Returns the exit code of a failure that has `code` in sysexits.h."""
  return code if main in _ANSWERS_BY_EXIT_CODE else 1


def _guarded(main: Main, rest: Sequence[str]) -> None:
  """Runs `main`, and turns its errors into messages and exit codes."""
  try:
    if len(rest) > 1 and main not in _TAKES_ARGUMENTS:
      raise UserError(f'unexpected argument {rest[1]!r}; flags are written --name=value. See --help')
    main(rest)
    sys.stdout.flush()
  except _OutputError:
    raise
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(_failure(main, os.EX_USAGE))
  except KeyboardInterrupt:
    print('stopped; run the same command again to continue', file=sys.stderr)
    sys.exit(130)
  except Exception:
    if _failure(main, os.EX_SOFTWARE) == 1:
      raise  # Python's own exit code.
    traceback.print_exc()
    sys.exit(os.EX_SOFTWARE)


# Output --------------------------------------------------------------------------------------------------


class _OutputError(Exception):
  """Standard output cannot be written."""


class _Output(io.FileIO):
  """Standard output, whose errors cannot be taken for those of other files or pipes."""

  def write(self, data: Any, /) -> int:
    try:
      while (written := super().write(data)) is None:  # The reader of a pipe that does not block is slow.
        select.select([], [self], [])
      return written
    except OSError as error:
      raise _OutputError(error.strerror) from error


class _Log(io.FileIO):
  """Standard error. A command does not fail because its log cannot be written."""

  def write(self, data: Any, /) -> int:
    size = len(memoryview(data).cast('B'))
    try:
      written = super().write(data)
    except OSError:
      return size
    return size if written is None else written


def _prepare_output() -> None:
  """Makes standard output and standard error writable by any text, and their errors known.

  What the encoding of a terminal lacks is written as in JSON: `\\u00fc`. A closed one is replaced by the null
  device; otherwise the next file that is opened would take its number.
  """
  for descriptor in range(3):
    try:
      os.fstat(descriptor)
    except OSError:
      opened = os.open(os.devnull, os.O_RDWR)
      if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)
  codecs.register_error(_ESCAPE, _escaped)
  sys.stdout = _prepared(sys.stdout, sys.__stdout__, 1, _Output)
  sys.stderr = _prepared(sys.stderr, sys.__stderr__, 2, _Log)
  # It took standard error when it was imported, and its setStream fails for a closed one.
  logging.get_absl_handler().python_handler.stream = sys.stderr


def _prepared(current: Any, original: Any, descriptor: int, kind: type[io.FileIO]) -> Any:
  """Returns the stream to use in the place of `current`, which a host or a test may have replaced."""
  if current is not original:
    return current
  stream = io.TextIOWrapper(
    io.BufferedWriter(kind(descriptor, 'w', closefd=False)),
    encoding='utf-8' if current is None else current.encoding,
    errors=_ESCAPE if current is None or current.errors == 'strict' else current.errors,
    line_buffering=current is None or current.line_buffering,
    write_through=current is not None and current.write_through,
  )
  return stream


_ESCAPE = 'delf_d2r.escape'


def _escaped(error: UnicodeError) -> tuple[str, int]:
  """Replaces characters that cannot be encoded by escapes, which JSON reads as the same characters."""
  if not isinstance(error, UnicodeEncodeError):
    raise error
  units = error.object[error.start : error.end].encode('utf-16-be', 'surrogatepass')
  pairs = zip(units[::2], units[1::2], strict=True)
  return ''.join(f'\\u{high:02x}{low:02x}' for high, low in pairs), error.end


@contextlib.contextmanager
def _output_errors(main: Main | None = None) -> Iterator[None]:
  """Ends the process if its output cannot be written: as a success if the reader (head, less) has left."""
  failure = 1 if main is None else _failure(main, os.EX_IOERR)
  try:
    yield
    sys.stdout.flush()
  except _OutputError as error:
    sys.exit(0 if _drop_output(error) else failure)
  except BaseException as ending:  # It has an exit code of its own.
    try:
      sys.stdout.flush()
    except _OutputError as error:
      if not _drop_output(error) and isinstance(ending, SystemExit) and not ending.code:
        sys.exit(failure)  # A success that nobody can read is none.
    raise


def _drop_output(error: _OutputError) -> bool:
  """Reports an error of the output unless its reader has left; returns whether that is the reason."""
  has_left = isinstance(error.__cause__, BrokenPipeError)
  if not has_left:
    print(f'error: cannot write to standard output: {error}', file=sys.stderr)
  # What is left of it is written at the end of the process, and has to go somewhere.
  null = os.open(os.devnull, os.O_WRONLY)
  os.dup2(null, 1)
  os.close(null)
  return has_left


class _Formatter(python_logging.Formatter):
  """Formats `12:34:56 message`; only levels above information are named."""

  def format(self, record: python_logging.LogRecord) -> str:
    level = '' if record.levelno <= python_logging.INFO else f'{record.levelname.lower()}: '
    return f'{self.formatTime(record, "%H:%M:%S")} {level}{record.getMessage()}'


# absl appends this to the help of flags that say so themselves.
_REPEATABLE = '; repeat this option to specify a list of values'


def _help(main: Main, command: str) -> str:
  """Returns the docstring of a command and its flags; absl's --helpfull has all others."""
  name = command.removesuffix('.py').rsplit('/', 1)[-1]
  lines = [(sys.modules[main.__module__].__doc__ or '').strip(), '', f'Flags of {name}:']
  for module, module_flags in flags.FLAGS.flags_by_module_dict().items():
    if module.startswith('absl.'):
      continue
    for flag in module_flags:
      lines += ['', f'  --{flag.name}{_value_help(flag)}', *_wrapped(flag.help)]
  return '\n'.join([*lines, '', 'Also: --helpfull for flags of logging and debugging.'])


def _value_help(flag: flags.Flag) -> str:
  if flag.boolean:
    return f' (default: {"on" if flag.default else "off"}; --no{flag.name} for off)'
  if not flag.allow_override and flag.default is None:
    return ''
  return '' if flag.default in (None, []) else f' (default: {flag.default})'


def _wrapped(text: str) -> list[str]:
  text = ' '.join(text.split()).removesuffix(_REPEATABLE)
  return textwrap.wrap(text, 96, initial_indent='      ', subsequent_indent='      ')


def main() -> None:
  """Runs the command `d2r`."""
  _prepare_output()
  arguments = sys.argv[1:]
  command = arguments[0] if arguments else '--help'
  if command == '--version':
    with _output_errors():
      print(f'delf_d2r {VERSION}')
  elif command in ('--help', '-h', 'help'):
    with _output_errors():
      print(_overview())
  elif command not in COMMANDS:
    print(f'error: no command {command!r}. {_hint(command)}', file=sys.stderr)
    sys.exit(2)
  else:
    module = importlib.import_module(f'delf_d2r.tools.{command}')
    run(module.main, [f'd2r {command}', *arguments[1:]])


def _hint(command: str) -> str:
  """Returns a hint at the command that resembles the given one; if none does, at all of them."""
  close = difflib.get_close_matches(command.lower().replace('-', '_'), COMMANDS, n=1)
  return f'Did you mean {close[0]}?' if close else f'There are: {", ".join(COMMANDS)}'


def _overview() -> str:
  lines = [
    'Detect-to-Retrieve: find the photos of a folder that show the same landmark or object.',
    '',
    'Usage: d2r COMMAND --flag=value ...    (d2r COMMAND --help explains each)',
    '',
  ]
  known = {module.name for module in pkgutil.iter_modules(importlib.import_module('delf_d2r.tools').__path__)}
  for command in COMMANDS:
    if command in known:
      lines.append(f'  {command:<22} {_first_line(command)}')
  return '\n'.join(lines)


def _first_line(command: str) -> str:
  """Returns the first line of the docstring of a command without importing it."""
  spec = importlib.util.find_spec(f'delf_d2r.tools.{command}')
  source = spec.origin if spec else None
  if source is None:
    return ''
  with open(source, encoding='utf-8') as file:
    return file.readline().strip().removeprefix('r').strip('"').rstrip('.')
