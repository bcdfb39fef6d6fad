"""Runs run_experiment on a few synthetic photos under faults: kills, full disks, concurrent runs."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from fuzzing import valid_files

from delf_d2r.data.artefacts.artefact import MANIFEST
from delf_d2r.data.artefacts.artefact_writer import PARTIAL_MANIFEST
from delf_d2r.doctor import inspect
from delf_d2r.doctor.findings import Severity
from delf_d2r.engine import SearchEngine
from support.run_files import contents

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CONFIG = """
name: "disturbed"
regions { source: UNIFORM uniform { boxes_per_side: [2] } }
extraction { max_features: 60 max_image_size: 200 max_crop_size: 200 images_per_shard: 1 }
codebook { num_words: 32 iterations: 3 }
aggregation { kernel: ASMK_STAR regions: REGIONAL_AGGREGATION images_per_shard: 2 }
verification { num_images: 4 queries_per_shard: 1 }
expansion { }
"""
NUM_PHOTOS = 8


class FaultInjector:
  """A data set, a config, and a reference run without faults.

  Attributes:
    reference: directory of the reference run.
    num_files: number of files of the reference run.
  """

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    (folder / 'photos').mkdir(parents=True)
    for number in range(NUM_PHOTOS):
      valid_files.photo(number, 200).save(folder / 'photos' / f'{number}.jpg', quality=90)
    queries = [{'image': f'{n}.jpg', 'easy': [f'{n}.jpg'], 'hard': [f'{n + 1}.jpg']} for n in (0, 3, 5)]
    (folder / 'truth.json').write_text(json.dumps({'version': 1, 'queries': queries}))
    (folder / 'config.pbtxt').write_text(CONFIG)
    # World-readable, for the run under another user.
    for place in (folder, folder.parent):
      place.chmod(0o755)
    self.reference = folder / 'reference'
    self.run(self.reference)
    self._contents = contents(self.reference)
    self.num_files = _num_files(self.reference)
    engine = SearchEngine.load(self.reference)
    self._answers = self._ask(engine)

  def command(self, out: pathlib.Path, *, workers: int = 1) -> list[str]:
    """Returns the command of the run in `out`."""
    return [
      sys.executable,
      str(REPOSITORY / 'tools' / 'run_experiment.py'),
      f'--config_path={self._folder / "config.pbtxt"}',
      f'--images={self._folder / "photos"}',
      f'--ground_truth={self._folder / "truth.json"}',
      f'--output={out}',
      f'--workers={workers}',
    ]

  def run(self, out: pathlib.Path) -> None:
    """Runs to the end; raises AssertionError with its output if it fails."""
    process = subprocess.run(self.command(out), capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stderr

  def fails(self, out: pathlib.Path, *, before: Sequence[str] = ()) -> str:
    """Checks that a run fails without a traceback; returns the error message."""
    process = subprocess.run(
      [*before, *self.command(out)], capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 1, process.stderr
    assert 'Traceback' not in process.stderr, process.stderr
    (message,) = (line for line in process.stderr.splitlines() if line.startswith('error: '))
    return message

  def kill(self, out: pathlib.Path, *, files: int, delay: float, workers: int = 1) -> bool:
    """Runs and kills either all processes or the first one only.

    Args:
      out: directory of the run.
      files: number of files in it to wait for.
      delay: seconds to wait after that.
      workers: number of workers of the run.

    Returns:
      True if the run was killed, False if it had ended before.
    """
    process = subprocess.Popen(
      self.command(out, workers=workers),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      start_new_session=True,
    )
    while process.poll() is None and _num_files(out) < files:
      time.sleep(0.002)
    try:
      process.wait(delay)
    except subprocess.TimeoutExpired:
      send = os.killpg if delay * 1e6 % 2 < 1 else os.kill
      send(process.pid, signal.SIGKILL)
      process.wait()
      return True
    return False

  def check_nothing_wrong_is_served(self, out: pathlib.Path) -> None:
    """Checks that finished artefacts are valid and that an index that opens answers like the reference."""
    if out.exists() and any(out.iterdir()):
      findings = inspect.diagnose(out).findings
      errors = [f for f in findings if f.severity is Severity.ERROR and 'no artefact' not in f.problem]
      assert not errors, errors
    if (out / 'index' / MANIFEST).exists():
      assert self._ask(SearchEngine.load(out)) == self._answers

  def cut_unfinished(self, out: pathlib.Path) -> pathlib.Path | None:
    """Truncates a shard of an unfinished artefact by one byte; returns its path, or None if there is none."""
    for manifest in sorted(out.rglob(PARTIAL_MANIFEST)):
      for shard in sorted(manifest.parent.glob('*.tfrecord')):
        os.truncate(shard, shard.stat().st_size - 1)
        return shard
    return None

  def check_resumes(self, out: pathlib.Path, *, cut: pathlib.Path | None = None) -> None:
    """Checks that the same command ends with the bytes of the reference run and writes no shard twice.

    Args:
      out: directory of the run.
      cut: a truncated shard, which may be written again.
    """
    shards = {file: file.stat().st_mtime_ns for file in out.rglob('*.tfrecord') if file.name[0] != '.'}
    self.run(out)
    self.check_same(out)
    lost = [file for file, time_ns in shards.items() if file != cut and file.stat().st_mtime_ns != time_ns]
    assert not lost, lost

  def check_same(self, out: pathlib.Path) -> None:
    """Checks that `out` contains the files of the reference run, byte by byte, and no others."""
    found = contents(out)
    assert found.keys() == self._contents.keys(), found.keys() ^ self._contents.keys()
    other = [name for name in found if found[name] != self._contents[name]]
    assert not other, other

  def random_kills(self, out: pathlib.Path, kills: int, seed: int) -> int:
    """Kills successive runs in `out` at random moments, and checks the files that each of them leaves.

    Returns:
      The number of killed runs; fewer than `kills` if a run finished.
    """
    rng = random.Random(seed)
    for number in range(kills):
      # By number of files instead of seconds, so that the moments do not depend on the load of the machine.
      files = rng.randint(_num_files(out), self.num_files)
      if not self.kill(out, files=files, delay=rng.uniform(0, 0.3), workers=rng.choice((1, 2))):
        return number
      self.check_nothing_wrong_is_served(out)
    return kills

  def _ask(self, engine: SearchEngine) -> list:
    results = engine.search(self._folder / 'photos' / '2.jpg', top_k=NUM_PHOTOS).results
    return [(result.name, float(result.score)) for result in results]


def _num_files(out: pathlib.Path) -> int:
  """Returns the number of files, including temporary ones; files may vanish meanwhile."""
  return sum(len(files) for _, _, files in os.walk(out))
