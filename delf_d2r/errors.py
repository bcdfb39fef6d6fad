"""Errors that a user can fix: a command prints their message without a traceback."""

import dataclasses


class UserError(ValueError):
  """Something outside the program is wrong; the message says what to do."""


class ConfigError(UserError):
  """A config does not parse, or its fields contradict each other."""


class ArtefactError(UserError):
  """An artefact is missing, unfinished, damaged or made by another config."""


class ImageError(UserError):
  """One photo cannot be used; a run counts it and continues."""


class PhotoUnavailableError(ImageError):
  """A photo cannot be read now for a reason that is not in the photo: a share is gone, or memory is short.

  A run stops at it, since the same photo may be read in the next run.
  """


class UnavailableError(UserError):
  """A server that is needed does not answer now; it may answer later."""


@dataclasses.dataclass(frozen=True)
class Problem:
  """A field of a config whose value cannot be used, and what to do about it.

  Attributes:
    field: the dotted path of the field, relative to the message that was checked.
    text: names the value and the remedy.
  """

  field: str
  text: str
