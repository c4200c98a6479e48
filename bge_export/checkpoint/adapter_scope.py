"""Tells which modules an adapter is of, and what its patterns say of each, as peft reads them, within bounds."""

import re
from collections.abc import Mapping
from pathlib import Path

from bge_export.errors import CheckpointError

ALL_LINEAR = "all-linear"
SWITCHES = ("fan_in_fan_out", "lora_bias", "use_dora", "use_qalora", "use_rslora")
TABLES = ("rank_pattern", "alpha_pattern")

LONGEST_PATTERN, LONGEST_NAME = 200, 120
"""In characters. Together with the two numbers below they bound how long a hostile pattern can take."""

MOST_REPEATS, MOST_GROUPS = 4, 4
ESCAPED = re.compile(r"\\.", re.DOTALL)
CLASS = re.compile(r"\[\^?\]?[^\]]*\]")
GROUP_START = re.compile(r"\((\?(P<\w+>|<?[:=!]))?")
REPEATED_GROUP = re.compile(r"\)[*+{]")
REPEAT = re.compile(r"[*+?{]\??")

MERGE_WITH_PEFT = "Merge the adapter with peft (merge_and_unload, then save_pretrained) and give the merged folder."


def refuse_strange_settings(path: Path, settings: Mapping[str, object]) -> None:
    """Raise CheckpointError for settings of types that peft never writes, or that it refuses together.

    Args:
        path: `adapter_config.json`, for messages.
        settings: its content.
    """
    for name in SWITCHES:
        if not isinstance(settings.get(name), bool | None):
            raise CheckpointError(f"{path}: {name} is {settings[name]!r}, not true or false. Correct it.")

    for name in TABLES:
        table = settings.get(name)
        if not isinstance(table, dict | None):
            raise CheckpointError(f"{path}: {name} is {table!r}, not a table of patterns. Correct it.")
        for pattern in table or ():
            _compiled(path, name, str(pattern), rf"(.*\.)?({pattern})$")

    targets, layers = settings.get("target_modules"), settings.get("layers_to_transform")
    numbers = layers if isinstance(layers, list) else [layers]
    if layers is not None and not all(type(one) is int for one in numbers):
        raise CheckpointError(f"{path}: layers_to_transform is {layers!r}, not numbers of layers. Correct it.")

    pattern = settings.get("layers_pattern")
    if (layers is not None and isinstance(targets, str)) or (pattern and layers is None):
        raise CheckpointError(
            f"{path}: layers_to_transform and layers_pattern belong together, beside a list of target_modules. "
            "Correct them."
        )


def refuse_other_module(path: Path, settings: Mapping[str, object], module: str, *, table: bool) -> None:
    """Raise CheckpointError for factors of a module that peft would give none, whose factors it leaves out.

    Args:
        path: `adapter_config.json`, for messages.
        settings: its content.
        module: the name of the module.
        table: whether its factors are those of a token table.
    """
    if len(module) > LONGEST_NAME:
        raise CheckpointError(
            f"{path}: the adapter's weights name a module of {len(module)} characters. Do not use it."
        )

    targets = settings.get("target_modules")
    if isinstance(targets, str) and targets.lower() == ALL_LINEAR:
        fits = not table
    else:
        fits = _fits(path, settings, "target_modules", module) and _of_layers(path, settings, module)

    setting = None if fits else "target_modules, layers_to_transform"
    if settings.get("exclude_modules") and _fits(path, settings, "exclude_modules", module):
        setting = "exclude_modules"
    if setting is not None:
        raise CheckpointError(
            f"{path}: its weights change {module!r}, which its settings leave out ({setting}), so that peft would not "
            "load them. Correct the settings, or fetch the adapter again."
        )


def of_module(path: Path, settings: Mapping[str, object], key: str, module: str, otherwise: object) -> object:
    """Return what the first fitting pattern of a table says of a module; patterns fit the end of its name."""
    table = settings.get(key)
    for pattern, value in table.items() if isinstance(table, dict) else ():
        if _compiled(path, key, pattern, rf"(.*\.)?({pattern})$").match(module):
            return value
    return otherwise


def _fits(path: Path, settings: Mapping[str, object], key: str, module: str) -> bool:
    """Return whether a setting names a module: a pattern the whole name, an entry of a list its end."""
    named = settings.get(key)
    if isinstance(named, str):
        return _compiled(path, key, named, named).fullmatch(module) is not None

    if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
        raise CheckpointError(f"{path}: {key} is {named!r}, not names of modules. {MERGE_WITH_PEFT}")
    return any(module == one or module.endswith(f".{one}") for one in named)


def _of_layers(path: Path, settings: Mapping[str, object], module: str) -> bool:
    """Return whether a module is in one of the layers that the adapter is limited to, if it is."""
    layers, named = settings.get("layers_to_transform"), settings.get("layers_pattern")
    if layers is None or layers == []:
        return True

    patterns = [named] if isinstance(named, str) else named
    if not patterns:
        found = re.match(r".*?\.[^.]*\.(?P<idx>\d+)\.", module)
    elif isinstance(patterns, list) and all(isinstance(one, str) for one in patterns):
        tried = (_compiled(path, "layers_pattern", one, rf"(?:^|.*?\.){one}\.(?P<idx>\d+)\.") for one in patterns)
        found = next(filter(None, (one.match(module) for one in tried)), None)
    else:
        raise CheckpointError(f"{path}: layers_pattern is {named!r}, not names of lists of layers. {MERGE_WITH_PEFT}")

    return found is not None and int(found["idx"]) in (layers if isinstance(layers, list) else [layers])


def _compiled(path: Path, key: str, pattern: str, whole: str) -> re.Pattern[str]:
    """Return a pattern of a setting, which may come from anybody, inside the whole that peft makes of it."""
    plain, groups = GROUP_START.subn("(", CLASS.sub("x", ESCAPED.sub("x", pattern)))

    reason = None
    if len(pattern) > LONGEST_PATTERN:
        reason = f"of {len(pattern)} characters, more than {LONGEST_PATTERN}"
    elif REPEATED_GROUP.search(plain):
        reason = f"{pattern!r}, which repeats a group and may never end"
    elif len(REPEAT.findall(plain)) > MOST_REPEATS or groups > MOST_GROUPS:
        reason = f"{pattern!r}, with more than {MOST_REPEATS} repeats or {MOST_GROUPS} groups, and may take too long"
    if reason is not None:
        raise CheckpointError(f"{path}: {key} has a pattern {reason}. {MERGE_WITH_PEFT}")

    try:
        return re.compile(whole)
    except (re.error, OverflowError) as error:
        raise CheckpointError(
            f"{path}: {key} has the pattern {pattern!r}, which is no regular expression ({error}). Correct it."
        ) from error
