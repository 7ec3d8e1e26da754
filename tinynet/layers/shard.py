"""Which part of a batch a layer sees."""

from collections.abc import Sequence

from tinynet.support.types import Array


class Shard:
    """The whole batch. `tinynet.training.team` has the subclass for one worker's part of it.

    A layer that computes something over the batch, as `BatchNorm` does, sums with ``self.shard.sum`` and counts with
    ``self.shard.total``, and lets only the first shard write anything but gradients.
    """

    is_first = True

    def total(self, count: int) -> int:
        """The number of rows in the whole batch, if this part has ``count``."""
        return count

    def sum(self, array: Array) -> Array:
        """The sum of all parts' arrays."""
        return array

    def sums(self, *arrays: Array) -> Sequence[Array]:
        """The sums over all parts, for each of several arrays of one shape."""
        return arrays


WHOLE_BATCH = Shard()
