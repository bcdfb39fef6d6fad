"""run_experiment on a few made-up photos, for tests that disturb it: kills, full disks, second runs."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from fuzzing import material
from support.run_files import contents

from delf_d2r.data.artefacts.artefact import MANIFEST
from delf_d2r.data.artefacts.artefact_writer import PARTIAL_MANIFEST
from delf_d2r.doctor import inspect
from delf_d2r.doctor.findings import Severity
from delf_d2r.engine import SearchEngine

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


class Laboratory:
  """A data set, a config, and the run that nothing disturbed.

  Attributes:
    undisturbed: that run's directory.
    num_files: how many files it left.
  """

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    (folder / 'photos').mkdir(parents=True)
    for number in range(NUM_PHOTOS):
      material.photo(number, 200).save(folder / 'photos' / f'{number}.jpg', quality=90)
    queries = [{'image': f'{n}.jpg', 'easy': [f'{n}.jpg'], 'hard': [f'{n + 1}.jpg']} for n in (0, 3, 5)]
    (folder / 'truth.json').write_text(json.dumps({'version': 1, 'queries': queries}))
    (folder / 'config.pbtxt').write_text(CONFIG)
    # World-readable, for the run under another user.
    for place in (folder, folder.parent):
      place.chmod(0o755)
    self.undisturbed = folder / 'undisturbed'
    self.run(self.undisturbed)
    self._contents = contents(self.undisturbed)
    self.num_files = _num_files(self.undisturbed)
    engine = SearchEngine.load(self.undisturbed)
    self._answers = self._ask(engine)

  def command(self, out: pathlib.Path, *, workers: int = 1) -> list[str]:
    """The command that makes the run in `out`."""
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
    """Runs to the end; AssertionError with what it said if it fails."""
    process = subprocess.run(self.command(out), capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stderr

  def fails(self, out: pathlib.Path, *, before: Sequence[str] = ()) -> str:
    """Runs, which must fail as a user can read it; returns the message."""
    process = subprocess.run(
      [*before, *self.command(out)], capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 1, process.stderr
    assert 'Traceback' not in process.stderr, process.stderr
    (message,) = (line for line in process.stderr.splitlines() if line.startswith('error: '))
    return message

  def kill(self, out: pathlib.Path, *, files: int, delay: float, workers: int = 1) -> bool:
    """Runs and kills, all its processes at once or the first alone.

    Args:
      out: the run's directory.
      files: wait until there are so many files in it,
      delay: and for so many seconds more.
      workers: of the run.

    Returns:
      Whether it was killed; else it had ended before.
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
    """What stands as finished is sound, and an index that opens answers as that of the undisturbed run."""
    if out.exists() and any(out.iterdir()):
      findings = inspect.diagnose(out).findings
      errors = [f for f in findings if f.severity is Severity.ERROR and 'no artefact' not in f.problem]
      assert not errors, errors
    if (out / 'index' / MANIFEST).exists():
      assert self._ask(SearchEngine.load(out)) == self._answers

  def cut_unfinished(self, out: pathlib.Path) -> pathlib.Path | None:
    """Takes the last byte of a shard of unfinished work, if there is one; returns which."""
    for manifest in sorted(out.rglob(PARTIAL_MANIFEST)):
      for shard in sorted(manifest.parent.glob('*.tfrecord')):
        os.truncate(shard, shard.stat().st_size - 1)
        return shard
    return None

  def check_ends_undisturbed(self, out: pathlib.Path) -> None:
    """The same command ends with the bytes of the undisturbed run, and makes no shard anew."""
    shards = {file: file.stat().st_mtime_ns for file in out.rglob('*.tfrecord') if file.name[0] != '.'}
    self.run(out)
    self.check_same(out)
    lost = [file for file, moment in shards.items() if file.stat().st_mtime_ns != moment]
    assert not lost, lost

  def check_same(self, out: pathlib.Path) -> None:
    """`out` holds the bytes of the undisturbed run, and nothing else."""
    found = contents(out)
    assert found.keys() == self._contents.keys(), found.keys() ^ self._contents.keys()
    other = [name for name in found if found[name] != self._contents[name]]
    assert not other, other

  def random_kills(self, out: pathlib.Path, kills: int, seed: int) -> int:
    """Kills runs in `out` at random moments, one after the other, and checks what each leaves.

    Returns:
      How many were killed; fewer than `kills` where a run came to its end.
    """
    rng = random.Random(seed)
    for number in range(kills):
      # By files and not by seconds, so that a busy machine is killed at the same moments.
      files = rng.randint(_num_files(out), self.num_files)
      if not self.kill(out, files=files, delay=rng.uniform(0, 0.3), workers=rng.choice((1, 2))):
        return number
      self.check_nothing_wrong_is_served(out)
    return kills

  def _ask(self, engine: SearchEngine) -> list:
    results = engine.search(self._folder / 'photos' / '2.jpg', top_k=NUM_PHOTOS).results
    return [(result.name, float(result.score)) for result in results]


def _num_files(out: pathlib.Path) -> int:
  """How many files there are, temporary ones too; what vanishes meanwhile does not matter."""
  return sum(len(files) for _, _, files in os.walk(out))
