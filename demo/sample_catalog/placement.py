"""Where a garment lies in a photo."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from demo.sample_catalog.marks import Garment, Points, collect_points

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class Pose:
    """How a garment is laid down: turned clockwise by ``degrees``, perhaps mirrored.

    It fills ``share`` of the tighter side of the frame; ``position`` (0 to 1 across, 0 to 1 down) says how the
    room that is left is divided.
    """

    degrees: float
    is_mirrored: bool
    share: float
    position: tuple[float, float]


@dataclass(frozen=True)
class Placement:
    """From garment units to pixels: pixel = point @ matrix + offset."""

    matrix: Points
    offset: Points
    scale: float
    """Pixels per garment unit."""
    extent: float
    """The garment's longer side in garment units."""

    @classmethod
    def fit(cls, garment: Garment, frame: Size, pose: Pose) -> Self:
        points, room = collect_points(garment.marks), np.array(frame)
        cos, sin = np.cos(np.radians(pose.degrees)), np.sin(np.radians(pose.degrees))
        turn = np.array([[cos, sin], [-sin, cos]]) * ([[-1], [1]] if pose.is_mirrored else 1)
        turned = points @ turn
        span = np.ptp(turned, axis=0)
        scale = float((pose.share * room / span).min())
        offset = (room - span * scale) * pose.position - turned.min(axis=0) * scale
        return cls(turn * scale, offset, scale, float(np.ptp(points, axis=0).max()))

    def locate(self, points: Points) -> Points:
        return points @ self.matrix + self.offset
