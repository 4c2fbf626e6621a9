"""Draw caps, hats and bags with random proportions."""

from random import Random

import numpy as np

from demo.sample_catalog.marks import (
    Disc,
    Garment,
    Mark,
    Paint,
    Panel,
    Pen,
    Stroke,
    on_both_sides,
    trace_ellipse,
    trace_line,
)


def draw_cap(rng: Random) -> Garment:
    """Draw a baseball cap seen from the side, with its peak to the right."""
    height, reach, droop = rng.uniform(0.78, 0.95), rng.uniform(1.3, 1.55), rng.uniform(0.06, 0.22)
    crown = Pen(-0.8, 0.1).curve(-0.86, -height, -0.02, -height).curve(0.66, -height, 0.74, -0.02)
    crown.curve(0.0, 0.2, -0.8, 0.1)
    peak = Pen(0.1, 0.03).curve(0.6, -0.28, 0.8, -0.12).curve(reach, -0.12, reach, droop + 0.1)
    peak.curve(0.95, droop, 0.1, 0.14)
    seams = (
        Pen(-0.02, -height).curve(-0.5, -height * 0.75, -0.52, 0.12),
        Pen(-0.02, -height).curve(0.32, -height * 0.8, 0.34, -0.06),
        Pen(-0.78, 0.0).curve(0.0, 0.1, 0.3, -0.05),
    )
    stitch = Pen(0.4, -0.0).curve(0.75, -0.1, 0.95, -0.02).curve(reach - 0.12, 0.0, reach - 0.09, droop + 0.06)
    marks: tuple[Mark, ...] = (
        Panel(crown.path()),
        *(Stroke(seam.path(), 0.016) for seam in seams),
        Disc(np.array([-0.18, -height * 0.62]), 0.03, Paint.SEAM),
        Panel(peak.path(), Paint.SHADED),
        Stroke(stitch.path(), 0.014),
        Panel(trace_ellipse(-0.02, -height - 0.015, 0.09, 0.04), Paint.SHADED),
    )
    return Garment(marks, detail="with a curved peak" if droop > 0.14 else "with a flat peak")


def draw_hat(rng: Random) -> Garment:
    kind = rng.choice(("fedora", "sun hat", "bucket hat"))
    if kind == "bucket hat":
        return Garment(_draw_bucket_hat(rng.uniform(0.62, 0.75), rng.uniform(0.95, 1.1)), detail="with a sloping brim")
    brim = rng.uniform(1.0, 1.15) if kind == "fedora" else rng.uniform(1.3, 1.5)
    height = rng.uniform(0.68, 0.85) if kind == "fedora" else rng.uniform(0.5, 0.62)
    words = ("", "with a pinched crown") if kind == "fedora" else ("wide", "with a broad brim")
    return Garment(_draw_brimmed_hat(brim, height, kind == "fedora"), *words)


def _draw_brimmed_hat(brim: float, height: float, is_pinched: bool) -> tuple[Mark, ...]:
    base = 0.6
    crown = Pen(0, -height + (0.1 if is_pinched else 0))
    if is_pinched:
        crown.curve(0.2, -height - 0.1, 0.36, -height).curve(0.52, -height * 0.92, base, 0)
    else:
        crown.curve(base * 0.95, -height, base, 0)
    outline = crown.curve(base * 0.5, 0.14, 0, 0.14).closed_by_mirror()
    band = (
        Pen(0, -0.04)
        .curve(base * 0.6, -0.05, base * 0.95, -0.17)
        .line(base + 0.005, 0.02)
        .curve(base * 0.5, 0.15, 0, 0.15)
    )
    top = Pen(0, 0).curve(brim * 0.8, -0.14, brim, 0.0 if is_pinched else 0.12).curve(brim * 0.75, 0.34, 0, 0.34)
    dent = Pen(0, -height + 0.12).curve(0.05, -height * 0.7, 0.02, -height * 0.55).path()
    return (
        Panel(top.closed_by_mirror()),
        Panel(outline),
        *([Stroke(dent, 0.02)] if is_pinched else []),
        Panel(band.closed_by_mirror(), Paint.SOLE),
    )


def _draw_bucket_hat(height: float, brim: float) -> tuple[Mark, ...]:
    crown = Pen(0, -height - 0.03).curve(0.42, -height - 0.03, 0.48, -height + 0.06).line(0.62, 0.02)
    skirt = Pen(0, 0.0).curve(0.5, 0.0, 0.62, -0.04).line(brim, 0.36).curve(brim * 0.6, 0.56, 0, 0.56)
    rows = []
    for share in (0.3, 0.55, 0.8):
        half, y = 0.62 + share * (brim - 0.66), share * 0.38
        rows.append(Stroke(Pen(-half, y).curve(0, 0.06 + share * 0.66, half, y).path()))
    eyelets = [Disc(np.array([x, -height * 0.35]), 0.028, Paint.METAL) for x in (0.34, 0.44)]
    return (
        Panel(crown.curve(0.4, 0.08, 0, 0.08).closed_by_mirror()),
        *eyelets,
        Panel(skirt.closed_by_mirror()),
        *rows,
    )


def draw_bag(rng: Random) -> Garment:
    kind = rng.choice(("tote", "flap", "handbag"))
    half, height = rng.uniform(0.62, 0.8), rng.uniform(0.95, 1.2)
    if kind == "tote":
        return Garment(_draw_tote(half, height * 1.15, rng.uniform(0.5, 0.75)), "large", "with two handles")
    if kind == "flap":
        return Garment(_draw_flap_bag(half, height * 0.85, rng.uniform(0.9, 1.2)), "small", "with a shoulder strap")
    return Garment(_draw_handbag(half, height * 0.85, rng.uniform(0.4, 0.55)), detail="with a top handle")


def _draw_tote(half: float, height: float, drop: float) -> tuple[Mark, ...]:
    body = Pen(0, 0).line(half, 0).line(half * 0.94, height - 0.06).curve(half * 0.93, height, half * 0.82, height)
    x = half * 0.45
    front = Pen(-x, 0.16).line(-x, -drop * 0.3).curve(-x, -drop, 0, -drop).curve(x, -drop, x, -drop * 0.3).line(x, 0.16)
    back = front.path() * (0.9, 1.0) + (0.05, -0.07)
    return (
        Stroke(back, 0.07, Paint.SHADED),
        Panel(body.line(0, height).closed_by_mirror()),
        Stroke(trace_line((-half, 0.09), (half, 0.09))),
        Stroke(front.path(), 0.08, Paint.PLAIN),
        *(Stroke(trace_line((s * x - 0.04, 0.16), (s * x + 0.04, 0.16)), 0.02) for s in (-1, 1)),
    )


def _draw_flap_bag(half: float, height: float, strap: float) -> tuple[Mark, ...]:
    body = Pen(0, 0).line(half, 0).line(half * 1.03, height - 0.12).curve(half * 1.02, height, half * 0.88, height)
    flap = Pen(0, -0.03).line(half * 0.98, -0.03).curve(half * 1.04, 0, half * 1.02, height * 0.4)
    flap.curve(half * 0.8, height * 0.62, 0, height * 0.64)
    sling = Pen(-half * 0.92, 0.05).curve(-half * 0.75, -strap, 0, -strap).curve(half * 0.75, -strap, half * 0.92, 0.05)
    return (
        Stroke(sling.path(), 0.05, Paint.SHADED),
        Panel(body.line(0, height).closed_by_mirror()),
        Panel(flap.closed_by_mirror()),
        Panel(
            trace_line((-0.1, height * 0.52), (0.1, height * 0.52), (0.1, height * 0.72), (-0.1, height * 0.72)),
            Paint.METAL,
        ),
        *(Disc(np.array([s * half * 0.92, 0.04]), 0.055, Paint.METAL) for s in (-1, 1)),
    )


def _draw_handbag(half: float, height: float, drop: float) -> tuple[Mark, ...]:
    body = Pen(0, 0).line(half * 0.72, 0).curve(half * 0.85, height * 0.3, half * 1.1, height * 0.85)
    body.curve(half * 1.12, height, half * 0.95, height)
    x = half * 0.42
    handle = Pen(-x, 0.1).curve(-x, -drop, 0, -drop).curve(x, -drop, x, 0.1)
    fold = Pen(half * 0.55, 0.16).curve(half * 0.6, height * 0.5, half * 0.8, height * 0.9)
    band = trace_line((-half * 0.72, -0.04), (half * 0.72, -0.04), (half * 0.77, 0.16), (-half * 0.77, 0.16))
    return (
        Stroke(handle.path(), 0.085, Paint.SHADED),
        Panel(body.line(0, height).closed_by_mirror()),
        *on_both_sides(Stroke(fold.path(), 0.015)),
        Panel(band, Paint.PLAIN),
        *on_both_sides(Disc(np.array([x, 0.08]), 0.05, Paint.METAL)),
        Disc(np.array([0.0, 0.06]), 0.07, Paint.METAL),
    )
