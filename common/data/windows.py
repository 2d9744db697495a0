"""Windows of images, each at an offset of its own, copied in one call on any device."""

from torch import Tensor


def windows_at(padded: Tensor, starts_n: Tensor, height: int, width: int) -> Tensor:
    """Parts of images. Rows are copied whole, out of windows that overlap in memory: an index for each pixel is slower.

    Args:
        padded: (m, C, TALL, WIDE), contiguous.
        starts_n: (n,) int64, on the same device: the flat index in `padded` of each window's upper left pixel in the
            first channel of some image, where `height` rows and `width` columns fit.

    Returns:
        (n, C, height, width).
    """
    channels, tall, wide = padded.shape[1:]
    span = (channels - 1) * tall * wide + (height - 1) * wide + width  # of one window, first to last pixel
    steps = (1, tall * wide, wide, 1)
    return padded.as_strided((padded.numel() - span + 1, channels, height, width), steps).index_select(0, starts_n)
