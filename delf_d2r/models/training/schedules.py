"""Learning rates over the course of a training."""

import math

from delf_d2r.protos import training_pb2

Optimizer = training_pb2.OptimizerConfig


def learning_rate(config: Optimizer, step: int, num_steps: int) -> float:
  """Returns the learning rate of a step.

    warm-up:  r (t + 1) / w                          t < w
    LINEAR:   f + (r - f) (1 - u)                    u = (t - w) / (T - w)
    COSINE:   f + (r - f) (1 + cos(pi u)) / 2
    CONSTANT: r

  Args:
    config: r = learning_rate, f = final_learning_rate, w = warmup_steps.
    step: t, from 0.
    num_steps: T.
  """
  if step < config.warmup_steps:
    return config.learning_rate * (step + 1) / config.warmup_steps
  done = min((step - config.warmup_steps) / max(num_steps - config.warmup_steps, 1), 1.0)
  if config.schedule == Optimizer.CONSTANT:
    return config.learning_rate
  left = 1 - done if config.schedule == Optimizer.LINEAR else (1 + math.cos(math.pi * done)) / 2
  return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * left
