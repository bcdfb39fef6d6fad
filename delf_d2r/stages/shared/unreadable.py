"""Photos that cannot be decoded: named and left out, unless that leaves nothing or the user wants to stop."""

from absl import logging

from delf_d2r.data.artefacts import artefact_writer, shard_ledger
from delf_d2r.errors import ImageError, UserError


def leave_out(file: shard_ledger.ShardWriter, name: str, error: str, *, strict: bool) -> None:
  """Notes a photo in `errors.jsonl`; with `strict` raises ImageError instead."""
  if strict:
    raise ImageError(f'{error} (stopped, because of --strict)')
  logging.warning('left out: %s', error)
  file.add_error(name, error)


def require_some(writer: artefact_writer.ArtefactWriter, what: str) -> None:
  """Raises UserError, and removes what was written, if no photo at all could be decoded."""
  if not writer.ledger.counts['images']:
    reasons = '; '.join(error['error'] for error in writer.ledger.errors[:3])
    writer.discard()
    raise UserError(f'none of the {len(writer.ledger.errors)} {what} could be read: {reasons}')
