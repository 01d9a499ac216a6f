"""Random numbers that a resumed training draws as one that was never interrupted.

Every epoch begins from a seed of its own, made of the run's seed, the epoch and the process; so a checkpoint at its end
needs none. A checkpoint in its midst holds the states of all generators.
"""

import random
from typing import Any

import numpy as np
import torch


def seed_all(*key: int) -> None:
    """Seed python, numpy and torch, each from its own stream."""
    streams = np.random.SeedSequence(key).generate_state(3)
    random.seed(int(streams[0]))
    np.random.seed(int(streams[1]))
    torch.manual_seed(int(streams[2]))  # of all devices


def fresh_seed() -> int:
    """A seed from the operating system."""
    return int(np.random.SeedSequence().generate_state(1)[0])


def random_states() -> dict[str, Any]:
    """The states of all generators, as plain values and tensors."""
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys, np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Go on from where `random_states` was called."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
