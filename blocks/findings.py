"""What the contract suite found, and how it is told: every finding by itself, and one line per broken check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from blocks.configs import BlockConfig, Shape
from blocks.registry import config_dict


@dataclass(frozen=True)
class Finding:
    """One broken promise.

    Attributes:
        check: name of the check.
        block: name of the block.
        config: its config as JSON values.
        shape: the map, or None if none fits.
        message: what was expected and what came.
    """

    check: str
    block: str
    config: dict[str, Any]
    shape: Shape | None
    message: str

    def __str__(self) -> str:
        return f"{self.block} {self.check} at {self.shape} with {self.config}: {self.message}"


@dataclass(frozen=True)
class Report:
    """What became of one block.

    Attributes:
        default: the config from which the others are named.
        configs: what it was checked with.
        checks: names of the checks that ran.
        findings: everything that is wrong.
        notes: what could not be checked here, and what to do about it.
    """

    default: BlockConfig
    configs: Sequence[BlockConfig]
    checks: Sequence[str]
    findings: Sequence[Finding] = ()
    notes: Sequence[str] = ()

    @property
    def broken(self) -> dict[str, list[Finding]]:
        """Findings by check."""
        found: dict[str, list[Finding]] = {}
        for finding in self.findings:
            found.setdefault(finding.check, []).append(finding)
        return found

    def lines(self) -> list[str]:
        """One line per broken check with the configs it is broken for, and what was found in the first of them."""
        told = []
        for check, findings in self.broken.items():
            names = list(dict.fromkeys(map(self._name, findings)))
            first = [finding for finding in findings if self._name(finding) == names[0]]
            told.append(f"{check}: {len(names)} of {len(self.configs)} configs: {'; '.join(names)}")
            told += [f"    {names[0]} at {finding.shape}: {finding.message}" for finding in first]
        return told

    def to_json(self) -> dict[str, Any]:
        """For scripts: every finding with its config and map."""
        return {
            "checks": list(self.checks),
            "configs": [config_dict(config) for config in self.configs],
            "findings": [vars(finding) for finding in self.findings],
            "notes": list(self.notes),
        }

    def _name(self, finding: Finding) -> str:
        """How its config differs from the default: `heads=2`."""
        default = config_dict(self.default)
        changed = [f"{key}={value!r}" for key, value in finding.config.items() if value != default.get(key)]
        return ", ".join(changed) or "default"
