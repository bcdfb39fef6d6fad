"""Commands that README.md and docs/*.md tell readers to run, and the files and headings that they name."""

import dataclasses
import os
import pathlib
import re
import shlex

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
README = REPOSITORY / 'README.md'
PAGES = (README, *sorted((REPOSITORY / 'docs').glob('*.md')))
# The page whose commands are those of other software.
_OTHERS = 'reference'
# What a command in tables and running text starts with; in blocks it may be any program.
PROGRAMS = ('d2r', 'make', 'pip', 'python')

_BLOCK = re.compile(r'^```(\w*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_CODE = re.compile(r'`([^`\n]+)`')
_LINK = re.compile(r'\]\(([^)\s]+)\)')
_INSIDE = re.compile(r'(tests|docs|configs|delf_d2r|tools|protos)/[\w./-]+')
_PLACEHOLDER = re.compile(r'\.\.\.|…|\b[A-Z][A-Z_]+\b|\bX\b|\b[NK]\b')


@dataclasses.dataclass(frozen=True)
class Command:
  """A command of a page.

  Attributes:
    program: d2r, make, pip, ...
    name: of d2r: the binary; of the others: the first argument. Empty for a mere list of flags.
    flags: (name, value) of each flag, without dashes; the value of a flag without one is None.
    arguments: what is no flag, after the name.
    line: its line in the page.
    is_shown: in a block or a table, so that readers will run it; False in running text.
    is_shortened: `...` represents flags that the page does not repeat.
    page: path of the page in the repository.
  """

  program: str
  name: str
  flags: tuple[tuple[str, str | None], ...]
  arguments: tuple[str, ...]
  line: int
  is_shown: bool
  is_shortened: bool
  page: str = 'README.md'

  def __str__(self) -> str:
    flags = (f'--{flag}' if value is None else f'--{flag}={value}' for flag, value in self.flags)
    return ' '.join(filter(None, [self.program, self.name, *self.arguments, *flags]))


def is_placeholder(value: str | None) -> bool:
  """Tells whether a value is a placeholder that readers replace: FILE, DIR, N, `...`."""
  return value is not None and _PLACEHOLDER.search(value) is not None


def parse(
  text: str, *, line: int = 0, is_shown: bool = True, name: str = '', page: str = 'README.md'
) -> Command:
  """Parses one command; `name` is the program of flags without a command.

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
  return Command(program, name, flags, arguments, line, is_shown, is_shortened, page)


def commands() -> list[Command]:
  """Returns the commands of all pages without repetitions, those of blocks and tables first."""
  found = []
  for path in PAGES:
    if path.stem != _OTHERS:
      found += commands_of(path.read_text(encoding='utf-8'), page=_name(path))
  return _each_once(found)


def commands_of(text: str, *, page: str = 'README.md') -> list[Command]:
  """Returns the commands of a page without repetitions, those of blocks and tables first."""
  found = []
  for block in _BLOCK.finditer(text):
    language, body = block.groups()
    first = text.count('\n', 0, block.start()) + 2
    is_drawing = '->' in body
    if language in ('', 'sh', 'bash', 'shell', 'console') and not is_drawing:
      found += [parse(line, line=first + number, page=page) for number, line in _lines(body)]
  rest = _BLOCK.sub(lambda block: '\n' * block[0].count('\n'), text)
  for number, line in enumerate(rest.split('\n'), 1):
    name = ''
    is_shown = line.startswith('|')
    for code in _CODE.findall(line):
      is_command = _program(code) in PROGRAMS and ' ' in code
      if is_command or re.match(r'(\.\.\. )?--\w', code):
        command = parse(code.replace('\\|', '|'), line=number, is_shown=is_shown, name=name, page=page)
        found.append(command)
        name = command.name if command.program == 'd2r' else ''
  return _each_once(found)


def blocks(language: str) -> list[str]:
  """Returns the blocks of another language, such as python, of all pages."""
  texts = [path.read_text(encoding='utf-8') for path in PAGES]
  return [block[2] for text in texts for block in _BLOCK.finditer(text) if block[1] == language]


def paths() -> set[str]:
  """Returns the files of the checkout that the pages name or link to, relative to the repository."""
  return {name for path in PAGES for name in _paths_of(path)}


def links() -> list[tuple[str, str]]:
  """Returns (page, target) of each link to a heading, `docs/commands.md#serve`, by repository paths."""
  found = []
  for path in PAGES:
    for target in _LINK.findall(path.read_text(encoding='utf-8')):
      if '://' not in target and '#' in target:
        file, heading = target.split('#')
        found.append((_name(path), f'{_inside(path, file) if file else _name(path)}#{heading}'))
  return found


def anchors(page: str) -> set[str]:
  """Returns the names by which GitHub links to the headings of a page."""
  text = _BLOCK.sub('', (REPOSITORY / page).read_text(encoding='utf-8'))
  headings = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
  return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def _name(path: pathlib.Path) -> str:
  return path.relative_to(REPOSITORY).as_posix()


def _inside(page: pathlib.Path, target: str) -> str:
  """Returns the path in the repository that a link of a page leads to."""
  return pathlib.Path(os.path.relpath(page.parent / target, REPOSITORY)).as_posix()


def _paths_of(page: pathlib.Path) -> set[str]:
  text = page.read_text(encoding='utf-8')
  named = {code.rstrip('/') for code in _CODE.findall(text)} | set(re.findall(r'=(configs/[\w./]+)', text))
  inside = {name for name in named if _INSIDE.fullmatch(name)}
  targets = {target.split('#')[0] for target in _LINK.findall(text) if '://' not in target}
  linked = {_inside(page, target) for target in targets if target}
  return {path for path in inside | linked if not is_placeholder(path)}


def _each_once(found: list[Command]) -> list[Command]:
  once = {}
  for command in sorted(found, key=lambda command: not command.is_shown):
    once.setdefault(str(command), command)
  return list(once.values())


def _program(code: str) -> str:
  return code.split(maxsplit=1)[0].removeprefix('.venv/bin/') if code.strip() else ''


def _lines(body: str):
  """Yields (number, line) of a block: joins continued lines, skips comments and empty lines."""
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
