"""Run jobs on randomly damaged and malicious files: images, tables of labels and products, and checkpoints."""

import io
import json
import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file, save_file

from benchmarks.scenarios.chaos.jobs import DONE, PERMANENT
from benchmarks.scenarios.chaos.sandboxes import Servers
from benchmarks.scenarios.chaos.tally import HOSTILE_FILES, Tally, Violations
from fixtures.shop import make_image, make_scan_bomb, promote_tiny_models

IMAGE_SHARE, TABLE_SHARE = 0.75, 0.15
"""Shares of all files. The rest are checkpoints."""
HEALTHY = 24
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")
NAMES = (
    "it's",
    'a"b',
    "<script>alert(1)<script>",
    "a b",
    "ünï",
    "emoji-👗",
    "a%00b",
    "a+b&c=d",
    "-rf",
    "..b",
    "{x}",
    "%s",
)


def feed_images(servers: Servers, tally: Tally, count: int, seed: int) -> None:
    """Tag healthy and hostile images in one run. Healthy ones must get tags, hostile ones tags or failures."""
    chance = random.Random(seed)
    with servers.open_sandbox() as sandbox:
        promote_tiny_models(sandbox.shop, sandbox.models)
        sandbox.shop.put_images(HEALTHY, seed=1)
        for number in range(count):
            content, ending = _make_hostile_image(chance, number)
            sandbox.shop.put(f"hostile/{number:03d}{chance.choice(NAMES)}.{ending}", content)
        violations = sandbox.jobs.run("ingest").check(DONE)
        violations += sandbox.jobs.run("ingest").check(DONE)
        handled = """
            SELECT count(*) FROM catalog.images i WHERE EXISTS (
                SELECT FROM catalog.current_image_tags t WHERE t.image_id = i.image_id
            ) <> EXISTS (SELECT FROM catalog.item_failures f WHERE f.image_id = i.image_id AND f.resolved_at IS NULL)
        """
        healthy = "SELECT count(*) FROM catalog.current_image_tags WHERE object_key NOT LIKE 'hostile/%'"
        violations += sandbox.compare(handled, HEALTHY + count) + sandbox.compare(healthy, HEALTHY)
    tally.add(HOSTILE_FILES, "hostile images", violations, count)


def _make_hostile_image(chance: random.Random, number: int) -> tuple[bytes, str]:
    image_format = chance.choice(FORMATS)
    whole = make_image(number, (200, 240), image_format)
    make = chance.choice((_cut, _flip, _splice, _fill, _use_other_format, _claim_huge_size, _hide, _repeat_scans))
    return make(whole, chance), image_format.lower().replace("jpeg", "jpg")


def _cut(whole: bytes, chance: random.Random) -> bytes:
    return whole[: chance.randrange(len(whole))]


def _flip(whole: bytes, chance: random.Random) -> bytes:
    content = bytearray(whole)
    for _ in range(chance.randrange(1, 40)):
        content[chance.randrange(len(content))] = chance.randrange(256)
    return bytes(content)


def _splice(whole: bytes, chance: random.Random) -> bytes:
    other = make_image(chance.randrange(1000), (300, 100), chance.choice(FORMATS))
    return whole[: chance.randrange(len(whole))] + other[chance.randrange(len(other)) :]


def _fill(whole: bytes, chance: random.Random) -> bytes:
    return chance.choice((b"", b"\0" * 5000, b"\xff" * 5000, chance.randbytes(20_000), whole[:4] * 1000))


def _use_other_format(_: bytes, chance: random.Random) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.jpg", "x")
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>fetch("http://127.0.0.1:9")</script></svg>'
    ps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) (r) file\n"
    return chance.choice(
        (archive.getvalue(), svg, ps, b"<!doctype html><p>404", b"\x7fELF" + bytes(500), b"#!/bin/sh\n")
    )


def _claim_huge_size(whole: bytes, chance: random.Random) -> bytes:
    """Return a PNG that is huge, or whose header only claims so."""
    buffer = io.BytesIO()
    side = chance.choice((200, 9_000))
    Image.new("L", (side, side)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    if side == 200:
        content[16:24] = struct.pack(">II", *(chance.choice((0, 1, 60_000, 2**31 - 1)) for _ in range(2)))
    return bytes(content)


def _hide(whole: bytes, chance: random.Random) -> bytes:
    """Return an image with 100 MB of zeros in its metadata, or a program after its end."""
    buffer = io.BytesIO()
    if chance.random() < 0.5:
        return whole + chance.randbytes(5000) + b"<?php system($_GET['x']); ?>"
    metadata = PngInfo()
    metadata.add_text("comment", "\0" * 100_000_000, zip=True)
    Image.new("RGB", (64, 64)).save(buffer, "PNG", pnginfo=metadata)
    return buffer.getvalue()


def _repeat_scans(_: bytes, chance: random.Random) -> bytes:
    return make_scan_bomb(chance.choice((3, 101, 2000)))


HOSTILE_ROWS = (
    b'a.jpg,"hat',
    b'"a.jpg,hat',
    b"\xff\xfe.jpg,h\xe4t",
    b"a.jpg,ha\0t",
    b"../../../etc/passwd,hat",
    b"/etc/passwd,hat",
    b"a.jpg," + b"x" * 200_000,
    b"a.jpg,hat" + b",x" * 5000,
    b"=cmd|' /C calc'!A0,hat",
    b"a.jpg,<script>alert(1)</script>",
    b"a.jpg,'); DROP TABLE catalog.examples; --",
    b"http://127.0.0.1:9/a.jpg,hat",
    b"\r\r\r",
    b",,,,,",
    "a.jpg,h\u200bat\u202e".encode(),
)


def feed_tables(servers: Servers, tally: Tally, count: int, seed: int) -> None:
    """Import labels, and tag a shop with a products.csv. Despite hostile rows, no healthy row may be lost."""
    chance = random.Random(seed)
    with servers.open_sandbox() as sandbox:
        promote_tiny_models(sandbox.shop, sandbox.models)
        sandbox.shop.put_images(HEALTHY)
        folder = sandbox.folder / "labeled"
        folder.mkdir()
        for number in range(HEALTHY):
            (folder / f"{number}.jpg").write_bytes(make_image(number))
        for number in range(count):
            if number % 2:
                keys = [b"p0%03d_1.jpg,Product %d" % (one, number) for one in range(HEALTHY // 2)]
                sandbox.shop.put("products.csv", _mix(b"image,display name", keys, chance))
                named = f"SELECT count(*) FROM catalog.products WHERE display_name = 'Product {number}'"
                violations = sandbox.jobs.run("ingest").check(DONE) + Violations(
                    lost=max(HEALTHY // 2 - sandbox.count(named), 0)
                )
            else:
                rows = [b"%d.jpg,kind %d" % (one, one % 3) for one in range(HEALTHY)]
                (folder / "labels.csv").write_bytes(_mix(b"image,label", rows, chance))
                finished = sandbox.jobs.run("import-labels", "csv", str(folder), "--name", f"table {number}")
                imported = (
                    f"SELECT count(*) FROM catalog.examples WHERE source = 'table {number}' AND category ~ '^kind'"
                )
                violations = finished.check(DONE) + Violations(lost=max(HEALTHY - sandbox.count(imported), 0))
            tally.add(HOSTILE_FILES, "hostile tables", violations)


def _mix(header: bytes, rows: list[bytes], chance: random.Random) -> bytes:
    mixed = rows + [chance.choice(HOSTILE_ROWS) for _ in range(5)]
    chance.shuffle(mixed)
    return b"\n".join([header, *mixed, b""])


def _edit_json(name: str, **changes: object) -> Callable[[Path, random.Random], None]:
    def spoil(folder: Path, _: random.Random) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def _write(name: str, content: bytes) -> Callable[[Path, random.Random], None]:
    def spoil(folder: Path, _: random.Random) -> None:
        (folder / name).write_bytes(content)

    return spoil


def _damage(folder: Path, chance: random.Random) -> None:
    path = chance.choice([file for file in sorted(folder.iterdir()) if file.is_file()])
    path.write_bytes(chance.choice((_cut, _flip, _fill))(path.read_bytes(), chance))


def _delete(folder: Path, chance: random.Random) -> None:
    chance.choice([file for file in sorted(folder.iterdir()) if file.is_file()]).unlink()


def _write_non_finite_weights(folder: Path, chance: random.Random) -> None:
    weights = load_file(folder / "model.safetensors")
    name = chance.choice(sorted(name for name, tensor in weights.items() if tensor.is_floating_point()))
    weights[name] = torch.full_like(weights[name], chance.choice((np.nan, np.inf)))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


SPOIL: tuple[Callable[[Path, random.Random], None], ...] = (
    _damage,
    _delete,
    _write_non_finite_weights,
    _edit_json("config.json", auto_map={"AutoModel": "evil.Model"}, model_type="evil"),
    _edit_json("config.json", projection_dim=7),
    _edit_json("preprocessor_config.json", image_mean=[0.5], image_std=[0]),
    _edit_json("preprocessor_config.json", size={"shortest_edge": 10**9}),
    _write("config.json", b"[]"),
    _write("tokenizer.json", b'{"version": "1.0"}'),
)


def feed_checkpoints(servers: Servers, tally: Tally, count: int, seed: int) -> None:
    """Adopt damaged checkpoints. Each must work, or be rejected with a one-line error."""
    chance = random.Random(seed)
    for number in range(count):
        with servers.open_sandbox() as sandbox:
            folder = sandbox.folder / "base"
            shutil.copytree(sandbox.models.encoder, folder)
            SPOIL[number % len(SPOIL)](folder, chance)
            finished = sandbox.jobs.run("adopt", "encoder", str(folder))
            promoted = sandbox.compare("SELECT count(*) FROM catalog.promotions", int(finished.exit_code == DONE))
            tally.add(HOSTILE_FILES, "hostile checkpoints", finished.check(DONE, PERMANENT) + promoted)


def list_feeds(count: int, seed: int) -> Iterator[Callable[[Servers, Tally], None]]:
    """Divide the files into images (in runs of at most 50), tables and checkpoints."""
    images, tables = round(count * IMAGE_SHARE), round(count * TABLE_SHARE)

    def bind(
        feed: Callable[[Servers, Tally, int, int], None], some: int, number: int
    ) -> Callable[[Servers, Tally], None]:
        return lambda servers, tally: feed(servers, tally, some, seed + number)

    for number, first in enumerate(range(0, images, 50)):
        yield bind(feed_images, min(50, images - first), number)
    yield bind(feed_tables, tables, 0)
    yield bind(feed_checkpoints, count - images - tables, 0)
