"""Which image comes when, and by which random numbers it is augmented: for each batch what grain's transformations give it.

    MapDataset.range(n).seed(seed).shuffle().random_map(augment)[process:whole:processes].batch(b // processes).repeat()

does the same image by image, and holds Python's lock meanwhile: 40 us each for 1,000 images, 1.5 ms for 20, in which no other
thread can begin to decode. Here a pass of up to 65,536 images takes 3 ms. Runs keep their order, whatever grain does later.
"""

import functools
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_WORD = 8  # bits, at least, of half a number
_FEW = 1 << 2 * _WORD
_LOCK = threading.Lock()  # else all threads would compute the order of a new pass
_PART = 1 << 18


class Order(NamedTuple):
    """The order of training, without an end: each pass over the images is shuffled anew, and drops an incomplete last batch."""

    n: int  # images
    seed: int
    batch_size: int  # over all processes, at most n; a multiple of their number
    process: int = 0  # the index of this process among `processes`
    processes: int = 1

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the images of this process in a step's batch, and for each the number of its random generator, int64[b]."""
        passed, batch = divmod(step, self.n // self.batch_size)
        places = np.arange(batch * self.batch_size + self.process, (batch + 1) * self.batch_size, self.processes)
        with _LOCK:
            order = shuffled(self.n, seed=(_grain_seed(self.seed, 1) + passed) % 2**32)
        return order[places], passed * self.n + places

    def generators(self, numbers: np.ndarray) -> Iterator[np.random.Generator]:
        """Yield the generators of some numbers, int64[b]; each only until the next."""
        return _generators(_grain_seed(self.seed, 2), numbers)


class InOrder(NamedTuple):
    """Images one after the other, each once, from `start` on."""

    n: int  # images
    seed: int  # of the generators
    batch_size: int
    start: int = 0

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the images of a batch, of which the last may be shorter, and the numbers of their generators, int64[b]."""
        begin = self.start + step * self.batch_size
        places = np.arange(begin, min(self.n, begin + self.batch_size))
        return places, places

    def generators(self, numbers: np.ndarray) -> Iterator[np.random.Generator]:
        """Yield the generators of some numbers, int64[b]; each only until the next."""
        return _generators(_grain_seed(self.seed, 1), numbers)


def _generators(seed: int, numbers: np.ndarray) -> Iterator[np.random.Generator]:
    bits = np.random.Philox(seed)
    random, state = np.random.Generator(bits), bits.state
    counters = np.zeros((len(numbers), 4), np.uint64)
    counters[:, 3] = numbers
    for counter in counters:
        state["state"]["counter"] = counter
        bits.state = state
        yield random


def _grain_seed(seed: int, depth: int) -> int:
    """Return the seed that grain derives for a transformation that many places after `MapDataset.seed`."""
    return int(np.random.SeedSequence([seed, depth]).generate_state(1)[0])


@functools.lru_cache(maxsize=2)  # while the end of a pass is read, the next one is begun
def shuffled(n: int, *, seed: int) -> np.ndarray:
    """Return `grain.experimental.index_shuffle(i, max_index=n - 1, seed=seed, rounds=4)` for each i below n.

    Args:
      n: the number of images, 1 to 2**32.
      seed: 0 to 2**32 - 1.

    Returns:
      int64[n], read-only: 0 to n - 1, each once. For n = 2**k + 1, k = 16, 18, ..., grain counts a bit too few: an image comes
      twice, and the last one never. There the order isn't grain's.

    Source: a cipher permutes a power of two, and is repeated until a number is below n (Black and Rogaway, CT-RSA 2002); its
    rounds are Simon's (Beaulieu et al., ePrint 2013/404), their keys those of C++'s `std::seed_seq`.
    """
    word = max(_WORD, ((n - 1).bit_length() + 1) // 2)
    keys = [key & (1 << word) - 1 for key in _seed_seq(seed, 4)]
    numbers = np.arange(n, dtype=np.int64)
    if n > _FEW:
        for begin in range(0, n, _PART):  # since a cipher takes ten times the memory of its numbers
            part = numbers[begin : begin + _PART]
            outside = np.arange(len(part))
            while len(outside):
                part[outside] = _encrypted(part[outside], keys, word=word)
                outside = outside[part[outside] >= n]
    else:
        found = _encrypted(np.arange(_FEW), keys, word=word)
        further = found.copy()  # of each number, what some repetitions lead to, or the first number below n
        further[:n] = numbers
        numbers = found[:n]
        while (numbers >= n).any():
            numbers, further = further[numbers], further[further]
    numbers.flags.writeable = False
    return numbers


def _encrypted(numbers: np.ndarray, keys: list[int], *, word: int) -> np.ndarray:
    """Encrypt numbers of two words, int64[...]."""
    mask = (1 << word) - 1
    left, right = numbers >> word, numbers & mask

    def mixed(x: np.ndarray) -> np.ndarray:
        once, twice, eight = ((x << bits | x >> word - bits) & mask for bits in (1, 2, 8))
        return once & eight ^ twice

    for first, second in zip(keys[::2], keys[1::2], strict=True):
        left = left ^ mixed(right) ^ first
        right = right ^ mixed(left) ^ second
    return left << word | right


def _seed_seq(seed: int, count: int) -> list[int]:
    """Return what C++'s `std::seed_seq` of one number generates, for 2 to 6 numbers."""
    words, mask, half = [0x8B8B8B8B] * count, 0xFFFFFFFF, (count - 1) // 2
    near = (count - half) // 2
    far = near + half
    for k in range(2 * count):
        here, before = k % count, (k - 1) % count
        three = words[here], words[(k + near) % count], words[before]
        if k < count:
            mixed = three[0] ^ three[1] ^ three[2]
            one = 1664525 * (mixed ^ mixed >> 27) & mask
            two = one + (1 if k == 0 else here + (seed if k == 1 else 0)) & mask
            words[(k + near) % count] = words[(k + near) % count] + one & mask
            words[(k + far) % count] = words[(k + far) % count] + two & mask
        else:
            mixed = sum(three) & mask
            one = 1566083941 * (mixed ^ mixed >> 27) & mask
            two = one - here & mask
            words[(k + near) % count] ^= one
            words[(k + far) % count] ^= two
        words[here] = two
    return words
