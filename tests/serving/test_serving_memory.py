"""The memory of a server: pixels of photos in flight, and what the caches count."""

import io
import threading
import time
import tracemalloc
from concurrent import futures

import numpy as np
import pytest
from PIL import Image
from support.servers import serving_client

from delf_d2r.serving.app import create_app
from delf_d2r.serving.decoding import DecodingBudget
from delf_d2r.serving.jpeg_cache import JpegCache, preview
from delf_d2r.serving.options import Options
from delf_d2r.serving.problems import Problem
from delf_d2r.serving.searches import Query, QueryCache


def png(height, width) -> bytes:
  data = io.BytesIO()
  Image.new('RGB', (width, height)).save(data, 'PNG')
  return data.getvalue()


def test_photos_in_flight_have_at_most_so_many_pixels():
  budget = DecodingBudget(1, seconds=20)
  lock, running, most = threading.Lock(), [], []

  def decode(pixels):
    with budget.of_pixels(pixels):
      with lock:
        running.append(pixels)
        most.append((sum(running), len(running)))
      time.sleep(0.02)
      with lock:
        running.remove(pixels)

  with futures.ThreadPoolExecutor(8) as pool:
    sizes = [400_000, 300_000, 5_000_000, 700_000, 100_000, 1_000_000] * 3
    assert list(pool.map(decode, sizes)) == [None] * len(sizes)
  assert max(total for total, number in most if number > 1) <= 1_000_000
  assert max(number for _, number in most) > 1
  assert (5_000_000, 1) in most


def test_a_photo_waits_only_so_long_and_fails_alone():
  budget = DecodingBudget(1, seconds=0.1)
  with budget.of_pixels(900_000):
    with pytest.raises(Problem, match='busy'), budget.of_photo(png(500, 500)):
      pass
    with budget.of_photo(png(100, 100)):
      pass
  with pytest.raises(ZeroDivisionError), budget.of_pixels(900_000):
    raise ZeroDivisionError
  with budget.of_pixels(900_000):
    pass


@pytest.mark.slow
def test_searches_for_large_photos_follow_one_another(engine, monkeypatch):
  running, most = [], []
  load = type(engine).load_photo

  def counted(self, photo, **options):
    running.append(1)
    most.append(len(running))
    time.sleep(0.3)
    try:
      return load(self, photo, **options)
    finally:
      running.pop()

  monkeypatch.setattr(type(engine), 'load_photo', counted)
  options = Options(max_concurrent=4, max_decoded_megapixels=1)
  large = png(900, 900)
  with (
    serving_client(create_app(engine, options)) as client,
    futures.ThreadPoolExecutor(3) as pool,
  ):
    sent = [pool.submit(client.post, '/api/search', files={'photo': ('x', large)}) for _ in range(3)]
    assert [future.result().status_code for future in sent] == [200] * 3
    assert max(most) == 1
    sent = [pool.submit(client.post, '/api/search', files={'photo': ('x', png(90, 90))}) for _ in range(3)]
    assert [future.result().status_code for future in sent] == [200] * 3
    assert max(most) > 1


@pytest.mark.parametrize('size', [2, 160])
def test_remembered_queries_take_the_memory_that_is_counted(engine, size):
  cache = QueryCache(1 << 40)
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 255, (size, size, 3), dtype=np.uint8)
  queries = []

  def remember():
    features = engine.search(pixels, top_k=1).features
    upload = bytes(bytearray(png(size, size)))
    regions = {1000 + number: -1 for number in range(200)}
    queries.append(cache.add(Query(f'{len(queries)}.png', upload, preview(pixels), features, regions)))

  remember()
  before = cache._bytes
  tracemalloc.start()
  try:
    for _ in range(30):
      remember()
    taken, _ = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert 0.6 * taken < cache._bytes - before < 1.6 * taken


def test_the_memory_of_remembered_queries_is_bounded(engine):
  cache = QueryCache(100_000)
  features = engine.search(np.zeros((2, 2, 3), np.uint8), top_k=1).features
  regions = {number: -1 for number in range(1000, 1200)}
  keys = [cache.add(Query('a.png', b'1', b'2', features, regions)) for _ in range(100)]
  assert 3 <= sum(key in cache._queries for key in keys) <= 20
  assert cache.get(keys[-1]).name == 'a.png'


def test_a_replaced_photo_is_read_again(tmp_path):
  path, cache = tmp_path / 'a.png', JpegCache()
  path.write_bytes(png(20, 30))
  first = cache.get(path, 320)
  assert cache.get(path, 320) is first
  other = tmp_path / 'b.png'
  other.write_bytes(png(40, 30))
  other.replace(path)
  with Image.open(io.BytesIO(cache.get(path, 320))) as shown:
    assert shown.size == (30, 40)
  assert len(cache._entries) == 1
