"""The answers of an inverted index in plain Python: every pair, every word, every bit."""

import math

import numpy as np

from delf_d2r.kernels.aggregation import Kernel


def _by_word(descriptor):
  return dict(zip(descriptor.visual_words.tolist(), descriptor.values, strict=True))


def _bits(row):
  return [(int(byte) >> shift) & 1 for byte in row for shift in range(7, -1, -1)]


def _selectivity(u, alpha, tau):
  return math.copysign(abs(u) ** alpha, u) if u > tau else 0.0


def idf(entries, num_words):
  """log(E / n)^2 for each word, 1 for words that occur nowhere."""
  found = [0] * num_words
  for entry in entries:
    for word in entry.visual_words.tolist():
      found[word] += 1
  return [math.log(len(entries) / n) ** 2 if n else 1.0 for n in found]


def score(query, entry, *, kernel, alpha=3.0, tau=0.0, normalize=True, weights=None, compat=False):
  """Similarity of one query and one entry; `weights` are the words' idf or None."""
  of_query, of_entry = _by_word(query), _by_word(entry)
  if kernel is not Kernel.VLAD and not (of_query and of_entry):
    return -1.0 if compat else 0.0
  weight = (lambda word: 1.0) if weights is None else weights.__getitem__
  total = 0.0
  for word in sorted(of_query.keys() & of_entry.keys()):
    a, b = of_query[word], of_entry[word]
    if kernel is Kernel.ASMK_STAR:
      distance = sum(x != y for x, y in zip(_bits(a), _bits(b), strict=True))
      bits = min(query.dimensions, 8) * len(a) if compat else query.dimensions
      u = float(np.float32(1 - 2 * distance / bits))
    else:
      u = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    total += weight(word) * (u if kernel is Kernel.VLAD else _selectivity(u, alpha, tau))
  if normalize and kernel is not Kernel.VLAD:
    norms = sum(map(weight, of_query)) * sum(map(weight, of_entry))
    total = total / math.sqrt(norms) if norms > 0 else 0.0
  return total


def rank(query, entries, entry_images, num_images, *, num_words, use_idf=False, **options):
  """Images best first, equal scores by id: lists of ids, scores and winning entries (None: no entry)."""
  weights = idf(entries, num_words) if use_idf else None
  best = [(0.0, None)] * num_images
  for e, (entry, image) in enumerate(zip(entries, entry_images, strict=True)):
    s = score(query, entry, weights=weights, **options)
    if best[image][1] is None or s > best[image][0]:
      best[image] = (s, e)
  order = sorted(range(num_images), key=lambda m: (-best[m][0], m))
  return order, [best[m][0] for m in order], [best[m][1] for m in order]


def region_scores(query, entry, *, weights=None, **options):
  """The similarity of a query and each of 8 regions of an entry with masks; None for a region without words.

  A region is an entry of its own: the words of the entry that have its bit, with the codes of the entry.
  """
  found = []
  for region in range(8):
    own = [w for w, mask in enumerate(entry.region_masks.tolist()) if mask & 1 << region]
    part = type(entry)(entry.visual_words[own], entry.values[own], entry.dimensions)
    found.append(score(query, part, weights=weights, **options) if own else None)
  return found


def rank_by_region(query, entries, *, num_words, use_idf=False, compat=False, **options):
  """Images best first, equal scores by id: lists of ids, scores and best regions."""
  weights = idf(entries, num_words) if use_idf else None
  best = []
  for entry in entries:
    each = region_scores(query, entry, weights=weights, compat=compat, **options)
    there = [region for region, own in enumerate(each) if own is not None]
    if compat and not (there and len(query)):
      best.append((-1.0, 0))
    elif there:
      winner = max(there, key=lambda region: (each[region], -region))
      best.append((each[winner], winner))
    else:
      best.append((0.0, 0))
  order = sorted(range(len(entries)), key=lambda m: (-best[m][0], m))
  return order, [best[m][0] for m in order], [best[m][1] for m in order]
