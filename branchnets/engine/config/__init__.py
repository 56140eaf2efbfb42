"""Configs, all in one place: `from branchnets.engine import config`.

A config file holds a function `get_config(arg=None)` that starts from `base()`; the command line
names the file and overrides its fields; `resolve` derives what depends on several of them.
"""

from __future__ import annotations

from branchnets.engine.config.fields import base, parse_arg, smoke
from branchnets.engine.config.loading import (
    CommandLine,
    apply_overrides,
    arguments,
    flatten,
    load,
    parse_command_line,
)
from branchnets.engine.config.resolve import (
    MAY_CHANGE,
    Resolved,
    changes,
    diff,
    from_plain,
    has_whole_groups,
    plain,
    resolve,
    spread_groups,
    validate,
)
from branchnets.errors import ConfigError

__all__ = [
    "MAY_CHANGE",
    "CommandLine",
    "ConfigError",
    "Resolved",
    "apply_overrides",
    "arguments",
    "base",
    "changes",
    "diff",
    "flatten",
    "from_plain",
    "has_whole_groups",
    "load",
    "parse_arg",
    "parse_command_line",
    "plain",
    "resolve",
    "smoke",
    "spread_groups",
    "validate",
]
