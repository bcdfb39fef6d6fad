"""Errors that a user can mend: a binary prints their message without a traceback."""


class UserError(ValueError):
  """Something outside the program is not as it should be; the message says what to do."""


class ConfigError(UserError):
  """A config does not parse, or its fields contradict each other."""


class ArtefactError(UserError):
  """An artefact is missing, unfinished, damaged or made by another config."""


class ImageError(UserError):
  """One photo cannot be used; a run counts it and goes on."""


class UnavailableError(UserError):
  """A server that is needed does not answer; it may later."""
