"""Readers of files of this library: configs, records, artefacts, indexes, rankings, metrics."""

import pathlib

import numpy as np
from fuzzing import mutations, valid_files
from fuzzing.reader import Reader, single
from fuzzing.valid_files import ValidFiles, files_of
from hypothesis import strategies as st
from support import tfrecord_files

from delf_d2r import config
from delf_d2r.data.artefacts import (
  background_files,
  codebook_files,
  index_files,
  live_files,
  match_records,
  packaged_codebook,
  pca_files,
  ranking_files,
  records,
  tfrecord,
)
from delf_d2r.data.artefacts.artefact import MANIFEST, Artefact, read_manifest
from delf_d2r.data.artefacts.background_files import Background
from delf_d2r.data.training import detection_examples, training_examples
from delf_d2r.data.training.detection_examples import DetectionExample
from delf_d2r.doctor import inspect
from delf_d2r.engine import SearchEngine
from delf_d2r.errors import ConfigError
from delf_d2r.evaluation import metrics_files
from delf_d2r.experiments import experiment
from delf_d2r.index.inverted_index import InvertedIndex
from delf_d2r.index.segments import ValueType
from delf_d2r.kernels.aggregation import Kernel
from delf_d2r.kernels.background import WordStatistics, descriptor_statistics
from delf_d2r.kernels.pca import Pca
from delf_d2r.stages import export_codebook
from delf_d2r.structures import AggregatedDescriptor

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'
_FIELDS = (
  'extraction',
  'aggregation',
  'codebook',
  'kernel',
  'alpha',
  'num_words',
  'regions',
  'uniform',
  'delf',
)


def readers(made: ValidFiles) -> list[Reader]:
  """Returns all readers, with seeds from a run."""
  run = made.run
  return [
    *_configs(),
    *_records(run),
    Reader('artefact directory', tuple(files_of(run / kind) for kind in ('boxes', 'descriptors')), _artefact),
    Reader('codebook', (files_of(run / 'codebook'),), _codebook),
    Reader('packaged codebook', (files_of(_exported(made)),), _packaged_codebook),
    Reader('background model', (files_of(_background(made)),), _expected_scores),
    Reader('matrix of global descriptors', (files_of(_matrix(made)),), _inverted),
    Reader('rankings', tuple(files_of(run / kind) for kind in ('rankings', 'reranked')), _rankings),
    Reader('index files', (files_of(run / 'index' / 'inverted'),), _inverted),
    Reader('index artefact', (files_of(run / 'index'),), _engine),
    _live(made),
    _pca(),
    Reader('metrics', (files_of(run / 'metrics'),), _metrics, _metrics_documents()),
    Reader('doctor', tuple(files_of(run / kind) for kind in _INSPECTED), _doctor, errors=()),
  ]


def _exported(made: ValidFiles) -> pathlib.Path:
  folder = made.run.parent / 'packaged_codebook'
  if not folder.exists():
    export_codebook.run(Artefact.open(made.run / 'codebook', 'codebook'), folder)
  return folder


def _background(made: ValidFiles) -> pathlib.Path:
  folder = made.run.parent / 'background'
  if not folder.exists():
    folder.mkdir()
    rng = np.random.default_rng(0)
    words = WordStatistics(*rng.uniform(0, 1, (4, 16)).astype(np.float32), True)
    rows = rng.normal(size=(9, 5)).astype(np.float32)
    background_files.save(
      Background(config.default('aggregation', 'fusion'), words, descriptor_statistics(rows), 'abc', {}, 9),
      folder,
    )
  return folder


def _expected_scores(folder: pathlib.Path) -> None:
  found = background_files.load(folder)
  background_files.digest(folder)
  for expected in (
    found.words.expected(np.arange(len(found.words.presence))),
    found.descriptors.expected(np.ones(len(found.descriptors.mean), np.float32)),
  ):
    assert np.isfinite([expected.mean, expected.deviation]).all()


def _matrix(made: ValidFiles) -> pathlib.Path:
  folder = made.run.parent / 'matrix'
  if not folder.exists():
    values = np.random.default_rng(0).normal(size=(4, 1, 16)).astype(np.float32)
    InvertedIndex.build(
      [AggregatedDescriptor(np.zeros(1, np.uint32), rows, 16) for rows in values],
      list('abcd'),
      num_words=1,
      kernel=Kernel.VLAD,
      value_type=ValueType.INT8,
      directory=folder,
    )
  return folder


_INSPECTED = ('boxes', 'descriptors', 'codebook', 'index', 'rankings', 'metrics', 'query_features')


def _configs() -> list[Reader]:
  seeds = [path.read_bytes() for path in sorted(CONFIGS.glob('experiments/*.pbtxt'))]
  value = st.sampled_from(('1', '-1', '1e30', 'nan', '"x"', 'ASMK', '{ }', '[1, 2]', 'true', '"\\q"', '0x7f'))
  line = st.tuples(st.sampled_from(_FIELDS), st.sampled_from((': ', ' { ', ' ', ' } ')), value).map(''.join)
  text = st.lists(line, max_size=6).map(lambda lines: '\n'.join(lines).encode())

  def load(path):
    return config.load(path, experiment.STAGES)

  def override(path):
    try:
      text = path.read_bytes().decode()
    except UnicodeDecodeError:
      raise ConfigError('the command line is Unicode') from None
    return config.load_or_default(None, experiment.STAGES, overrides=[text])

  overrides = (b'aggregation.alpha: 2', b'extraction { max_features: 7 }', b'search { top_k: 3 }')
  return [
    single('config', 'x.pbtxt', seeds, load, text, errors=(ConfigError,)),
    single('override', 'x.txt', overrides, override, text, errors=(ConfigError,)),
  ]


def _records(run: pathlib.Path) -> list[Reader]:
  """Returns readers of TFRecord files, and of their records, where no checksum reveals damage."""
  shards = {kind: sorted((run / kind).glob('*.tfrecord'))[0] for kind in ('boxes', 'descriptors', 'reranked')}
  shards['query_features'] = sorted((run / 'query_features').glob('*.tfrecord'))[0]
  first = {kind: tuple(tfrecord.read_file(path)) for kind, path in shards.items()}

  def read_shard(path):
    for offset, data in zip(tfrecord.record_offsets(path), tfrecord.read_file(path), strict=True):
      assert tfrecord.read_at(path, offset) == data

  def decoder(decode):
    return lambda path: decode(path.read_bytes())

  def photo(data):
    assert detection_examples.decode(data).image().dtype == np.uint8

  def training_photo(path):
    shard = path.with_suffix('.tfrecord')
    tfrecord_files.write(shard, [path.read_bytes()])
    assert training_examples.load(shard, needs_labels=False).read(0).image.dtype == np.uint8

  detection = DetectionExample(
    name='a.jpg',
    source_id=1,
    encoded=valid_files.encoded(valid_files.photo(1, 32), 'jpeg'),
    format='jpeg',
    height=32,
    width=32,
    boxes=np.array([[0, 0, 0.5, 0.5]], np.float32),
    labels=np.array([1]),
    texts=('landmark',),
    groups=('tower',),
  )
  return [
    single('TFRecord file', 'x.tfrecord', [shards['boxes'].read_bytes()], read_shard),
    single('record of boxes', 'x', first['boxes'], decoder(records.decode_boxes)),
    single('record of features', 'x', first['query_features'], decoder(records.decode_features)),
    single('record of descriptors', 'x', first['descriptors'], decoder(records.decode_descriptors)),
    single('record of matches', 'x', first['reranked'], decoder(match_records.decode)),
    single('record of detection', 'x', [detection_examples.encode(detection)], decoder(photo)),
    single('record of a photo', 'x', [detection_examples.encode(detection)], training_photo),
  ]


def _artefact(folder: pathlib.Path) -> None:
  kind = read_manifest(folder / MANIFEST).kind
  artefact = Artefact.open(folder, kind)
  decode = {'boxes': records.decode_boxes, 'descriptors': records.decode_descriptors}.get(
    kind, records.Record
  )
  for data in artefact.records():
    decode(data)
  assert isinstance(artefact.counts, dict)


def _codebook(folder: pathlib.Path) -> None:
  centroids = codebook_files.load_centroids(folder)
  assert np.isfinite(centroids).all()
  codebook_files.load_recall(folder)
  projection = codebook_files.load_projection(folder)
  if projection is not None:
    projection(np.arange(len(centroids)), np.asarray(centroids))


def _packaged_codebook(folder: pathlib.Path) -> None:
  found = packaged_codebook.load(folder)
  assert np.isfinite(found.words.centroids).all()


def _rankings(folder: pathlib.Path) -> None:
  stored = ranking_files.load(folder)
  for ranking in stored.rankings:
    assert all(0 <= image < len(stored.image_names) for image in ranking.image_ids.tolist())


QUERY = AggregatedDescriptor(
  np.arange(16, dtype=np.uint32), np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8), 128
)


GLOBAL_QUERY = AggregatedDescriptor(np.zeros(1, np.uint32), np.ones((1, 16), np.float32), 16)


def _inverted(folder: pathlib.Path) -> None:
  """Checks that a search of any bytes ends, and that it is correct if `verify` finds no damage."""
  index = InvertedIndex.load(folder)
  ranking = index.search(QUERY if index.kernel.is_binary else GLOBAL_QUERY)
  names = list(index.image_names)
  assert len(ranking) == len(names)
  index.verify()
  assert np.isfinite(ranking.scores).all()


def _engine(folder: pathlib.Path) -> None:
  engine = SearchEngine.load(folder)
  ranking = engine.rank(QUERY, top_k=3, name='q')
  assert len(ranking) == min(3, len(engine))


def _live(made: ValidFiles) -> Reader:
  """Returns the reader of `live.npz`, in a folder with its postings."""
  boxes = index_files.load_boxes(made.run / 'index')
  folder = made.run.with_name('live')
  folder.mkdir()
  shard = sorted((made.run / 'query_features').glob('*.tfrecord'))[0]
  digest = live_files.add_features(folder, records.decode_features(next(tfrecord.read_file(shard))))
  live_files.prepare(folder, live_files.LiveState(boxes, {'a.jpg': digest}), replacing=1)
  live_files.finish(folder)

  def read(folder):
    state = live_files.load(folder, 2)
    for image_id in range(len(state.boxes.offsets) - 1):
      assert state.boxes.of(image_id).shape[1:] == (4,)
    for digest in state.added.values():
      live_files.read_features(folder, digest)

  return Reader('live index state', (files_of(folder),), read)


def _pca() -> Reader:
  import tempfile

  with tempfile.TemporaryDirectory() as folder:
    rng = np.random.default_rng(0)
    pca_files.save(
      Pca(*(rng.normal(size=shape).astype(np.float32) for shape in ((4,), (3, 4))), np.ones(3, np.float32)),
      pathlib.Path(folder),
    )
    files = files_of(pathlib.Path(folder))
  return Reader('pca', (files,), pca_files.load)


def _metrics(folder: pathlib.Path) -> None:
  metrics_files.read_metrics_json(folder / 'metrics.json')
  metrics_files.read_per_query(folder / 'per_query.json')
  metrics_files.read_metrics_txt(folder / 'metrics.txt')


def _metrics_documents():
  keys = ('version', 'ks', 'protocols', 'queries', 'easy', 'mAP', 'mP@k', 'mR@k', 'AP', 'query')
  document = mutations.json_values(keys).map(mutations.json_bytes)
  return document.map(lambda data: {'metrics.json': data, 'per_query.json': data, 'metrics.txt': b''})


def _doctor(folder: pathlib.Path) -> None:
  diagnosis = inspect.diagnose(folder)
  assert diagnosis.exit_code in (0, 1, 2)
  assert diagnosis.to_text()
