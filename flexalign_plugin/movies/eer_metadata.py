"""What an EER file itself says about its pixel size and dose: the XML of its first page's tag 65001.

The XML is a list of `<item name="totalDose" unit="e/pixel">41.2</item>`. Pixels are those of the sensor (4K). Early
cameras wrote no pixel size.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from typing import Dict, Optional, Tuple

import tifffile

from ..errors import MovieError

METADATA_TAG = 65001
MOST = 1e6  # larger numbers of frames, seconds or electrons in a pixel make no sense
A_PER_UNIT = {"m": 1e10, "nm": 10.0, "A": 1.0, "pm": 0.01}


@dataclass(frozen=True)
class EerMetadata:
    """Values of an EER file's own metadata; None where the file has none or one that makes no sense.

    Attributes
    ----------
    pixel_size_A : of the sensor's pixels on the specimen; that of the 4K grid, whatever the rendering.
    dose_per_pixel : electrons that the camera counted in a sensor pixel during the whole exposure.
    exposure_s : exposure time. n_hardware_frames : hardware frames of the whole exposure. camera : its name, or "".
    """

    pixel_size_A: Optional[float] = None
    dose_per_pixel: Optional[float] = None
    exposure_s: Optional[float] = None
    n_hardware_frames: Optional[int] = None
    camera: str = ""

    def total_dose(self, pixel_size_A: Optional[float] = None) -> Optional[float]:
        """Dose of the whole exposure in e/A^2, or None if it is not known.

        pixel_size_A : of a sensor pixel, used if the file has none.
        """
        pixel = self.pixel_size_A or pixel_size_A
        return None if self.dose_per_pixel is None or not pixel else self.dose_per_pixel / pixel**2


def read_eer_metadata(path: str) -> EerMetadata:
    """The metadata of an EER file; all values are None if it has none, or is no EER file.

    Raises
    ------
    MovieError : the file can't be read.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            return metadata_of_page(tiff.pages[0])
    except OSError as error:
        raise MovieError(f"{path}: can't be read ({error.strerror}): check the disk or the network mount.") from error
    except (tifffile.TiffFileError, ValueError, IndexError, KeyError, TypeError, AttributeError):
        return EerMetadata()


def metadata_of_page(page: object) -> EerMetadata:
    """The metadata in the tags of a file's first page, as tifffile reads it."""
    tag = page.tags.get(METADATA_TAG)  # type: ignore[attr-defined]
    value = b"" if tag is None else tag.value
    return parse_metadata(value if isinstance(value, bytes) else str(value).encode())


def parse_metadata(text: bytes) -> EerMetadata:
    """Values from the XML; a file of another kind or with damaged XML has none."""
    try:
        root = ElementTree.fromstring(text.strip(b"\0 \r\n\t"))
    except ElementTree.ParseError:
        return EerMetadata()
    items = {i.get("name", ""): ((i.text or "").strip(), i.get("unit") or "") for i in root.iter("item")}
    width, unit = items.get("sensorPixelSize.width", ("", ""))
    pixel_A = _positive(width, math.inf) or 0.0
    pixel_A *= A_PER_UNIT.get(unit or "m", 0.0)
    dose, rate, exposure = (_number(items, name) for name in ("totalDose", "meanDoseRate", "exposureTime"))
    if dose is None and rate is not None and exposure is not None:
        dose = rate * exposure
    frames = _number(items, "numberOfFrames")
    return EerMetadata(
        pixel_size_A=pixel_A if 0.01 <= pixel_A <= 1000 else None,
        dose_per_pixel=dose,
        exposure_s=exposure,
        n_hardware_frames=None if frames is None else int(frames),
        camera=items.get("commercialName", ("", ""))[0] or items.get("cameraName", ("", ""))[0],
    )


def _number(items: Dict[str, Tuple[str, str]], name: str) -> Optional[float]:
    return _positive(items.get(name, ("", ""))[0], MOST)


def _positive(text: str, most: float) -> Optional[float]:
    """The number, or None if it is none, or not finite, above 0 and at most `most`."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value <= most and value < math.inf else None
