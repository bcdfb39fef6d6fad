"""What a server allows."""

import dataclasses
import os


@dataclasses.dataclass(frozen=True)
class Options:
  """Limits of a server.

  Attributes:
    max_upload_bytes: of one request's body.
    max_megapixels: of an uploaded photo, as its header says; what the index allows also holds.
    max_results: the largest top_k; 0 is taken as this.
    searches_at_once: searches that run beside each other; others wait.
    most_waiting: so many; more are told to come back later.
    wait_seconds: for how long they wait before they are told to come back later.
    answer_seconds: for how long a client waits for a search that runs. The search itself goes on.
    upload_seconds: for how long a client may send its body.
    remembered_bytes: photos and features of past queries are forgotten, oldest first, beyond this.
    allowed_hosts: values of the header Host that are answered, ports aside; ('*',) for any. It keeps pages of
      other sites from reading answers through a name of their own that leads here (DNS rebinding).
  """

  max_upload_bytes: int = 20_000_000
  max_megapixels: int = 100
  max_results: int = 200
  searches_at_once: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 1)
  most_waiting: int = 64
  wait_seconds: float = 60.0
  answer_seconds: float = 120.0
  upload_seconds: float = 60.0
  remembered_bytes: int = 512_000_000
  allowed_hosts: tuple[str, ...] = ('127.0.0.1', 'localhost', '[::1]')
