"""The Revisited metrics, slowly, after their definition: one list, one position at a time."""


def ranks_without_junk(ranked_ids, positives, junk):
  """1-based ranks of the positives in the ranking from which junk is crossed out."""
  positives, junk = set(positives), set(junk)
  kept = [image for image in ranked_ids if image not in junk]
  return [rank for rank, image in enumerate(kept, start=1) if image in positives]


def average_precision(ranked_ids, positives, junk):
  """Walks down the ranking; at each positive, adds a trapezoid of width 1 / n to the area."""
  positives, junk = set(positives), set(junk)
  found, seen, area = 0, 0, 0.0
  for image in ranked_ids:
    if image in junk:
      continue
    if image in positives:
      precision_before = found / seen if seen else 1.0
      precision_after = (found + 1) / (seen + 1)
      area += (precision_before + precision_after) / 2 / len(positives)
      found += 1
    seen += 1
  return area


def precision_at(ranked_ids, positives, junk, k):
  """The ranking must hold all positives."""
  ranks = ranks_without_junk(ranked_ids, positives, junk)
  depth = min(max(ranks), k)
  return sum(rank <= depth for rank in ranks) / depth


def recall_at(ranked_ids, positives, junk, k):
  ranks = ranks_without_junk(ranked_ids, positives, junk)
  return sum(rank <= k for rank in ranks) / len(positives)


def positives_and_junk(easy, hard, junk, protocol):
  """The table of the protocol, written out."""
  if protocol == 'easy':
    return list(easy), list(junk) + list(hard)
  if protocol == 'medium':
    return list(easy) + list(hard), list(junk)
  if protocol == 'hard':
    return list(hard), list(junk) + list(easy)
  raise ValueError(protocol)
