"""Draw skirts, pants and shorts with random proportions."""

from itertools import pairwise
from random import Random

import numpy as np

from demo.sample_catalog.marks import Disc, Garment, Mark, Paint, Panel, Pen, Stroke, on_both_sides, trace_line

_CROTCH_Y = 0.68


def draw_skirt(rng: Random) -> Garment:
    cut = rng.choice(("pleated", "flared", "narrow"))
    is_long = rng.random() < 0.4
    length = rng.uniform(1.5, 1.8) if is_long else rng.uniform(0.95, 1.15)
    waist = rng.uniform(0.34, 0.42)
    if cut == "pleated":
        marks = _draw_pleats(waist, waist * rng.uniform(1.9, 2.3), length, rng.randint(4, 6))
    elif cut == "flared":
        marks = _draw_flared_skirt(waist, waist * rng.uniform(2.1, 2.6), length)
    else:
        marks = _draw_narrow_skirt(waist, waist * rng.uniform(1.02, 1.16), length * 1.2)
    return Garment((*marks, *_draw_waistband(waist)), "long" if is_long else "short", f"with a {cut} cut")


def _draw_waistband(half: float) -> list[Mark]:
    band = trace_line((-half, 0), (half, 0), (half + 0.01, 0.12), (-half - 0.01, 0.12))
    return [Panel(band, Paint.SHADED), Disc(np.array([0.0, 0.06]), 0.03)]


def _draw_pleats(waist: float, hem: float, length: float, pleats: int) -> list[Mark]:
    """Draw narrow adjacent panels, each with its own pointed hem."""
    marks: list[Mark] = []
    edges = np.linspace(-1, 1, 2 * pleats + 1)
    for left, right in pairwise(edges):
        drop = [length + 0.1 * (1 - edge**2) for edge in (left, right)]
        pen = Pen(waist * left, 0.1).line(waist * right, 0.1)
        pen.curve(waist * right * 1.35, length * 0.35, hem * right, drop[1] + 0.05).line(hem * left, drop[0] - 0.02)
        marks.append(Panel(pen.curve(waist * left * 1.35, length * 0.35, waist * left, 0.1).path(), grain=-12 * left))
    return marks


def _draw_flared_skirt(waist: float, hem: float, length: float) -> list[Mark]:
    pen = Pen(0, 0.1).line(waist, 0.1).curve(waist * 1.4, length * 0.25, hem, length)
    marks: list[Mark] = [Panel(pen.curve(hem * 0.5, length + 0.12, 0, length + 0.12).closed_by_mirror())]
    for share in (-0.7, -0.25, 0.25, 0.7):
        pen = Pen(waist * share, length * 0.3).curve(waist * share * 1.4, length * 0.6, hem * share, length + 0.05)
        marks.append(Stroke(pen.path()))
    return marks


def _draw_narrow_skirt(waist: float, hem: float, length: float) -> list[Mark]:
    """Draw a skirt that follows the hips, with darts at the waist and a slit at the hem."""
    pen = Pen(0, 0.1).line(waist, 0.1).curve(waist * 1.26, length * 0.25, waist * 1.24, length * 0.45)
    pen.curve(waist * 1.22, length * 0.8, hem, length).line(0, length + 0.03)
    dart = trace_line((waist * 0.5, 0.12), (waist * 0.54, 0.34))
    return [
        Panel(pen.closed_by_mirror()),
        *on_both_sides(Stroke(dart)),
        Stroke(trace_line((-hem, length - 0.07), (0.0, length - 0.03), (hem, length - 0.07)), 0.01),
        Stroke(trace_line((hem * 0.5, length - 0.3), (hem * 0.52, length + 0.01)), 0.02),
    ]


def draw_pants(rng: Random) -> Garment:
    cut = rng.choice(("slim", "straight", "wide"))
    cuff = {"slim": rng.uniform(0.17, 0.2), "straight": rng.uniform(0.24, 0.28), "wide": rng.uniform(0.36, 0.46)}[cut]
    spread = rng.uniform(0.04, 0.12)
    return Garment(_draw_trousers(rng.uniform(0.4, 0.46), rng.uniform(2.1, 2.4), cuff, spread), cut)


def draw_shorts(rng: Random) -> Garment:
    is_long = rng.random() < 0.4
    inseam = rng.uniform(0.42, 0.55) if is_long else rng.uniform(0.18, 0.3)
    spread = rng.uniform(0.06, 0.16)
    marks = _draw_trousers(rng.uniform(0.42, 0.5), _CROTCH_Y + inseam, rng.uniform(0.38, 0.46), spread)
    return Garment(marks, "long" if is_long else "short", "with two pockets")


def _draw_trousers(waist: float, length: float, cuff: float, spread: float) -> tuple[Mark, ...]:
    """Draw two legs. ``cuff`` is the width of a leg at its end, ``spread`` half the gap between the ends."""
    hip = waist * 1.2
    pen = Pen(0, 0.08).line(waist, 0.08).curve(hip, 0.35, hip, 0.55)
    pen.curve(hip, length * 0.55, spread + cuff, length).line(spread, length + 0.02)
    leg = pen.curve(0.03, length * 0.55, 0, _CROTCH_Y).path()
    hem = trace_line((spread, length - 0.07), (spread + cuff, length - 0.09))
    middle = spread + cuff / 2
    creases = on_both_sides(Stroke(trace_line((waist * 0.6, _CROTCH_Y), (middle, length - 0.08)), 0.01))
    pocket = Pen(waist * 0.55, 0.18).curve(waist * 0.62, 0.42, hip, 0.44).path()
    fly = Pen(0.1, 0.18).curve(0.11, 0.48, 0, 0.56).path()
    return (
        *on_both_sides(Panel(leg), Stroke(hem), Stroke(pocket, 0.018)),
        *(creases if length > 2 * _CROTCH_Y else ()),
        Stroke(trace_line((0, 0.1), (0, _CROTCH_Y)), 0.018),
        Stroke(fly),
        *_draw_trouser_band(waist),
    )


def _draw_trouser_band(waist: float) -> list[Mark]:
    band = trace_line((-waist, 0), (waist, 0), (waist + 0.02, 0.16), (-waist - 0.02, 0.16))
    loops = [Stroke(trace_line((x, -0.01), (x, 0.18)), 0.04, Paint.PLAIN) for x in np.array([-0.62, 0.62]) * waist]
    return [Panel(band, Paint.SHADED), *loops, Disc(np.array([0.0, 0.08]), 0.035, Paint.METAL)]
