"""Products by either library: equal, whatever the layout, the number of matrices and the dtype."""

import itertools

import pytest
import torch
from torch.profiler import profile

from blocks import affinity, products
from blocks.products import accumulate, product

LAYOUTS = {
    "rows": lambda *size: torch.randn(*size),
    "columns": lambda g, n, m: torch.randn(g, m, n).mT,
    "part of rows": lambda g, n, m: torch.randn(g, n, m + 5)[..., 2 : m + 2],
    "part of columns": lambda g, n, m: torch.randn(g, m, n + 5).mT[:, 3 : n + 3],
}


@pytest.fixture(params=[1, 1 << 40], ids=["onednn", "mkl"], autouse=True)
def least(request, monkeypatch):
    monkeypatch.setattr(products, "_LEAST_MACS", request.param)


@pytest.mark.parametrize("g", [1, 3])
@pytest.mark.parametrize("layouts", list(itertools.product(LAYOUTS, LAYOUTS)), ids=str)
def test_product_and_sum(g, layouts):
    torch.manual_seed(0)
    a, b = LAYOUTS[layouts[0]](g, 7, 11), LAYOUTS[layouts[1]](g, 11, 5)
    exact = a.double() @ b.double()
    for room in (None, torch.full((g, 7, 5), torch.nan)):
        torch.testing.assert_close(product(a, b, room, alpha=0.5).double(), 0.5 * exact, rtol=1e-5, atol=1e-5)
    total = torch.ones(g, 9, 5)[:, 1:8]
    accumulate(total, a, b)
    torch.testing.assert_close(total.double(), 1 + exact, rtol=1e-5, atol=1e-5)


def test_the_scaling_comes_before_the_rounding():
    a, b = torch.full((1, 2, 3000), 10.0).half(), torch.full((1, 3000, 2), 10.0).half()
    assert torch.equal(product(a, b, alpha=1 / 3000).float(), torch.full((1, 2, 2), 100.0))


def test_a_sum_may_be_wider_than_its_products():
    a, b = torch.ones(1, 2, 3).bfloat16(), torch.ones(1, 3, 2).bfloat16()
    total = torch.full((1, 2, 2), 1000.0)
    accumulate(total, a, b)
    assert torch.equal(total, torch.full((1, 2, 2), 1003.0))


def test_which_matrices_run_on_onednn(monkeypatch):
    x = torch.zeros(1, 2, 2)
    assert products.fast_products(x) is torch.backends.mkldnn.is_available()
    assert not products.fast_products(x.double())
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)  # the user's switch
    assert not products._by_onednn(x, x)


@pytest.mark.parametrize(
    ("told", "family"),
    [
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 26\n", 26),
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 25\n\nvendor_id\t: AuthenticAMD\n", 25),
        ("vendor_id\t: GenuineIntel\ncpu family\t: 6\n", 0),
        ("CPU implementer\t: 0x41\n", 0),
    ],
)
def test_the_family_of_a_processor(monkeypatch, told, family):
    monkeypatch.setattr(products.Path, "read_text", lambda *_, **__: told)
    assert products._amd_family() == family


@pytest.mark.parametrize("wide", [True, False])
def test_softmax_runs_in_chunks_where_onednn_is_far_faster_and_in_the_fused_kernel_elsewhere(monkeypatch, wide):
    monkeypatch.setattr(products, "_WIDE_AMD", wide)
    monkeypatch.setattr(products, "_ONEDNN", True)
    q, k, v = torch.randn(3, 1, 1, 40, 8)
    with affinity.as_on_large_maps(), profile() as ran:
        ours = affinity.attend("softmax", q, k, v)
    names = {event.name for event in ran.events()}
    assert ("longrange::chunked_attention" in names, "aten::scaled_dot_product_attention" in names) == (wide, not wide)
    torch.testing.assert_close(ours, affinity.attend("softmax", q, k, v, implementation="reference"))
