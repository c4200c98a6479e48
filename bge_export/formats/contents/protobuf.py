"""Reads the wire format of protobuf: numbered fields of a message, without its schema and without copying.

A machine that only judges has neither onnx nor protobuf, and few fields of an ONNX file are needed. Weights, which are
most of the file, are skipped.
"""

import mmap
from collections.abc import Iterator
from typing import TypeAlias

Message: TypeAlias = bytes | mmap.mmap
Span: TypeAlias = tuple[int, int]
"""Start and end of a field's bytes in the message."""

VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5
FIXED = {EIGHT: 8, FOUR: 4}
LONGEST_VARINT = 10

ALL_BITS = 2**64 - 1
"""An integer has 64 bits; every reader drops those above."""

LARGEST_TAG = 2**32 - 1
"""Other readers drop the bits above, and would take such a field for one that is skipped here."""


def fields(message: Message, span: Span) -> Iterator[tuple[int, int | Span]]:
    """Yield the number of each field, and its integer or, for bytes and nested messages, its span.

    Numbers of fixed width, which hold floats, are yielded as spans.

    Raises:
        ValueError: it is not a valid message.
    """
    place, end = span
    while place < end:
        tag, place = _varint(message, place, end)
        number, kind = tag >> 3, tag & 7
        if tag > LARGEST_TAG:
            raise ValueError(f"a field has the number {number}")

        if kind == VARINT:
            value, place = _varint(message, place, end)
            yield number, value
            continue

        if kind == BYTES:
            length, place = _varint(message, place, end)
        elif kind in FIXED:
            length = FIXED[kind]
        else:
            raise ValueError(f"a field of the unknown kind {kind}")

        if length > end - place:
            raise ValueError("a field is longer than its message")
        yield number, (place, place + length)
        place += length


def varints(message: Message, value: int | Span) -> Iterator[int]:
    """Yield the integers of a repeated field, which may be packed.

    Raises:
        ValueError: they are not valid.
    """
    if isinstance(value, int):
        yield value
        return

    place, end = value
    while place < end:
        number, place = _varint(message, place, end)
        yield number


def text(message: Message, value: int | Span) -> str:
    """Return a string field.

    Raises:
        ValueError: it is not UTF-8, or not a string.
    """
    start, end = span_of(value)
    return message[start:end].decode("utf-8")


def span_of(value: int | Span) -> Span:
    """Return the span of a field that must be bytes or a message.

    Raises:
        ValueError: it is an integer.
    """
    if isinstance(value, int):
        raise ValueError(f"a field holds the number {value} in place of bytes")
    return value


def _varint(message: Message, place: int, end: int) -> tuple[int, int]:
    value = 0
    for count in range(LONGEST_VARINT):
        if place >= end:
            raise ValueError("it ends in the middle of a number")

        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value & ALL_BITS, place

    raise ValueError("a number is too long")
