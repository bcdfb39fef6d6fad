"""The style sheets and scripts of a page, each kind as one text to be put into it."""

import importlib.resources
import re
from collections.abc import Sequence

from delf_d2r.report.markup import Markup

# Modules name each other by import; in one text they simply stand in order, those that are imported first.
_IMPORT = re.compile(r'^import [^;]*;\n', re.MULTILINE)
_EXPORT = re.compile(r'^export ', re.MULTILINE)


def styles(names: Sequence[str]) -> Markup:
  """The style sheets of those names, later ones over earlier ones."""
  return Markup('\n'.join(map(_read, names)))


def scripts(names: Sequence[str]) -> Markup:
  """The modules of those names as one script, for pages that may fetch nothing; '' for none.

  Names that they declare at their top level must differ.
  """
  if not names:
    return Markup('')
  modules = [_EXPORT.sub('', _IMPORT.sub('', _read(name))) for name in names]
  return Markup("(() => {\n'use strict';\n" + '\n'.join(modules) + '})();\n')


def _read(name: str) -> str:
  return importlib.resources.files('delf_d2r.report').joinpath('assets', name).read_text('utf-8')
