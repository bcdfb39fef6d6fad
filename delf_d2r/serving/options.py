"""The limits of a server."""

import dataclasses
import ipaddress
import os


@dataclasses.dataclass(frozen=True)
class Options:
  """The limits of a server.

  Attributes:
    max_upload_bytes: maximum size of the body of a request.
    max_megapixels: maximum size of an uploaded photo, as declared by its header. The limit of the index
      config also applies.
    max_decoded_megapixels: maximum size of all photos in total that are decoded at the same time; others
      wait. A larger photo is decoded alone. A search takes up to 17 bytes for each pixel.
    max_results: maximum top_k; a top_k of 0 means this many.
    max_concurrent: number of searches that run at the same time; others wait.
    max_waiting: number of searches that wait; further ones are refused with status 503.
    wait_seconds: how long a search waits before it is refused with status 503.
    answer_seconds: how long a client waits for a search that runs. The search itself is not interrupted.
    upload_seconds: how long a client may take to send a body.
    query_cache_bytes: size of the cache of photos and features of past queries; the least recently used are
      dropped.
    allowed_hosts: the names and addresses that the server answers for, as the Host header of a request has
      them, without port; ('*',) for any. It prevents pages of other sites from reading answers through a
      host name of their own that resolves to this server (DNS rebinding).
    allow_addresses: whether it also answers for every IP address; rebinding needs a name.
  """

  max_upload_bytes: int = 20_000_000
  max_megapixels: int = 100
  max_decoded_megapixels: int = 100
  max_results: int = 200
  max_concurrent: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 1)
  max_waiting: int = 64
  wait_seconds: float = 60.0
  answer_seconds: float = 120.0
  upload_seconds: float = 60.0
  query_cache_bytes: int = 512_000_000
  allowed_hosts: tuple[str, ...] = ('127.0.0.1', 'localhost', '[::1]')
  allow_addresses: bool = False

  def answers_for(self, host: str) -> bool:
    """Returns whether the server answers requests with this Host header."""
    name = without_port(host)
    if '*' in self.allowed_hosts or name in self.allowed_hosts:
      return True
    return self.allow_addresses and _is_address(name)


def without_port(host: str) -> str:
  """Returns the name or address of a Host header in lower case, without the dot that may end a name."""
  name, _, port = host.rpartition(':')
  return (name if name and (not port or port.isdecimal()) else host).lower().removesuffix('.')


def _is_address(host: str) -> bool:
  """Returns whether a host is an IPv4 address or an IPv6 address in brackets."""
  try:
    if host.startswith('[') and host.endswith(']'):
      return bool(ipaddress.IPv6Address(host[1:-1]))
    return bool(ipaddress.IPv4Address(host))
  except ValueError:
    return False
