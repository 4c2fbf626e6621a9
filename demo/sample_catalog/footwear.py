"""Draw sneakers, boots and socks with random proportions.

Shoes are seen from the side, with their toes to the right and their soles on y = 0.
"""

from random import Random

import numpy as np

from demo.sample_catalog.marks import Disc, Garment, Mark, Paint, Panel, Pen, Points, Stroke, trace_line


def draw_sneaker(rng: Random) -> Garment:
    is_high = rng.random() < 0.4
    collar = rng.uniform(1.12, 1.3) if is_high else rng.uniform(0.7, 0.82)
    sole = rng.uniform(0.15, 0.22)
    lace_top, lace_end = np.array([-0.12, -collar + 0.06]), np.array([0.46, -sole - 0.3])
    marks = (
        _draw_tongue(collar),
        _draw_sneaker_upper(collar, sole),
        _draw_heel_patch(collar, sole),
        _draw_side_seam(collar, sole),
        _draw_toe_cap(sole),
        *_draw_laces(lace_top, lace_end, 6 if is_high else 4),
        *_draw_rubber_sole(sole),
    )
    return Garment(marks, "high-top" if is_high else "low-top", "with white laces")


def _draw_tongue(collar: float) -> Panel:
    pen = Pen(-0.3, -collar + 0.2).line(-0.24, -collar - 0.12).curve(-0.1, -collar - 0.2, 0.0, -collar - 0.06)
    return Panel(pen.line(0.2, -collar * 0.5).path(), Paint.SHADED)


def _draw_sneaker_upper(collar: float, sole: float) -> Panel:
    pen = (
        Pen(-0.94, -sole + 0.04).curve(-1.0, -collar * 0.55, -0.93, -collar).curve(-0.86, -collar - 0.06, -0.8, -collar)
    )
    pen.curve(-0.55, -collar + 0.16, -0.2, -collar - 0.02).curve(0.05, -collar * 0.72, 0.46, -sole - 0.36)
    pen.curve(0.62, -sole - 0.3, 0.78, -sole - 0.27).curve(1.06, -sole - 0.2, 1.02, -sole + 0.04)
    return Panel(pen.path())


def _draw_heel_patch(collar: float, sole: float) -> Panel:
    pen = Pen(-0.94, -sole + 0.04).curve(-0.99, -collar * 0.5, -0.95, -collar * 0.82).line(-0.8, -collar * 0.78)
    return Panel(pen.curve(-0.74, -sole - 0.2, -0.56, -sole + 0.04).path(), Paint.SHADED)


def _draw_side_seam(collar: float, sole: float) -> Stroke:
    pen = Pen(-0.3, -sole).curve(-0.24, -sole - 0.24, 0.0, -collar * 0.62)
    return Stroke(pen.path(), 0.018)


def _draw_toe_cap(sole: float) -> Panel:
    pen = (
        Pen(0.6, -sole + 0.04).curve(0.6, -sole - 0.18, 0.7, -sole - 0.27).curve(1.07, -sole - 0.24, 1.02, -sole + 0.04)
    )
    return Panel(pen.path(), Paint.RUBBER)


def _draw_laces(top: Points, end: Points, rows: int) -> list[Mark]:
    """Draw short bars across the instep, each ending in an eyelet."""
    along = (end - top) / np.linalg.norm(end - top)
    across = np.array([-along[1], along[0]])
    marks: list[Mark] = []
    for share in np.linspace(0.04, 0.92, rows):
        middle = top + (end - top) * share
        ends = np.array([middle - across * 0.04, middle + across * 0.16])
        marks += [Stroke(ends, 0.055, Paint.TRIM), Disc(ends[1] + across * 0.02, 0.028, Paint.METAL)]
    return marks


def _draw_rubber_sole(sole: float) -> list[Mark]:
    pen = Pen(-0.98, -sole).curve(-1.04, 0, -0.92, 0).line(0.8, 0).curve(1.1, -0.02, 1.07, -sole * 0.95)
    return [
        Panel(pen.curve(0.9, -sole * 1.08, -0.98, -sole).path(), Paint.RUBBER),
        Stroke(trace_line((-0.97, -sole * 0.45), (1.04, -sole * 0.45)), 0.02, Paint.PLAIN),
    ]


def draw_boot(rng: Random) -> Garment:
    kind = rng.choice(("ankle", "tall", "lace-up"))
    top = {"ankle": rng.uniform(1.05, 1.2), "tall": rng.uniform(1.9, 2.3), "lace-up": rng.uniform(1.35, 1.55)}[kind]
    heel = rng.uniform(0.18, 0.24) if kind == "lace-up" else rng.uniform(0.2, 0.4)
    marks: list[Mark] = [_draw_boot_upper(top, heel), *_draw_boot_sole(heel)]
    if kind == "ankle":
        marks += _draw_elastic(top, heel)
    elif kind == "lace-up":
        marks += _draw_laces(np.array([0.03, -top + 0.1]), np.array([0.3, -heel - 0.5]), 6)
        marks.append(Stroke(Pen(0.52, -heel).curve(0.5, -heel - 0.25, 0.62, -heel - 0.36).path(), 0.02))
    else:
        marks += _draw_strap(top)
    marks += [Stroke(trace_line((-0.6, -top + 0.1), (0.08, -top + 0.09)), 0.015)]
    words = {"ankle": ("ankle", "with an elastic side"), "tall": ("tall", "with a strap"), "lace-up": ("lace-up", "")}
    return Garment(tuple(marks), *words[kind])


def _draw_boot_upper(top: float, heel: float) -> Panel:
    """Trace the back of the shaft down to the heel, the foot to the toes, and the front upward."""
    ground = -heel + 0.1
    pen = Pen(-0.62, -top).curve(-0.56, -top * 0.6, -0.55, -heel - 0.42).curve(-0.68, -heel - 0.2, -0.62, -heel)
    pen.line(-0.1, -heel + 0.02).line(0.25, ground - 0.06).line(0.98, ground - 0.06)
    pen.curve(1.06, ground - 0.36, 0.72, ground - 0.42).curve(0.3, -heel - 0.42, 0.16, -heel - 0.72)
    return Panel(pen.curve(0.04, -top * 0.72, 0.1, -top).path())


def _draw_boot_sole(heel: float) -> list[Mark]:
    ground = -heel + 0.1
    block = trace_line((-0.64, -heel), (-0.16, -heel), (-0.2, 0), (-0.6, 0))
    pen = Pen(-0.64, -heel - 0.03).line(-0.1, -heel - 0.01).line(0.25, ground - 0.1).line(1.0, ground - 0.1)
    pen.curve(1.06, 0, 0.9, 0).line(0.25, 0).curve(0.08, 0, -0.12, -heel + 0.09).line(-0.64, -heel + 0.05)
    return [Panel(block, Paint.SOLE), Panel(pen.path(), Paint.SOLE)]


def _draw_elastic(top: float, heel: float) -> list[Mark]:
    pen = Pen(-0.4, -top + 0.02).line(-0.12, -top + 0.02).curve(-0.16, -heel - 0.6, -0.24, -heel - 0.3)
    gore = Panel(pen.curve(-0.36, -heel - 0.5, -0.4, -top + 0.02).path(), Paint.SHADED)
    ribs = [Stroke(trace_line((x, -top + 0.04), (x * 0.6 - 0.1, -heel - 0.5)), 0.01) for x in (-0.33, -0.26, -0.19)]
    loop = Stroke(Pen(-0.6, -top + 0.02).curve(-0.62, -top - 0.14, -0.54, -top + 0.02).path(), 0.04, Paint.SHADED)
    return [gore, *ribs, loop]


def _draw_strap(top: float) -> list[Mark]:
    y = -top * 0.62
    strap = trace_line((-0.585, y - 0.06), (0.06, y - 0.06), (0.065, y + 0.06), (-0.58, y + 0.06))
    buckle = trace_line((-0.32, y - 0.09), (-0.16, y - 0.09), (-0.16, y + 0.09), (-0.32, y + 0.09), (-0.32, y - 0.09))
    return [Panel(strap, Paint.SHADED), Stroke(buckle, 0.03, Paint.METAL)]


def draw_socks(rng: Random) -> Garment:
    is_long = rng.random() < 0.45
    shaft = rng.uniform(1.35, 1.7) if is_long else rng.uniform(0.7, 0.95)
    offset = np.array([rng.uniform(0.6, 0.78), rng.uniform(-0.14, 0.14)])
    marks = (*_draw_sock(shaft, np.zeros(2)), *_draw_sock(shaft, offset))
    return Garment(marks, "long" if is_long else "short", "with ribbed tops")


def _draw_sock(shaft: float, offset: Points) -> list[Mark]:
    """Draw one sock. Its cuff starts at y = 0, and its toes point to the right."""
    ankle = shaft
    body = Pen(-0.25, 0.1).curve(-0.22, ankle * 0.6, -0.22, ankle).curve(-0.26, ankle + 0.36, 0.02, ankle + 0.38)
    body.curve(0.3, ankle + 0.42, 0.5, ankle + 0.42).curve(0.82, ankle + 0.4, 0.78, ankle + 0.2)
    body.curve(0.74, ankle + 0.06, 0.5, ankle + 0.06).curve(0.24, ankle + 0.02, 0.22, ankle - 0.14)
    body.curve(0.22, ankle * 0.5, 0.25, 0.1)
    heel = (
        Pen(-0.22, ankle - 0.04)
        .curve(-0.28, ankle + 0.37, 0.06, ankle + 0.385)
        .curve(0.04, ankle + 0.1, -0.22, ankle - 0.04)
    )
    toe = (
        Pen(0.54, ankle + 0.06)
        .curve(0.46, ankle + 0.24, 0.54, ankle + 0.42)
        .curve(0.84, ankle + 0.4, 0.78, ankle + 0.2)
    )
    cuff = trace_line((-0.26, -0.06), (0.26, -0.06), (0.25, 0.16), (-0.25, 0.16))
    ribs = [Stroke(trace_line((x, -0.05), (x, 0.15)) + offset, 0.01) for x in np.linspace(-0.2, 0.2, 8)]
    return [
        Panel(body.path() + offset),
        Panel(heel.path() + offset, Paint.SHADED),
        Panel(toe.curve(0.74, ankle + 0.06, 0.54, ankle + 0.06).path() + offset, Paint.SHADED),
        Panel(cuff + offset, Paint.SHADED),
        *ribs,
    ]
