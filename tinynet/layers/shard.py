"""Which part of a batch a layer sees."""

from collections.abc import Sequence

from tinynet.support.types import Array


class Shard:
    """All of the batch: nobody else has a part of it. `tinynet.engines.cpu` has the kind that shares one.

    A layer that computes something over the batch, as `BatchNorm` does, sums by ``self.shard.sum`` and counts by
    ``self.shard.total``, and lets only the first shard write what is not a gradient.
    """

    is_first = True

    def total(self, count: int) -> int:
        """How many rows the whole batch has, if this part has ``count``."""
        return count

    def sum(self, array: Array) -> Array:
        """The sum of every part's array."""
        return array

    def sums(self, *arrays: Array) -> Sequence[Array]:
        """The sum of every part's for each of several arrays of one shape."""
        return arrays


WHOLE_BATCH = Shard()
