"""Small artefacts of features and rankings of photos that share known points."""

import numpy as np

from delf_d2r import config as configs
from delf_d2r.data.artefacts import artefact_writer, ranking_files, records
from delf_d2r.data.artefacts.artefact import Input, Plan
from delf_d2r.data.artefacts.ranking_files import Timing
from delf_d2r.geometry import transforms
from delf_d2r.structures import ImageFeatures, LocalFeatures, Ranking

NAMES = ('a.jpg', 'b.jpg', 'c.jpg', 'd.jpg', 'e.jpg')
# How many points of the query's object each index image shows.
SHOWN = (0, 30, 60, 12, 60)
QUERIES = ('q0', 'q1', 'q2')
MATRIX = np.array([[0.9, -0.2, 30], [0.1, 1.1, 20], [0, 0, 1]])


def vectors(n, seed):
  found = np.random.default_rng(seed).normal(size=(n, 32)).astype(np.float32)
  return found / np.linalg.norm(found, axis=1, keepdims=True)


def image(name, locations, descriptors, regions=((0, 0, 1, 1),), offsets=None):
  n = len(locations)
  features = LocalFeatures(
    locations.astype(np.float32), np.ones(n, np.float32), np.zeros(n, np.float32), descriptors
  )
  offsets = np.array([0, n]) if offsets is None else np.array(offsets)
  return ImageFeatures(name, 400, 500, np.array(regions, np.float32), offsets, features)


def query_images():
  """Returns queries that show an object of 60 points each; no index image shows the last one."""
  places = np.random.default_rng(0).uniform(0, 400, (60, 2))
  seen = transforms.apply(MATRIX, places)
  return places, [image(name, seen, vectors(60, seed=min(i, 1) * 7)) for i, name in enumerate(QUERIES)]


def index_images():
  """Returns index images with points of both objects and others; the box of each repeats some of them."""
  places, queries = query_images()
  found = []
  for number, (name, shown) in enumerate(zip(NAMES, SHOWN, strict=True)):
    rng = np.random.default_rng(number + 1)
    parts = [queries[0].features.descriptors[:shown], queries[1].features.descriptors[:shown]]
    others = vectors(40, seed=100 + number)
    where = np.concatenate([places[:shown], places[:shown], rng.uniform(0, 400, (40, 2))])
    descriptors = np.concatenate([*parts, others])
    n = len(where)
    found.append(
      image(
        name,
        np.concatenate([where, where[: n // 2]]),
        np.concatenate([descriptors, descriptors[: n // 2]]),
        regions=((0, 0, 1, 1), (0, 0, 0.5, 0.5)),
        offsets=(0, n, n + n // 2),
      )
    )
  return found


def write_features(path, images, fingerprint='x', **extraction):
  config = configs.default('extraction')
  for name, value in extraction.items():
    setattr(config.extraction, name, value)
  plan = Plan('features', config, (Input('images', fingerprint, path),))
  with artefact_writer.writing(path, plan) as writer:
    for shard in writer.ledger.missing(len(images), 2):
      with writer.ledger.write(shard) as file:
        for item in shard.items:
          found = images[item]
          file.add(
            records.encode_features(found),
            images=1,
            features=len(found.features),
            whole_features=int(found.region_offsets[1]),
          )
    return writer.finish()


def write_rankings(path, query_features, rankings=None):
  inputs = (Input('index', 'i', path), query_features.as_input('query_features'))
  plan = Plan('rankings', configs.default('extraction', 'search'), inputs)
  with artefact_writer.writing(path, plan) as writer:
    rankings = rankings or [
      Ranking(query, np.arange(5), np.linspace(1, 0.5, 5).astype(np.float32), np.full(5, -1, np.int32))
      for query in QUERIES
    ]
    times = (1.0,) * len(rankings)
    ranking_files.save(rankings, NAMES, Timing(times, times), path)
    return writer.finish()


def contents(artefact):
  return {
    file.name: file.read_bytes()
    for file in artefact.path.iterdir()
    if file.name not in ('manifest.pbtxt', 'timing.json')
  }
