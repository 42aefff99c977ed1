"""Printed formulas against what the code counts, as polynomial identities.

The code is evaluated at as many integer points as a polynomial of the declared degrees has coefficients, the polynomial
through them is formed with sympy, one more point checks the degrees, and the printed formula is subtracted. Zero is a
proof for every size, given those degrees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import sympy

from orchestrator.audit.verdicts import Verdict

Values = Mapping[str, int]


class Finding(NamedTuple):
    """A formula's verdict: what the code counts, as an expression, and why."""

    reproduced: str
    verdict: Verdict
    reason: str


class Axis(NamedTuple):
    """A variable of a formula: its symbol, the degree up to which it occurs, and a unit its values are multiples of."""

    symbol: str
    degree: int
    unit: int = 1


def polynomial(code: Callable[[Values], int], axes: Sequence[Axis]) -> sympy.Expr:
    """The polynomial that `code` is, in the variables of `axes`.

    Raises:
        ValueError: a point off the grid shows that a degree is higher than declared.
    """
    grids = [[axis.unit * step for step in range(1, axis.degree + 2)] for axis in axes]
    symbols = [sympy.Symbol(axis.symbol) for axis in axes]
    total: sympy.Expr = sympy.Integer(0)
    for point in product(*grids):
        weight: sympy.Expr = sympy.Integer(1)
        for symbol, grid, at in zip(symbols, grids, point, strict=True):
            for other in grid:
                weight *= sympy.Rational(1) if other == at else (symbol - other) / sympy.Integer(at - other)
        total += code(dict(zip((axis.symbol for axis in axes), point, strict=True))) * weight
    found = sympy.expand(total)
    beyond = {axis.symbol: axis.unit * (axis.degree + 2) for axis in axes}
    if found.subs(beyond) != code(beyond):
        raise ValueError(f"the count is no polynomial of degrees {[tuple(axis[:2]) for axis in axes]}")
    return found


def same(printed: str, counted: sympy.Expr, **values: int) -> bool:
    """Whether the printed formula equals the counted polynomial for all sizes."""
    return bool(sympy.expand(parse(printed, **values) - counted) == 0)


def parse(printed: str, **values: int) -> sympy.Expr:
    """A formula as printed in the CSV; `values` are put in for symbols."""
    text = printed.replace("^", "**").replace("C'", "c")
    names = {name: sympy.Symbol(name) for name in ("m", "n", "C", "c", "N", "H", "W", "k", "s", "g1", "g2")}
    return sympy.sympify(text, locals=names).subs({sympy.Symbol(key): value for key, value in values.items()})


# --- the code's side -------------------------------------------------------------------------------------------------


@cache
def _closed(name: str, fields: tuple[tuple[str, Any], ...], shape: tuple[int, int, int, int]) -> Any:
    from blocks import parse_config
    from blocks.configs import Shape
    from blocks.registry import closed_form

    return closed_form(parse_config({"name": name, **dict(fields)}), Shape(*shape))


def closed(name: str, shape: tuple[int, int, int, int], **fields: Any) -> Any:
    """`Cost` of a block by its closed form, at one clip of `shape`."""
    return _closed(name, tuple(sorted(fields.items())), shape)


@cache
def hgnl_operations(m: int, n: int, reduction: int, g1: int, g2: int, softmax: bool) -> dict[str, int]:
    """Multiplies plus adds of every step of an HG-NL aggregator on n frame features, from a run on the meta device.

    Keys: `wqf`, `wkf`, `wvf` (the convolutions, bias included), `qtk`, `va` (the two products).
    """
    import torch

    from blocks import build, parse_config
    from blocks.configs import Shape
    from workloads.counting import executed
    from workloads.counting.rules import hooked, module_operations

    affinity = "softmax" if softmax else "relu"
    given = {"name": "hgnl", "reduction": reduction, "g1": g1, "g2": g2, "affinity": affinity}
    config = parse_config({**given, "implementation": "reference"})
    found: dict[str, int] = {}
    with torch.device("meta"):
        block = build(config, Shape(m, n, 1, 1)).eval()
        x = torch.empty(1, m, n, 1, 1)
        for part in ("q", "k", "v"):
            for layer in hooked(block.get_submodule(part)):
                layer.register_forward_hook(
                    lambda module, inputs, output, part=part: found.update(
                        {f"w{part}f": module_operations(module, inputs[0].shape, output.shape)["hgnl"]}
                    )
                )
        products = executed.count({"": [block]}, x, "HG-NL")[""].products
    found["qtk"], found["va"] = (2 * macs - outputs for macs, outputs in products)
    return found


# --- the papers' formulas --------------------------------------------------------------------------------------------

# Table 2's columns: (reduction, [(g1, g2)], softmax); the HG-NL formulas are checked at two pairs of groups.
HGNL_COLUMNS = {
    "nl_m2": (2, ((1, 1),), True),
    "nl_m8": (8, ((1, 1),), True),
    "hgnl_m8": (8, ((16, 8), (8, 4)), False),
}
HGNL_STEPS = {"wqf": "wqf", "wkf": "wkf", "wvf": "wvf", "qtk_or_gmm(q,k)": "qtk", "va_or_gmm(v,a)": "va"}


def hgnl_table2(row_id: str, printed: str) -> Finding:
    """One formula of HG-NL's Table 2."""
    step, _, column = row_id.removeprefix("hgnl_T2_").rpartition("_nl_m" if "_hgnl_" not in row_id else "_hgnl_m")
    column = ("nl_m" if "_hgnl_" not in row_id else "hgnl_m") + column
    reduction, groups, softmax = HGNL_COLUMNS[column]
    counted: list[sympy.Expr] = []
    for g1, g2 in groups:

        def code(at: Values, g1: int = g1, g2: int = g2) -> int:
            return hgnl_operations(at["m"], at["n"], reduction, g1, g2, softmax)[HGNL_STEPS[step]]

        counted.append(polynomial(code, [Axis("m", 2, 128), Axis("n", 2)]))
        if not same(printed, counted[-1], g1=g1, g2=g2):
            return Finding(str(counted[-1]), "not reproduced", f"differs at g1={g1}, g2={g2}")
    at = " and ".join(f"g1={g1}, g2={g2}" for g1, g2 in groups)
    proof = "identical for all m and n" + (f", at {at}" if len(groups) > 1 else "")
    return Finding(str(counted[0]), "exact", f"{proof}: multiplies and adds, biases included")


def hgnl_text(row_id: str, printed: str) -> Finding:
    """The "about" formulas of section 2.1.2: they are Table 2's sums with 1024^2 taken as 10^6."""
    column = {"hgnl_text_conv_nl_m2": "nl_m2", "hgnl_text_conv_nl_m8": "nl_m8", "hgnl_text_conv_hgnl": "hgnl_m8"}[
        row_id
    ]
    reduction, groups, softmax = HGNL_COLUMNS[column]
    counted: list[sympy.Expr] = []
    for g1, g2 in groups:

        def code(at: Values, g1: int = g1, g2: int = g2) -> int:
            steps = hgnl_operations(1024, at["n"], reduction, g1, g2, softmax)
            return steps["wqf"] + steps["wkf"] + steps["wvf"]

        counted.append(polynomial(code, [Axis("n", 1)]))
        about = parse(printed.replace("1e6", "1000000"), g1=g1, g2=g2)
        if sympy.simplify(counted[-1] / about - sympy.Rational(1024**2, 10**6)) != 0:
            return Finding(str(counted[-1]), "not reproduced", f"differs at g1={g1}, g2={g2}")
    return Finding(str(counted[0]), "explained", '"about": exactly this with 1024^2 for 10^6 (4.9 % more)')


def bat_table1(row_id: str, printed: str) -> Finding:
    """BAT's Table 1. The caption's C = D / 2 contradicts the formulas, which hold for C = D, the input's width."""
    why = "holds when C is the block's input width D; the caption says C = D/2"
    if row_id == "BAT-T1-NL-flops":
        counted = polynomial(_nl_flops, [Axis("C", 2, 2), Axis("H", 2), Axis("W", 2)])
        exact, rest = same(printed, counted), sympy.Integer(0)
    elif row_id == "BAT-T1-NL-params":
        counted = polynomial(lambda at: int(closed("nl", (at["C"], 1, 2, 2)).params), [Axis("C", 2, 2)])
        rest = sympy.expand(counted - parse(printed))
        exact = sympy.degree(rest, sympy.Symbol("C")) < 2
    elif row_id == "BAT-T1-BAT-params":
        return _bat_params(printed, why)
    else:
        counted, rest = _bat_flops(k=4, s=3), sympy.Integer(0)
        exact = all(same(printed, _bat_flops(k, s), c=k, k=k, s=s) for k, s in ((2, 2), (4, 3)))
    if not exact:
        return Finding(str(counted), "not reproduced", "the polynomials differ")
    left_out = f"; left out: {rest} (biases, BatchNorm)" if rest != 0 else ""
    return Finding(str(counted), "explained", why + left_out)


def _nl_flops(at: Values) -> int:
    return int(closed("nl", (at["C"], 1, at["H"], at["W"])).macs)


def _bat_flops(k: int, s: int) -> sympy.Expr:
    def code(at: Values) -> int:
        return int(closed("bat", (at["C"], 1, s * at["H"], s * at["W"]), k=k, s=s, temporal=False).macs)

    counted = polynomial(code, [Axis("C", 2, 2 * k), Axis("H", 2), Axis("W", 2)])
    scaled = {sympy.Symbol(side): sympy.Symbol(side) / s for side in ("H", "W")}
    return sympy.expand(counted.subs(scaled))


def _bat_params(printed: str, why: str) -> Finding:
    rests, counted = [], sympy.Integer(0)
    for k, s in ((2, 2), (4, 3), (4, 7)):

        def code(at: Values, k: int = k, s: int = s) -> int:
            return int(closed("bat", (at["C"], 1, s, s), k=k, s=s, temporal=False).params)

        counted = polynomial(code, [Axis("C", 2, 2 * k)])
        rests.append(sympy.expand(counted - parse(printed, c=k, k=k, s=s)))
    if any(sympy.degree(rest, sympy.Symbol("C")) > 1 for rest in rests):
        return Finding(str(counted), "not reproduced", "the polynomials differ")
    return Finding(str(counted), "explained", f"{why}; left out: {rests[-1]} at k=C'=4, s=7 (biases, BatchNorm)")


def _pnl_dependencies(n: int) -> sympy.Expr:
    """Cost of all scales, in C and N, from the closed form of the concatenating module at maps that 2^(n-1) divides."""
    side = 2 ** (n - 1)

    def code(at: Values) -> int:
        return int(closed("pnl", (at["C"], at["T"], side, side), n=n, combine="concat").macs)

    counted = polynomial(code, [Axis("C", 2, 2 * n), Axis("T", 2)])
    return sympy.expand(counted.subs(sympy.Symbol("T"), sympy.Symbol("N") / side**2))


def pnl_equation(row_id: str, printed: str) -> Finding:
    """PNL's equations 4 to 9 and the n = 2 case."""
    c, n = sympy.symbols("C N")
    nl = polynomial(lambda at: int(closed("nl", (at["C"], at["N"], 1, 1)).macs), [Axis("C", 2, 2), Axis("N", 2)])
    products = polynomial(
        lambda at: int(closed("nl", (at["C"], at["N"], 1, 1)).product_macs), [Axis("C", 2, 2), Axis("N", 2)]
    )
    scales = {k: _pnl_dependencies(k) for k in (2, 4)}
    quarter = {k: sum(sympy.Rational(1, 4**i) for i in range(k)) for k in scales}
    sixteenth = {k: sum(sympy.Rational(1, 16**i) for i in range(k)) for k in scales}
    right = all(
        sympy.expand(scales[k] - (quarter[k] / k**2 * 2 * c**2 * n + sixteenth[k] / k * c * n**2)) == 0 for k in scales
    )
    inherits = "C^3 should be C^2 (eq. 4), and 1/n^3 then 1/n^2; the N^2 terms are right"
    findings = {
        "PNL-Eq4": (
            nl - products,
            nl - products == 2 * c**2 * n,
            "four maps C x C/2 over N positions: 2 C^2 N, not 2 C^3 N",
        ),
        "PNL-Eq5": (products / 2, same("1/2*C*N^2", products / 2), ""),
        "PNL-Eq6": (nl, sympy.expand(nl - 2 * c**2 * n - c * n**2) == 0, "inherits C^3 for C^2 from eq. 4"),
        "PNL-Eq7": (scales[2], right, ""),
        "PNL-Eq8": (scales[2], right, inherits),
        "PNL-Eq9": (scales[4], right, inherits),
        "PNL-n2": (scales[2], right, "with C^2 in eq. 4 it is 5/16 * 2 C^2 N + 17/32 C N^2; 17/32 is right"),
    }
    counted, holds, slip = findings[row_id]
    if not holds:
        return Finding(str(sympy.expand(counted)), "not reproduced", "the polynomials differ")
    if slip:
        return Finding(str(sympy.expand(counted)), "explained", slip)
    proved = "identical for all C and N" if row_id == "PNL-Eq5" else "where 2^k divides H and W; rounded down elsewhere"
    return Finding(str(sympy.expand(counted)), "exact", proved)


def check(paper: str, row_id: str, printed: str) -> Finding | None:
    """The finding for a printed formula; None for a formula that is no polynomial of ours."""
    if row_id.startswith("hgnl_T2_"):
        return hgnl_table2(row_id, printed)
    if row_id.startswith("hgnl_text_conv"):
        return hgnl_text(row_id, printed)
    if row_id.startswith("BAT-T1-"):
        return bat_table1(row_id, printed)
    return pnl_equation(row_id, printed) if paper == "pnl" else None
