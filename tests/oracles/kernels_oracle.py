"""The kernels in the plainest form: one feature, one word, one bit at a time.

Written after docs/reference.md 2, independently of the code under test. Slow, dense, float32.
"""

import numpy as np

EPSILON = np.float32(1e-12)
F0 = np.float32(0)


def assign(descriptors, centroids, num_assignments):
  words = np.zeros((len(descriptors), num_assignments), np.int32)
  for n, x in enumerate(descriptors):
    distances = [np.square(x - c).sum() for c in centroids]
    nearest = sorted(range(len(centroids)), key=lambda k: (distances[k], k))
    words[n] = nearest[:num_assignments]
  return words


def l2_normalize(array):
  squared = F0
  for value in array.ravel():
    squared = np.float32(squared + value * value)
  return array / np.sqrt(max(squared, EPSILON))


def vlad(descriptors, words, centroids):
  """Dense [K, D], not normalised; features are added in file order."""
  dense = np.zeros_like(centroids)
  for x, own_words in zip(descriptors, words, strict=True):
    for k in own_words:
      dense[k] = dense[k] + (x - centroids[k])
  return dense


def regional_vlad(descriptors, words, offsets, centroids):
  """Dense [K, D], divided by R and not normalised."""
  total = np.zeros_like(centroids)
  num_regions = len(offsets) - 1
  for r in range(num_regions):
    part = slice(offsets[r], offsets[r + 1])
    total = total + l2_normalize(vlad(descriptors[part], words[part], centroids))
  return total / np.float32(max(num_regions, 1))


def asmk(dense):
  """Words and unit residuals [W, D] of those with a norm above 1e-6."""
  words, values = [], []
  for k, residual in enumerate(dense):
    squared = F0
    for value in residual:
      squared = np.float32(squared + value * value)
    if np.sqrt(squared) > np.float32(1e-6):
      words.append(k)
      values.append(l2_normalize(residual))
  return words, np.array(values, np.float32).reshape(len(words), dense.shape[1])


def asmk_star(dense):
  """Words and bytes [W, ceil(D / 8)], bit by bit."""
  words, values = asmk(dense)
  codes = np.zeros((len(words), (dense.shape[1] + 7) // 8), np.uint8)
  for w, row in enumerate(values):
    for d, value in enumerate(row):
      if value > 0:
        codes[w, d // 8] += 128 >> (d % 8)
  return words, codes


def project(words, values, matrices, kinds):
  """Values float32 [W, D] of words under the matrix [D, B] of the kind of each, one product at a time."""
  projected = np.zeros((len(words), matrices.shape[2]), np.float32)
  for w, word in enumerate(words):
    for b in range(matrices.shape[2]):
      total = F0
      for d in range(matrices.shape[1]):
        total = np.float32(total + values[w, d] * matrices[kinds[word], d, b])
      projected[w, b] = total
  return projected


def projected_asmk_star(dense, matrices, kinds):
  """Words and bytes [W, B / 8] of the projected residuals [K, D], bit by bit."""
  words, _ = asmk(dense)
  values = project(words, dense[words], matrices, kinds)
  codes = np.zeros((len(words), (matrices.shape[2] + 7) // 8), np.uint8)
  for w, row in enumerate(values):
    for b, value in enumerate(row):
      if value > 0:
        codes[w, b // 8] += 128 >> (b % 8)
  return words, codes


def to_dense(descriptor, num_words):
  """The dense float32 [K * D] vector, word by word, of a sparse descriptor of floats."""
  dense = np.zeros((num_words, descriptor.dimensions), np.float32)
  dense[descriptor.visual_words] = descriptor.values
  return dense.ravel()


def unpack_signs(codes, dimensions):
  """The signs +1 and -1 behind packed bits: uint8 [W, ceil(D / 8)] -> float32 [W, D]."""
  return 2 * np.unpackbits(codes, axis=1, count=dimensions).astype(np.float32) - 1


def sigma(u, alpha, tau):
  if not u > tau:
    return 0.0
  return (1 if u > 0 else -1 if u < 0 else 0) * abs(u) ** alpha


def similarity(words_a, values_a, words_b, values_b, *, dimensions, alpha, tau, normalize, compat=False):
  """ASMK (float values) or ASMK* (bytes) by merging two ascending lists of words."""
  if len(words_a) == 0 or len(words_b) == 0:
    return -1.0 if compat else 0.0
  i = j = 0
  score = 0.0
  while i < len(words_a) and j < len(words_b):
    if words_a[i] < words_b[j]:
      i += 1
    elif words_a[i] > words_b[j]:
      j += 1
    else:
      a, b = values_a[i], values_b[j]
      if a.dtype == np.uint8:
        different = sum(bin(int(x) ^ int(y)).count('1') for x, y in zip(a, b, strict=True))
        bits = min(dimensions, 8) * len(a) if compat else dimensions
        u = 1 - 2 * different / bits
      else:
        u = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
      score += sigma(u, alpha, tau)
      i += 1
      j += 1
  return score / (len(words_a) * len(words_b)) ** 0.5 if normalize else score
