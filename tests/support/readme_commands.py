"""What README.md tells its readers to run, in blocks, tables and running text, and the files it names."""

import dataclasses
import pathlib
import re
import shlex

README = pathlib.Path(__file__).resolve().parents[2] / 'README.md'
# What a command in tables and running text starts with; in blocks it may be any program.
PROGRAMS = ('d2r', 'make', 'pip', 'python')

_BLOCK = re.compile(r'^```(\w*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_CODE = re.compile(r'`([^`\n]+)`')
_INSIDE = re.compile(r'(tests|docs|configs|delf_d2r|tools|protos)/[\w./-]+')
_PLACEHOLDER = re.compile(r'\.\.\.|…|\b[A-Z][A-Z_]+\b|\bX\b|\b[NK]\b')


@dataclasses.dataclass(frozen=True)
class Command:
  """A command of README.md.

  Attributes:
    program: d2r, make, pip, ...
    name: of d2r: the binary; of the others: the first argument. Empty for a mere list of flags.
    flags: (name, value) of each flag, without dashes; the value of a flag that stands alone is None.
    arguments: what is no flag, after the name.
    line: where it stands in README.md.
    is_shown: in a block or a table, so that readers will run it; False in running text.
    is_shortened: `...` stands for flags that README.md does not repeat.
  """

  program: str
  name: str
  flags: tuple[tuple[str, str | None], ...]
  arguments: tuple[str, ...]
  line: int
  is_shown: bool
  is_shortened: bool

  def __str__(self) -> str:
    flags = (f'--{flag}' if value is None else f'--{flag}={value}' for flag, value in self.flags)
    return ' '.join(filter(None, [self.program, self.name, *self.arguments, *flags]))


def is_placeholder(value: str | None) -> bool:
  """Whether the reader has to put something of his own in its place: FILE, DIR, N, `...`."""
  return value is not None and _PLACEHOLDER.search(value) is not None


def parse(text: str, *, line: int = 0, is_shown: bool = True, name: str = '') -> Command:
  """One command; `name` is the binary of flags that stand alone.

  Raises:
    ValueError: its quotes do not match.
  """
  # An optional part is taken, too.
  every = shlex.split(re.sub(r'\[(--[^]]*)\]', r'\1', text), comments=True)
  words = [word for word in every if word not in ('...', '…')]
  is_shortened = len(words) < len(every)
  program = 'd2r'
  if words and not words[0].startswith('-'):
    program = words.pop(0).removeprefix('.venv/bin/')
    name = words.pop(0) if words and not words[0].startswith('-') else ''
  pairs = [word.lstrip('-').split('=', 1) for word in words if word.startswith('-')]
  flags = tuple((flag, value[0] if value else None) for flag, *value in pairs)
  arguments = tuple(word for word in words if word[:1] != '-')
  return Command(program, name, flags, arguments, line, is_shown, is_shortened)


def commands(text: str | None = None) -> list[Command]:
  """All commands, each once, those of blocks and tables before those of running text."""
  text = README.read_text(encoding='utf-8') if text is None else text
  found = []
  for block in _BLOCK.finditer(text):
    language, body = block.groups()
    first = text.count('\n', 0, block.start()) + 2
    is_drawing = '->' in body
    if language in ('', 'sh', 'bash', 'shell', 'console') and not is_drawing:
      for number, line in _lines(body):
        found.append(parse(line, line=first + number))
  rest = _BLOCK.sub(lambda block: '\n' * block[0].count('\n'), text)
  for number, line in enumerate(rest.split('\n'), 1):
    name = ''
    for code in _CODE.findall(line):
      is_command = _program(code) in PROGRAMS and ' ' in code
      if is_command or re.match(r'(\.\.\. )?--\w', code):
        found.append(parse(code.replace('\\|', '|'), line=number, is_shown=line.startswith('|'), name=name))
        name = found[-1].name if found[-1].program == 'd2r' else ''
  once = {}
  for command in sorted(found, key=lambda command: not command.is_shown):
    once.setdefault(str(command), command)
  return list(once.values())


def blocks(language: str) -> list[str]:
  """The blocks of another language, such as python."""
  text = README.read_text(encoding='utf-8')
  return [block[2] for block in _BLOCK.finditer(text) if block[1] == language]


def paths() -> set[str]:
  """The files of the checkout that README.md names or links to."""
  text = README.read_text(encoding='utf-8')
  named = {code.rstrip('/') for code in _CODE.findall(text)} | set(re.findall(r'=(configs/[\w./]+)', text))
  inside = {name for name in named if _INSIDE.fullmatch(name)}
  linked = {target.split('#')[0] for target in re.findall(r'\]\(([^)\s]+)\)', text) if '://' not in target}
  return {path for path in inside | linked if path and not is_placeholder(path)}


def _program(code: str) -> str:
  return code.split(maxsplit=1)[0].removeprefix('.venv/bin/') if code.strip() else ''


def _lines(body: str):
  """(number, line) of a block: continued lines joined, comments and empty lines left out."""
  joined, start = '', 0
  for number, line in enumerate(body.split('\n')):
    if not joined:
      start = number
    joined += line.removesuffix('\\')
    if line.endswith('\\'):
      continue
    if joined.strip() and not joined.lstrip().startswith('#'):
      yield start, joined
    joined = ''
