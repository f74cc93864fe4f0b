"""Images on a CUDA device: filtered and whitened sums of frames (mix.cu), and Fourier crops (crop.cu)."""

from __future__ import annotations

from typing import List, Optional, Sequence, Tuple

import numpy as np

from ..backend import LEAST_INTERPOLATION_POWER, Mix
from .block_sizes import THREADS
from .device import Device, DeviceArray


class Sums:
    """Sums of resampled frames (n_sums, ny, nx) float32, zero at first. Each begins at a multiple of 8 bytes, which
    transforms require.

    Attributes
    ----------
    memory : (n_sums, stride) array on the device. stride : pixels from one sum to the next.
    """

    def __init__(self, device: Device, shape: Tuple[int, int, int]):
        self.shape = shape
        n_sums, ny, nx = shape
        self.stride = ny * nx + ny * nx % 2
        self.memory = device.zeros((n_sums, self.stride), np.float32)
        self._device = device

    @property
    def values(self) -> np.ndarray:
        """The sums on the host."""
        n_sums, ny, nx = self.shape
        return self._device.download(self.memory)[:, : ny * nx].reshape(self.shape)

    def image(self, s: int) -> DeviceArray:
        """One sum, (1, ny, nx)."""
        return self._device.view(self.memory, s * self.stride, (1, *self.shape[1:]))


def mix_images(device: Device, sums: Sums, mixes: Sequence[Mix]) -> List[np.ndarray]:
    """Images (ny, nx) float32 of sums (n_sums, ny, nx); each sum is transformed once.

    Needs the memory of one image, of one spectrum per mix, and of one more spectrum if mixes share a sum or a mix has
    several sums.
    """
    _, ny, nx = sums.shape
    half = (1, ny, nx // 2 + 1)
    used = [np.flatnonzero(mix.factors.any(axis=0)) for mix in mixes]
    totals = [device.empty(half, np.complex64) for _ in mixes]
    tables = [_cosines(f) for f in (np.fft.fftfreq(ny), np.arange(half[2]) / nx)]
    tables += [mix.power.astype(np.float32) for mix in mixes]
    # Factors of one sum are contiguous.
    on_device = device.upload_together(*tables, *(np.ascontiguousarray(mix.factors.T, np.float32) for mix in mixes))
    along, powers, factors = on_device[:2], on_device[2 : 2 + len(mixes)], on_device[2 + len(mixes) :]
    work: Optional[DeviceArray] = None
    for s in np.unique(np.concatenate(used)):
        users = [k for k, sums_of_mix in enumerate(used) if s in sums_of_mix]
        if len(users) == 1 and s == used[users[0]][0]:
            spectrum = totals[users[0]]
        else:
            work = spectrum = device.empty(half, np.complex64) if work is None else work
        device.rfft2(sums.image(int(s)), spectrum)
        for k in users:
            of_sum = device.view(factors[k], int(s) * len(mixes[k].factors), (len(mixes[k].factors),))
            first, last = (np.int32(s == used[k][end]) for end in (0, -1))
            device.launch(
                "mix", "mix", (-(-half[2] // THREADS), ny), (THREADS,),
                spectrum, np.int32(half[2]), *along, of_sum, np.int32(of_sum.size),
                powers[k], np.int32(len(mixes[k].power)), first, last, np.float32(LEAST_INTERPOLATION_POWER),
                np.float32(1.0 / (ny * nx)), totals[k],
            )  # fmt: skip
    del work
    image = device.empty((1, ny, nx), np.float32)
    images = []
    for total, sums_of_mix in zip(totals, used):
        if not len(sums_of_mix):
            images.append(np.zeros((ny, nx), np.float32))
            continue
        device.irfft2(total, image)
        images.append(device.download(image)[0])
    return images


def crop_image(device: Device, image: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
    """`Backend.fourier_crop`."""
    (ny, nx), (oy, ox) = image.shape, size
    full = device.empty((1, ny, nx // 2 + 1), np.complex64)
    device.rfft2(device.upload(np.ascontiguousarray(image, np.float32)[None]), full)
    cropped = device.empty((1, oy, ox // 2 + 1), np.complex64)
    sizes = [np.int32(n) for n in (ny, nx, oy, ox)]
    blocks = (-(-(ox // 2 + 1) // THREADS), oy)
    device.launch("crop", "crop_image", blocks, (THREADS,), full, *sizes, np.float32(1.0 / (ny * nx)), cropped)
    out = device.empty((1, oy, ox), np.float32)
    device.irfft2(cropped, out)
    return device.download(out)[0]


def whole_spectrum(half: np.ndarray, nx: int) -> np.ndarray:
    """Power spectrum (ny, nx) of a real image from its half (ny, nx // 2 + 1)."""
    mirrored = np.roll(half[::-1, 1 : (nx + 1) // 2][:, ::-1], 1, axis=0)
    return np.concatenate([half, mirrored], axis=1)


def _cosines(frequency: np.ndarray) -> np.ndarray:
    """(n, 6) float32: a frequency in cycles per pixel and the cosines of one to five times its angle."""
    table = np.cos(2 * np.pi * np.outer(frequency, np.arange(6)))
    table[:, 0] = frequency
    return table.astype(np.float32)
