"""Wrong versions of valid files, each decided by a seeded generator: bytes, JSON, TOML, archives, graphs, weights."""

import io
import json
import random
import re
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

HUGE = 10**30
TEXTS = ("", "\ud800", "é" * 50, "x" * 5000, "..", "../../x", "/etc/passwd", "a\0b", "NaN", "-", "[UNK]", "cls", "1")
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 255, 2**31, 2**63, 2**64, -(2**63), 4_194_304, HUGE, -HUGE, 0.5, 1e308,
    float("nan"),
    float("inf"), -float("inf"), *TEXTS, [], {}, [None], [[]], {"": None}, ["a", 1], {"a": {"b": []}},
)  # fmt: skip
TOKENS = ("NaN", "Infinity", "1e999", "9" * 5000, "-0", "nul", '"', "[" * 3000, '{"a":' * 3000, "[" * 120 + "]" * 120)
"""JSON, right and wrong, that `json.dumps` would not write."""
MARK = "@@fuzz@@"


def of_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat, swap or insert bytes anywhere."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        position = rng.randrange(len(changed) + 1)
        end = min(len(changed), position + rng.choice((1, 4, 64, 1000)))
        kind = rng.randrange(6)
        if kind == 0 and position < len(changed):
            changed[position] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[position:end]
        elif kind == 2:
            changed[position:position] = changed[position:end] * rng.choice((1, 3))
        elif kind == 3:
            changed[position:position] = rng.choice(
                (b"\0", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\r", b"\n\n", b"9" * 40)
            )
        elif kind == 4:
            del changed[position:]
        elif position < len(changed):
            changed[position] = rng.randrange(256)
    return bytes(changed)


def of_json(data: bytes, rng: random.Random) -> bytes:
    """Change one value or key of a JSON text, or its bytes."""
    if rng.random() < 0.15:
        return of_bytes(data, rng)
    value = json.loads(data)
    holders = _holders(value)
    if not holders:
        return json.dumps(rng.choice(VALUES)).encode("utf-8", "surrogatepass")
    holder = rng.choice(holders)
    position = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
    kind = rng.randrange(7)
    if kind == 0:
        del holder[position]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice(TEXTS)] = holder.pop(position)
    elif kind == 2:
        old = holder[position]
        holder[position] = [old] if rng.random() < 0.5 else {"content": old}
    elif kind == 3 and isinstance(holder[position], int):
        holder[position] = rng.choice(
            (holder[position] + 1, -holder[position], holder[position] * 2**20, float(holder[position]))
        )
    elif kind == 4:
        holder[position] = MARK
        text = json.dumps(value).replace(f'"{MARK}"', rng.choice(TOKENS), 1)
        return text.encode("utf-8", "surrogatepass")
    elif kind == 5 and isinstance(holder, dict):
        key = json.dumps(position)
        other = json.dumps(rng.choice(VALUES))
        holder[MARK] = None
        return json.dumps(value).replace(f'"{MARK}": null', f"{key}: {other}", 1).encode("utf-8", "surrogatepass")
    else:
        holder[position] = rng.choice(VALUES)
    return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def _holders(value: Any) -> list[Any]:
    """Return the objects and arrays that hold something; of large ones (vocabularies) a part."""
    found, level = [], [value]
    while level and len(found) < 300:
        one = level.pop(0)
        if isinstance(one, (dict, list)) and one:
            found.append(one)
            level += list(one.values() if isinstance(one, dict) else one)[:50]
    return found


def of_lines(data: bytes, rng: random.Random) -> bytes:
    """Drop, repeat, swap or change lines, or their cells."""
    if rng.random() < 0.4:
        return of_bytes(data, rng)
    lines = data.split(b"\n")
    position = rng.randrange(len(lines))
    extra = (
        b"",
        b"\t" * 50,
        b'"',
        b"[" * 3000,
        b"\xff",
        b"nan\ta\tb",
        b"x," * 500,
        b'{"text": 1}',
        b'{"id": "\\ud800"}',
    )
    kind = rng.randrange(4)
    if kind == 0:
        del lines[position]
    elif kind == 1:
        lines.insert(position, rng.choice(lines))
    elif kind == 2:
        lines[position] = rng.choice(extra)
    else:
        lines[position] = lines[position] + rng.choice(extra)
    return b"\n".join(lines)


def of_toml(data: bytes, rng: random.Random) -> bytes:
    """Change a value, a name or a line of a TOML text."""
    if rng.random() < 0.2:
        return of_lines(data, rng)
    lines = data.decode().split("\n")
    position = rng.randrange(len(lines))
    name, equals, _ = lines[position].partition("=")
    values = (
        "nan", "inf", "-1", "1e400", "9" * 5000, "true", '""', '"\\ud800"', "[]", "[[]]", "{}", "1979-05-27", "'x'",
        "[" * 2000, "{a=" * 500, '["a", 1]', "0.9999", "2", "[{}]",
    )  # fmt: skip
    names = ("[a]", "[[a]]", '["onnx-fp32"]', '["onnx-fp32@x:y"]', "[" + ".".join("a" * 20_000) + "]",
             ".".join("a" * 20_000) + "=1", ".".join("ab" * 40) + "=1", "require = 1", '["a b"]', "[token-differences]",
             '"*" = [[]]', '"*" = [{}]', '"*" = 1')  # fmt: skip
    if equals and rng.random() < 0.6:
        lines[position] = f"{name}={rng.choice(values)}"
    else:
        lines.insert(position, rng.choice(names))
    return "\n".join(lines).encode()


def of_npz(data: bytes, rng: random.Random) -> bytes:
    """Change an array of an archive: its numbers, its header, its name, how it is stored."""
    if rng.random() < 0.25:
        return of_bytes(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(members))
    kind, packing = rng.randrange(6), zipfile.ZIP_STORED
    if kind == 0:
        members[name] = of_bytes(members[name], rng)
    elif kind == 1:
        del members[name]
    elif kind == 2:
        members[name] = _with_header(members[name], rng)
    elif kind == 3:
        members[rng.choice(("vectors_cls.npy", "x.npy", "../x.npy", "facts", "token_ids.npy"))] = members[name]
    elif kind == 4:
        packing = zipfile.ZIP_DEFLATED
        members[name] = _array_bytes(np.zeros(rng.choice((10, 10**7)), rng.choice(("f4", "u1", "i8"))))
    elif "facts.npy" in members:
        facts = np.load(io.BytesIO(members["facts.npy"])).tobytes()
        members["facts.npy"] = _array_bytes(np.frombuffer(of_json(facts, rng), np.uint8))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        for one, content in members.items():
            archive.writestr(one, content)
    return out.getvalue()


def _array_bytes(array: "np.ndarray[Any, Any]") -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _with_header(array: bytes, rng: random.Random) -> bytes:
    """Give an array another header: other shapes and types, also ones that it does not hold."""
    body = array[10 + int.from_bytes(array[8:10], "little") :]
    shape = rng.choice(
        ("()", "(3,)", "(-1,)", "(10**12,)", "(1000000000000,)", "(2**40, 2**40)", "(1, 2, 3)", "(0, 99)", "'x'")
    )
    kind = rng.choice(("'<f4'", "'<i8'", "'|O'", "'|u1'", "'<f8'", "'<U9999'", "'|V8'", "[('a', '<f4')]", "'x'", "1"))
    text = f"{{'descr': {kind}, 'fortran_order': {rng.choice(('False', 'True', '7'))}, 'shape': {shape}, }}"
    text = rng.choice((text, text, "{", "(" * 500, text * 300))
    header = text.ljust(118).encode() + b"\n"
    version = rng.choice((b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x09\x09"))
    return b"\x93NUMPY" + version + struct.pack("<H", len(header) & 0xFFFF) + header + body


def of_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Change the header of weights, keeping its length right or not, or any byte."""
    if rng.random() < 0.3:
        return of_bytes(data, rng)
    size = int.from_bytes(data[:8], "little")
    header = of_json(data[8 : 8 + size], rng)
    length = len(header) if rng.random() < 0.8 else rng.choice((0, 2**40, 2**63, len(header) + 7))
    return length.to_bytes(8, "little") + header + data[8 + size :]


def of_onnx(data: bytes, rng: random.Random) -> bytes:
    """Change nodes, tensors and types of a graph, or any byte of the file."""
    if rng.random() < 0.2:
        return of_bytes(data, rng)
    import onnx

    model = onnx.load_model_from_string(data)
    graph = model.graph
    node, tensor = rng.choice(graph.node), rng.choice(graph.initializer)
    names = [name for one in graph.node for name in (*one.input, *one.output)] + [""]
    changes: tuple[Callable[[], object], ...] = (
        lambda: node.input.__setitem__(rng.randrange(len(node.input)), rng.choice(names)) if node.input else None,
        lambda: node.output.__setitem__(0, rng.choice(names)),
        lambda: setattr(
            node, "op_type", rng.choice(("MatMul", "Gather", "Transpose", "DequantizeLinear", "Pad", "X", ""))
        ),
        lambda: tensor.dims.__setitem__(0, rng.choice((-1, 0, 2**31, 2**62))) if tensor.dims else tensor.dims.append(7),
        lambda: setattr(tensor, "data_type", rng.choice((0, 1, 7, 8, 16, 99, -1))),
        lambda: setattr(tensor, "raw_data", tensor.raw_data[:-1]),
        lambda: _external(tensor, rng),
        lambda: graph.node.append(rng.choice(graph.node)),
        lambda: graph.node.remove(node),
        lambda: node.input.pop() if node.input else None,
        lambda: setattr(rng.choice(graph.input).type.tensor_type, "elem_type", rng.choice((0, 1, 7, 99))),
        lambda: setattr(model, "ir_version", rng.choice((0, -1, 99, 2**62))),
        lambda: model.opset_import.pop(),
        lambda: graph.output.pop(),
        lambda: graph.initializer.append(tensor),
        lambda: _nest(node, graph, rng),
        lambda: model.functions.append(onnx.helper.make_function("own", "f", ["x"], ["y"], [node], [])),
        lambda: graph.sparse_initializer.append(
            onnx.helper.make_sparse_tensor(tensor, rng.choice(graph.initializer), [rng.choice((0, 3, 2**62))])
        ),
        lambda: node.attribute.append(onnx.helper.make_attribute("K", rng.choice((-1, 2**62)))),
        lambda: setattr(node, "domain", rng.choice(("", "ai.onnx", "com.microsoft", "x" * 5000))),
    )
    rng.choice(changes)()
    return bytes(model.SerializeToString())


def _nest(node: Any, graph: Any, rng: random.Random) -> None:
    """Give a node a body: the graph itself, or many graphs in one another."""
    import onnx

    body = onnx.GraphProto()
    if rng.random() < 0.5:
        body.CopyFrom(graph)
    else:
        for _ in range(rng.choice((3, 25))):  # protobuf itself takes no more than 100 levels
            inner = onnx.GraphProto()
            inner.node.add(op_type="If").attribute.append(onnx.helper.make_attribute("then_branch", body))
            body = inner
    node.attribute.append(onnx.helper.make_attribute("body", body))


def _external(tensor: Any, rng: random.Random) -> None:
    tensor.data_location = 1
    locations = ("x.bin", "../x", "/etc/passwd", "", ".", "a" * 300, "fifo")
    for key, value in (("location", rng.choice(locations)), ("length", rng.choice(("1", "-1", "9" * 30, "x")))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def of_xml(data: bytes, rng: random.Random) -> bytes:
    """Change numbers, names and edges of an OpenVINO model, or any byte."""
    if rng.random() < 0.25:
        return of_bytes(data, rng)
    text = data.decode()
    found = list(re.finditer(r'"([^"]*)"', text))
    for _ in range(rng.choice((1, 1, 3))):
        match = rng.choice(found)
        others = ("", "-1", "0", "1", "3", "99999999999999999999", "2147483648", "x", "f16", "i8", "MatMul", "Result")
        new = rng.choice((*others, rng.choice(found)[1], "9" * 200))
        text = text[: match.start(1)] + new + text[match.end(1) :]
        found = list(re.finditer(r'"([^"]*)"', text))
    if rng.random() < 0.1:
        text = text.replace("<layers>", "<layers>" + "<a>" * 5000, 1)
    if rng.random() < 0.2:
        element = rng.choice(re.findall(r"<(?:layer|edge|data)\b[^>]*>", text) or ["<layer>"])
        end = "" if element.endswith("/>") else f"</{element[1:].split()[0]}>"
        place = rng.choice([match.end() for match in re.finditer(">", text)])
        text = text[:place] + (element + end) * rng.choice((1, 2, 3000)) + text[place:]
    if rng.random() < 0.1:
        text = text.replace('"', "'")
    return text.encode()


PARTS = (
    "(" * 300, "[" * 300, "-" * 3000 + "1", "a." * 3000 + "b", "torch.rand([1])", "self.weight += 1", "if x:\n  y",
    "\0", "torch = 1", "def f(", "lambda: 0", "x" * 100_000, "f(" * 90 + ")" * 90, "_0 = torch.add_(self.weight, 1)",
    "\udcff", "1 if x else 2", "[y for y in x]", "9" * 5000, '"' * 3, "# é", "def f():\n def g(): 1\n",
)  # fmt: skip
"""Source text, right and wrong."""


def of_torch(data: bytes, rng: random.Random) -> bytes:
    """Change a file of a TorchScript archive, its name, how it is stored, or any byte."""
    if rng.random() < 0.25:
        return of_bytes(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(members))
    kind, packing = rng.randrange(6), zipfile.ZIP_STORED
    if kind < 2:
        members[name] = of_lines(members[name], rng) if name.endswith(".py") else of_bytes(members[name], rng)
    elif kind == 2:
        code = members["m/code/__torch__.py"]
        place = rng.choice([match.start() for match in re.finditer(rb"[ \n(]", code)])
        part = rng.choice(PARTS).encode("utf-8", "surrogateescape")
        members["m/code/__torch__.py"] = code[:place] + part + code[place:]
    elif kind == 3:
        members[rng.choice(("m/x.py", "../data.pkl", "m/data.pkl/", "M/DATA.PKL", ".py"))] = members.pop(name)
    elif kind == 4:
        packing = zipfile.ZIP_DEFLATED
        members[rng.choice((name, "m/big.py"))] = rng.choice((b"\0", b"#", b"x=1\n")) * rng.choice((9, 10**5, 10**7))
    else:
        members[f"m/code/{rng.randrange(9)}.py"] = rng.choice(list(members.values()))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        for one, content in members.items():
            archive.writestr(one, content)
    return out.getvalue()


MUTATE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "json": of_json, "bytes": of_bytes, "lines": of_lines, "toml": of_toml, "npz": of_npz, "onnx": of_onnx,
    "safetensors": of_safetensors, "torch": of_torch, "xml": of_xml,
}  # fmt: skip
