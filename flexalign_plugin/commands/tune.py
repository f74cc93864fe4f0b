"""`flexalign tune`: measures on a GPU which FFT size is the fastest for frames of one size."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import SettingsError
from .values import SUCCESS, count, positive


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "tune",
        help="search for fast FFT sizes for a GPU",
        description="Measure which size of Fourier transforms is the fastest for frames of one size, and store it for "
        "all later runs on this GPU model. `align` does this automatically when a new frame size occurs.",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("--device", default="cuda:0", metavar="NAME", help="GPU to measure on, e.g. cuda:1 (default: cuda:0)")
    option("--size", nargs=2, type=count, metavar=("NX", "NY"), required=True, help="size of the frames in pixels")
    option("--frames", type=count, metavar="N", required=True, help="frames in a movie")
    option("--gpu-memory", type=positive, metavar="GB", help="maximum memory to use on the GPU (default: all)")
    parser.set_defaults(run=_tune)


def _tune(args: argparse.Namespace) -> int:
    from ..execution.devices import device_names, is_gpu

    names = device_names(args.device)
    if len(names) > 1 or not is_gpu(names[0]):
        raise SettingsError(f"--device {args.device}: sizes are measured on one GPU: give its name, e.g. cuda:0.")
    from ..kernels.cuda_installation import device_index
    from ..kernels.pycuda_device import PycudaDevice
    from ..kernels.tuning import default_file, tune

    limit = None if args.gpu_memory is None else int(args.gpu_memory * 1e9)
    device = PycudaDevice(device_index(names[0]), limit)
    try:
        print(tune(device, (args.frames, args.size[1], args.size[0])))
    finally:
        device.close()
    print(f"Stored in {default_file()}.")
    return SUCCESS
