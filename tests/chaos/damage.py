"""Damage to files: flipped bits, cuts, insertions, and values of JSON, CSV and checkpoints that make no sense."""

import csv
import io
import json
import random
from typing import Any

import torch

EVIL_BYTES = (b"[" * 100_000, b"9" * 400, b"\x00", b"null", b"-", b"\xff\xfe", b"{", b"\n", b'"', b"NaN", b"1e999")
EVIL_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, -0.5, 1e308, 10**18, 10**400, float("nan"), float("inf"), "", "x" * 3000, "../..", "a:b"),
    *("\ud800", "\x00", [], {}, [[]], [None], {"": {}}, {"a": 1}, [1, 2, 3], "auto", "gru", ["csv", "csv"]),
)


def damaged_bytes(content: bytes, rng: random.Random) -> bytes:
    """The content with one damage of the kinds that disks and editors do."""
    data, place = bytearray(content), rng.randrange(max(1, len(content)))
    kind = rng.randrange(6)
    if kind == 0:
        data[place] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[place:]
    elif kind == 2:
        data[place : place + 20] = rng.randbytes(20)
    elif kind == 3:
        data[place:place] = rng.choice(EVIL_BYTES)
    elif kind == 4:
        del data[place : place + rng.randrange(1, 200)]
    else:
        data[place : place + 64] = bytes(64)
    return bytes(data)


def damaged_tree(tree: Any, rng: random.Random, values: tuple[Any, ...] = EVIL_VALUES) -> Any:
    """A tree of dictionaries and lists with one value changed, taken away or added, at a random place."""
    if isinstance(tree, dict) and tree:
        if rng.random() < 0.1:
            return {k: v for k, v in tree.items() if k != rng.choice(list(tree))}
        if rng.random() < 0.1:
            return tree | {rng.choice(["", "x", "seed", "y" * 2000]): rng.choice(values)}
        key = rng.choice(list(tree))
        return tree | {key: damaged_tree(tree[key], rng, values)}
    if isinstance(tree, list) and tree and rng.random() < 0.8:
        number = rng.randrange(len(tree))
        return [*tree[:number], damaged_tree(tree[number], rng, values), *tree[number + 1 :]]
    return rng.choice(values)


def damaged_json(content: bytes, rng: random.Random) -> bytes:
    """A JSON file with one value that makes no sense."""
    return json.dumps(damaged_tree(json.loads(content), rng)).encode()


def damaged_csv(content: bytes, rng: random.Random) -> bytes:
    """A CSV file with one cell, row or column that makes no sense."""
    table = list(csv.reader(io.StringIO(content.decode())))
    row = rng.choice(table)
    place = rng.randrange(len(row))
    kind = rng.randrange(4)
    if kind == 0:
        row[place] = rng.choice(["", "x", "nan", "-5", "1e400", "9" * 400, '"', "1.5", "\x00"])
    elif kind == 1:
        del row[place]
    elif kind == 2:
        table.insert(rng.randrange(len(table)), row)
    else:
        table = table[:1] if rng.random() < 0.5 else table[1:]
    text = io.StringIO()
    csv.writer(text).writerows(table)
    return text.getvalue().encode()


def damaged_checkpoint(content: bytes, rng: random.Random) -> bytes:
    """A checkpoint whose checksums are right and one of whose values makes no sense."""
    state = torch.load(io.BytesIO(content), weights_only=True)
    shapes = (torch.zeros(0), torch.zeros(2, 3), torch.full((4,), float("nan")), torch.tensor(-7))
    values = (*(v for v in EVIL_VALUES if v not in ("\ud800",)), *shapes)
    buffer = io.BytesIO()
    torch.save(_damaged_state(state, rng, values), buffer)
    return buffer.getvalue()


def _damaged_state(tree: Any, rng: random.Random, values: tuple[Any, ...]) -> Any:
    """As `damaged_tree`, and tensors are filled with what makes no sense or take another shape."""
    if isinstance(tree, torch.Tensor):
        choice = rng.randrange(4)
        if choice == 0 and tree.is_floating_point():
            return torch.full_like(tree, rng.choice([float("nan"), float("inf"), 1e38]))
        if choice == 1 and tree.dim():
            return tree[:-1]
        return tree.long() if choice == 2 else rng.choice(values)
    if isinstance(tree, dict) and tree and rng.random() < 0.9:
        key = rng.choice(list(tree))
        return {**tree, key: _damaged_state(tree[key], rng, values)}
    if isinstance(tree, list | tuple) and tree and rng.random() < 0.9:
        number = rng.randrange(len(tree))
        return type(tree)([*tree[:number], _damaged_state(tree[number], rng, values), *tree[number + 1 :]])
    return rng.choice(values)
