"""Draw t-shirts, shirts, hoodies, coats and dresses with random proportions."""

from dataclasses import dataclass
from random import Random

import numpy as np

from demo.sample_catalog.marks import Disc, Garment, Mark, Paint, Panel, Pen, Points, Stroke, on_both_sides, trace_line


@dataclass(frozen=True)
class Torso:
    """The body of a top. Widths are measured from the middle, and the neck points are at y = 0."""

    neck: float
    neck_depth: float
    is_v_neck: bool
    shoulder: float
    chest: float
    waist: float
    hem: float
    length: float
    armpit_y: float = 0.46
    slope: float = 0.1

    def trace_neckline(self) -> Points:
        """Trace from the left neck point down to the front of the neck and up to the right."""
        if self.is_v_neck:
            return trace_line((-self.neck, 0), (0, self.neck_depth), (self.neck, 0))
        pen = Pen(-self.neck, 0).curve(-self.neck * 0.85, self.neck_depth, 0, self.neck_depth)
        return pen.curve(self.neck * 0.85, self.neck_depth, self.neck, 0).path()

    def draw_body(self, hem_drop: float = 0.04) -> Panel:
        pen = Pen(0, self.neck_depth)
        if self.is_v_neck:
            pen.line(self.neck, 0)
        else:
            pen.curve(self.neck * 0.85, self.neck_depth, self.neck, 0)
        pen.line(self.shoulder, self.slope)
        pen.curve(self.shoulder - 0.05, self.armpit_y * 0.7, self.chest, self.armpit_y)
        waist_y = self.armpit_y + (self.length - self.armpit_y) * 0.45
        pen.curve(self.waist, (self.armpit_y + waist_y) / 2, self.waist, waist_y)
        pen.curve(self.waist, (waist_y + self.length) / 2, self.hem, self.length)
        pen.curve(self.hem * 0.5, self.length + hem_drop, 0, self.length + hem_drop)
        return Panel(pen.closed_by_mirror())

    def draw_back_neck(self) -> Panel:
        """Draw the inside of the back, seen through the neck opening."""
        back = Pen(self.neck, 0).curve(0, -0.09, -self.neck, 0).path()
        return Panel(np.concatenate([self.trace_neckline(), back]), Paint.SHADED)

    def draw_collar_stand(self) -> Panel:
        """Draw the part of a collar that stands up at the back of the neck."""
        pen = Pen(self.neck, 0.02).curve(0, -0.2, -self.neck, 0.02).curve(0, 0.02, self.neck, 0.02)
        return Panel(pen.path(), Paint.SHADED)

    def draw_hem_seam(self, height: float, hem_drop: float = 0.04) -> Stroke:
        y, half = self.length - height, self.hem - 0.005
        return Stroke(Pen(-half, y).curve(0, y + 2 * hem_drop, half, y).path())

    def draw_sleeves(
        self, length: float, angle: float, cuff: float, cuff_length: float, cuff_paint: Paint = Paint.CLOTH
    ) -> tuple[Mark, ...]:
        """Draw sleeves that hang ``angle`` degrees off the vertical and are ``cuff`` wide at their end.

        They end in a cuff of ``cuff_length``, or in a seam if that is 0.
        """
        down = np.array([np.sin(np.radians(angle)), np.cos(np.radians(angle))])
        inwards = np.array([-down[1], down[0]])
        shoulder, armpit = np.array([self.shoulder, self.slope]), np.array([self.chest, self.armpit_y])
        outer_end = shoulder + down * length
        inner_end = outer_end + inwards * cuff
        elbow = (shoulder + outer_end) / 2 - inwards * 0.05
        pen = Pen(self.neck + 0.02, self.slope * 0.2).line(*shoulder).curve(*elbow, *outer_end).line(*inner_end)
        pen.line(*armpit).line(self.chest - 0.12, self.armpit_y)
        marks: list[Mark] = [Panel(pen.path(), grain=-angle)]
        if cuff_length:
            corners = [outer_end - inwards * 0.01, inner_end + inwards * 0.01]
            ends = [corner + down * cuff_length for corner in reversed(corners)]
            marks.append(Panel(np.array([*corners, *ends]), cuff_paint, grain=-angle))
        else:
            marks.append(Stroke(np.array([outer_end, inner_end]) - down * 0.055))
        return on_both_sides(*marks)


def draw_t_shirt(rng: Random) -> Garment:
    half, is_v_neck = rng.uniform(0.48, 0.58), rng.random() < 0.4
    torso = Torso(
        neck=half * rng.uniform(0.36, 0.44),
        neck_depth=rng.uniform(0.3, 0.4) if is_v_neck else rng.uniform(0.13, 0.2),
        is_v_neck=is_v_neck,
        shoulder=half,
        chest=half - 0.02,
        waist=half * rng.uniform(0.92, 1.0),
        hem=half * rng.uniform(0.97, 1.04),
        length=rng.uniform(1.3, 1.6),
    )
    sleeves = torso.draw_sleeves(rng.uniform(0.36, 0.52), rng.uniform(32, 58), rng.uniform(0.3, 0.36), 0)
    front: list[Mark] = [Stroke(torso.trace_neckline(), 0.055, Paint.SHADED), torso.draw_hem_seam(0.06)]
    if rng.random() < 0.35:
        front += _draw_chest_pocket(half * 0.45, 0.5)
    marks = (torso.draw_back_neck(), *sleeves, torso.draw_body(), *front)
    return Garment(marks, detail="with a v-neck" if is_v_neck else "with a round neck")


def _draw_chest_pocket(x: float, y: float) -> list[Mark]:
    outline = trace_line((x - 0.11, y), (x + 0.11, y), (x + 0.11, y + 0.2), (x, y + 0.25), (x - 0.11, y + 0.2))
    return [Panel(outline), Stroke(trace_line((x - 0.11, y + 0.045), (x + 0.11, y + 0.045)))]


def draw_shirt(rng: Random) -> Garment:
    half, has_long_sleeves = rng.uniform(0.47, 0.55), rng.random() < 0.65
    torso = Torso(
        neck=half * rng.uniform(0.38, 0.44),
        neck_depth=0.2,
        is_v_neck=True,
        shoulder=half,
        chest=half - 0.03,
        waist=half * rng.uniform(0.86, 0.97),
        hem=half * rng.uniform(0.95, 1.02),
        length=rng.uniform(1.45, 1.7),
    )
    if has_long_sleeves:
        sleeves = torso.draw_sleeves(rng.uniform(1.05, 1.25), rng.uniform(12, 26), 0.19, 0.13, Paint.PLAIN)
    else:
        sleeves = torso.draw_sleeves(rng.uniform(0.42, 0.52), rng.uniform(28, 42), 0.33, 0)
    hem_drop = rng.uniform(0.06, 0.16)
    placket = _draw_placket(torso.neck_depth, torso.length + hem_drop - 0.01, rng.randint(5, 7))
    front: list[Mark] = [*placket, *_draw_collar(torso)]
    if rng.random() < 0.6:
        front += _draw_chest_pocket(half * 0.5, 0.48)
    marks = (torso.draw_back_neck(), *sleeves, torso.draw_body(hem_drop), *front)
    return Garment(marks, detail="with long sleeves" if has_long_sleeves else "with short sleeves")


def _draw_placket(top: float, bottom: float, buttons: int) -> list[Mark]:
    """Draw a placket of plain cloth, wide enough to be visible in a thumbnail."""
    half = 0.075
    band = Panel(trace_line((-half, top), (half, top), (half, bottom), (-half, bottom)), Paint.PLAIN)
    sides = [Stroke(trace_line((x, top), (x, bottom))) for x in (-half, half)]
    heights = np.linspace(top + 0.12, bottom - 0.2, buttons)
    return [band, *sides, *(Disc(np.array([0.0, y]), 0.036) for y in heights)]


def _draw_collar(torso: Torso) -> tuple[Mark, ...]:
    pen = Pen(0, torso.neck_depth + 0.01).line(torso.neck * 0.9, -0.06).line(torso.neck + 0.07, 0.05)
    wing = Panel(pen.line(torso.neck * 0.85, torso.neck_depth + 0.16).path(), Paint.PLAIN)
    return (torso.draw_collar_stand(), *on_both_sides(wing))


def draw_hoodie(rng: Random) -> Garment:
    half, has_zip = rng.uniform(0.54, 0.64), rng.random() < 0.4
    torso = Torso(
        neck=half * rng.uniform(0.42, 0.5),
        neck_depth=0.2,
        is_v_neck=False,
        shoulder=half,
        chest=half,
        waist=half * rng.uniform(0.98, 1.03),
        hem=half * rng.uniform(0.88, 0.96),
        length=rng.uniform(1.3, 1.5),
        slope=0.13,
    )
    sleeves = torso.draw_sleeves(rng.uniform(1.0, 1.15), rng.uniform(14, 28), 0.24, 0.12, Paint.SHADED)
    marks = (
        *sleeves,
        torso.draw_body(hem_drop=0.02),
        *_draw_rib_band(torso.hem * 0.96, torso.length, 0.13),
        *_draw_kangaroo_pocket(torso, has_zip),
        *_draw_hood(torso, rng.uniform(0.42, 0.55)),
        *_draw_cords(torso, rng.uniform(0.3, 0.5)),
    )
    return Garment(marks, detail="with a zip" if has_zip else "with a front pocket")


def _draw_rib_band(half: float, y: float, height: float) -> list[Mark]:
    outline = trace_line((-half - 0.02, y - 0.02), (half + 0.02, y - 0.02), (half, y + height), (-half, y + height))
    ribs = [Stroke(trace_line((x, y), (x, y + height - 0.01)), 0.008) for x in np.linspace(-half, half, 24)[1:-1]]
    return [Panel(outline, Paint.SHADED), *ribs]


def _draw_kangaroo_pocket(torso: Torso, has_zip: bool) -> list[Mark]:
    top, bottom, half = torso.length - 0.5, torso.length - 0.03, torso.hem * 0.68
    pen = Pen(0, top).line(half * 0.62, top).curve(half * 0.72, top + 0.26, half, top + 0.3).line(half, bottom)
    pocket = Panel(pen.line(0, bottom).closed_by_mirror())
    if not has_zip:
        return [pocket]
    zipper = trace_line((0, torso.neck_depth), (0, torso.length + 0.1))
    return [pocket, Stroke(zipper, 0.05, Paint.SHADED), Stroke(zipper, 0.02, Paint.METAL)]


def _draw_hood(torso: Torso, height: float) -> list[Mark]:
    wide = torso.neck * 1.3
    shell = Pen(0, torso.neck_depth + 0.14).curve(wide * 0.7, torso.neck_depth + 0.1, wide, 0.06)
    shell.curve(wide * 1.05, -height, 0, -height)
    opening = Pen(0, torso.neck_depth).curve(wide * 0.45, torso.neck_depth - 0.02, wide * 0.62, -0.02)
    opening.curve(wide * 0.68, -height * 0.74, 0, -height * 0.76)
    rim = opening.closed_by_mirror()
    return [Panel(shell.closed_by_mirror()), Panel(rim, Paint.SHADED), Stroke(rim * (0.93, 0.93), 0.014)]


def _draw_cords(torso: Torso, length: float) -> tuple[Mark, ...]:
    x, y = 0.09, torso.neck_depth + 0.05
    cord = Pen(x, y).curve(x + 0.05, y + length / 2, x + 0.02, y + length).path()
    return on_both_sides(
        Stroke(cord, 0.026, Paint.TRIM), Disc(np.array([x, y]), 0.03, Paint.METAL), Disc(cord[-1], 0.026)
    )


def draw_coat(rng: Random) -> Garment:
    half, is_long = rng.uniform(0.48, 0.56), rng.random() < 0.6
    has_belt, is_double_breasted = rng.random() < 0.4, rng.random() < 0.5
    torso = Torso(
        neck=half * 0.36,
        neck_depth=rng.uniform(0.62, 0.8),
        is_v_neck=True,
        shoulder=half,
        chest=half,
        waist=half * rng.uniform(0.84, 0.94),
        hem=half * rng.uniform(1.1, 1.3) if is_long else half * rng.uniform(1.0, 1.12),
        length=rng.uniform(2.1, 2.45) if is_long else rng.uniform(1.7, 1.9),
        armpit_y=0.5,
    )
    sleeves = torso.draw_sleeves(rng.uniform(1.15, 1.3), rng.uniform(10, 20), 0.25, 0.12)
    marks: list[Mark] = [torso.draw_back_neck(), *sleeves, torso.draw_body(), *_draw_front_edge(torso)]
    marks += _draw_coat_pockets(torso.waist, torso.neck_depth + 0.42)
    if has_belt:
        marks += _draw_belt(torso.waist + 0.02, torso.neck_depth + 0.2)
    marks += [torso.draw_collar_stand(), *_draw_lapels(torso), *_draw_coat_buttons(torso, is_double_breasted, has_belt)]
    return Garment(tuple(marks), "long" if is_long else "short", "with a belt" if has_belt else "with buttons")


def _draw_front_edge(torso: Torso) -> list[Mark]:
    start, end = torso.neck_depth, torso.length + 0.04
    return [Stroke(trace_line((0.0, start), (0.03, start + 0.2), (0.03, end)), 0.02)]


def _draw_lapels(torso: Torso) -> tuple[Mark, ...]:
    neck, depth = torso.neck, torso.neck_depth
    lapel = Pen(0, depth).line(neck, 0.02).line(neck + 0.1, 0.24).line(neck + 0.2, 0.26)
    collar = Pen(neck * 0.9, -0.06).line(neck + 0.07, 0.02).line(neck + 0.18, 0.17).line(neck + 0.07, 0.27)
    return on_both_sides(
        Panel(lapel.curve(neck * 0.9, depth * 0.7, 0, depth).path(), Paint.PLAIN),
        Panel(collar.line(neck * 0.72, 0.2).path(), Paint.SHADED),
    )


def _draw_coat_pockets(waist: float, y: float) -> tuple[Mark, ...]:
    flap = trace_line((waist * 0.3, y), (waist * 0.85, y - 0.03), (waist * 0.85, y + 0.08), (waist * 0.3, y + 0.11))
    return on_both_sides(Panel(flap, Paint.PLAIN))


def _draw_belt(half: float, y: float) -> list[Mark]:
    belt = trace_line((-half, y), (half, y), (half, y + 0.12), (-half, y + 0.12))
    buckle = trace_line((-0.07, y - 0.02), (0.07, y - 0.02), (0.07, y + 0.14), (-0.07, y + 0.14), (-0.07, y - 0.02))
    return [Panel(belt, Paint.SHADED), Stroke(buckle, 0.03, Paint.METAL)]


def _draw_coat_buttons(torso: Torso, is_double_breasted: bool, has_belt: bool) -> list[Mark]:
    columns = (-0.15, 0.17) if is_double_breasted else (-0.05,)
    top = torso.neck_depth + (0.45 if has_belt else 0.1)
    return [Disc(np.array([x, top + row * 0.24]), 0.035, Paint.SOLE) for row in range(3) for x in columns]


def draw_dress(rng: Random) -> Garment:
    half, is_long = rng.uniform(0.36, 0.42), rng.random() < 0.45
    sleeve = rng.choice(("sleeveless", "short", "long"))
    is_v_neck = rng.random() < 0.5
    shoulder = half * 0.78 if sleeve == "sleeveless" else half
    torso = Torso(
        neck=shoulder - 0.11 if sleeve == "sleeveless" else half * 0.52,
        neck_depth=rng.uniform(0.26, 0.36) if is_v_neck else rng.uniform(0.16, 0.26),
        is_v_neck=is_v_neck,
        shoulder=shoulder,
        chest=half,
        waist=half * 0.9,
        hem=half * 0.78,
        length=rng.uniform(0.8, 0.95),
        armpit_y=0.4,
        slope=0.05,
    )
    sleeves: tuple[Mark, ...] = ()
    if sleeve == "short":
        sleeves = torso.draw_sleeves(rng.uniform(0.24, 0.34), rng.uniform(25, 42), 0.24, 0)
    elif sleeve == "long":
        sleeves = torso.draw_sleeves(rng.uniform(0.95, 1.1), rng.uniform(14, 24), 0.15, 0.06)
    length = rng.uniform(1.5, 1.75) if is_long else rng.uniform(0.9, 1.15)
    skirt = _draw_dress_skirt(torso, length, half * rng.uniform(1.9, 2.5), rng.randint(3, 5))
    waistband = [Stroke(trace_line((-torso.hem, torso.length), (torso.hem, torso.length)), 0.07, Paint.SHADED)]
    neckband = Stroke(torso.trace_neckline(), 0.025, Paint.SHADED)
    marks = (torso.draw_back_neck(), *sleeves, torso.draw_body(0), neckband, *skirt, *waistband)
    detail = "without sleeves" if sleeve == "sleeveless" else f"with {sleeve} sleeves"
    return Garment(marks, "long" if is_long else "short", detail)


def _draw_dress_skirt(torso: Torso, length: float, hem: float, folds: int) -> list[Mark]:
    top, bottom = torso.length, torso.length + length
    pen = Pen(0, top).line(torso.hem, top).curve(torso.hem + (hem - torso.hem) * 0.45, top + length * 0.3, hem, bottom)
    outline = pen.curve(hem * 0.5, bottom + 0.12, 0, bottom + 0.12).closed_by_mirror()
    lines: list[Mark] = []
    for share in np.linspace(-0.75, 0.75, folds):
        start = (torso.hem * share, top + length * 0.12)
        end = (hem * share, bottom + 0.06 - 0.06 * abs(share))
        lines.append(Stroke(Pen(*start).curve(torso.hem * share * 1.3, top + length * 0.5, *end).path(), 0.012))
    return [Panel(outline), *lines]
