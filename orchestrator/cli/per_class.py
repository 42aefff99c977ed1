"""The verb that takes accuracy apart by class: confusion."""

from __future__ import annotations

import click

from orchestrator.cli.common import echo_json, echo_table, json_option

_MOST = 3  # mistakes shown per class


@click.command()
@click.argument("member", metavar="FOLDER::NAME")
@json_option
def confusion(member: str, as_json: bool) -> None:
    """Accuracy per class, and what each class is taken for, from the stored scores of an arm or a trial.

    NAME is an arm's label or id (all its seeds together), or the beginning of a trial's id. The JSON has the classes'
    names, the whole matrix, true class by predicted class, and the expected calibration error of each seed.

    \b
    longrange confusion runs/quickstart::none
    """
    import numpy as np

    from orchestrator.members import find_member
    from workloads.metrics import confusion as count
    from workloads.metrics import expected_calibration_error

    found = find_member(member)
    every = found.predictions.values()
    counts = np.sum([count(one.scores, one.labels) for one in every], axis=0)
    errors = {str(seed): expected_calibration_error(one.scores, one.labels) for seed, one in found.predictions.items()}
    given = next(iter(every)).class_names
    names = [given[label] if label < len(given) else str(label) for label in range(len(counts))]
    if as_json:
        trials = {str(seed): trial for seed, trial in found.trials.items()}
        echo_json({"trials": trials, "classes": names, "confusion": counts.tolist(), "ece": errors})
        return
    rows = []
    for label, row in enumerate(counts.tolist()):
        clips, right = sum(row), row[label]
        taken = sorted((n, -other) for other, n in enumerate(row) if n and other != label)[::-1][:_MOST]
        mistakes = ", ".join(f"{names[-other]} ({100 * n / clips:.0f} %)" for n, other in taken)
        rows.append([names[label], clips, f"{100 * right / clips:.1f}" if clips else None, mistakes or None])
    echo_table(["class", "clips", "top-1 %", "taken for"], rows)
    mean = sum(errors.values()) / len(errors)
    click.echo(f"seeds {', '.join(errors)}; expected calibration error {mean:.3f}")


VERBS = (confusion,)
