"""Conjugate gradient, Gauss-Newton products and the line search against closed forms."""

import torch
from torch import Tensor

from metarl.learning.trust_region import conjugate_gradient, gauss_newton, line_search
from metarl.nets.distributions import DiagonalGaussian


def _positive_definite(size: int) -> Tensor:
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return root @ root.T + torch.eye(size, dtype=torch.float64)


def test_conjugate_gradient_equals_a_direct_solve() -> None:
    matrix = _positive_definite(8)
    b = torch.arange(8, dtype=torch.float64)
    x, residual = conjugate_gradient(lambda v: matrix @ v, b, iterations=16, tolerance=1e-26)
    assert torch.allclose(x, torch.linalg.solve(matrix, b), atol=1e-10)
    assert residual.norm() < 1e-10


def test_conjugate_gradient_stopped_early_says_what_is_left() -> None:
    matrix = _positive_definite(8)
    b = torch.arange(8, dtype=torch.float64)
    x, residual = conjugate_gradient(lambda v: matrix @ v, b, iterations=3)
    assert torch.allclose(residual, b - matrix @ x, atol=1e-10)
    assert residual.norm() > 1e-3


def test_conjugate_gradient_takes_as_many_iterations_as_distinct_eigenvalues() -> None:
    matrix = torch.diag(torch.tensor([1.0, 1.0, 5.0, 5.0], dtype=torch.float64))
    products = []

    def product(v: Tensor) -> Tensor:
        products.append(v)
        return matrix @ v

    b = torch.ones(4, dtype=torch.float64)
    x, _ = conjugate_gradient(product, b, iterations=10, tolerance=1e-20)
    assert len(products) == 2
    assert torch.allclose(x, b / matrix.diagonal(), atol=1e-12)


def test_conjugate_gradient_of_zero_is_zero_without_a_product() -> None:
    def fail(v: Tensor) -> Tensor:
        raise AssertionError("no product is needed")

    assert torch.equal(conjugate_gradient(fail, torch.zeros(3), iterations=5).x, torch.zeros(3))


def test_gauss_newton_equals_the_explicit_matrix() -> None:
    jacobian = torch.randn(5, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    metric = torch.arange(1, 6, dtype=torch.float64)
    x = torch.randn(3, dtype=torch.float64).requires_grad_()
    product = gauss_newton([jacobian @ x], [x], lambda t: [metric * t[0]])
    v = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    expected = jacobian.T @ (metric * (jacobian @ v))
    assert torch.allclose(product(v), expected, atol=1e-12)
    assert torch.allclose(product(2 * v), 2 * expected, atol=1e-12)  # the graph serves again


def test_gauss_newton_equals_double_backward_through_the_kl() -> None:
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    weight = torch.randn(2, 3, generator=generator, dtype=torch.float64).requires_grad_()
    log_std = torch.tensor([0.3, -0.4], dtype=torch.float64).requires_grad_()

    def distribution() -> DiagonalGaussian:
        return DiagonalGaussian(torch.tanh(inputs @ weight.T), log_std.expand(7, 2))

    now = distribution()
    old = DiagonalGaussian(now.mean.detach(), now.log_std.detach())
    v = torch.randn(8, generator=generator, dtype=torch.float64)

    kl = old.kl(distribution()).mean()
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(kl, [weight, log_std], create_graph=True)])
    assert gradient.abs().max() < 1e-12
    expected = torch.cat([g.reshape(-1) for g in torch.autograd.grad(gradient @ v, [weight, log_std])])

    product = gauss_newton(
        list(now), [weight, log_std], lambda t: [x / 7 for x in old.fisher(DiagonalGaussian(*t))]
    )
    assert torch.allclose(product(v), expected, atol=1e-12)


def test_line_search_takes_the_largest_step_that_meets_both_conditions() -> None:
    # loss x^2 from x = 1 along -4: full step gives 9, then 0.5 gives 1 (no lower), then 0.25 gives 0
    def evaluate(x: Tensor) -> tuple[float, float]:
        return float(x**2), 0.0

    kept, result = line_search(
        evaluate, torch.tensor(1.0), torch.tensor(-4.0), loss_before=1.0, max_kl=0.1, backtrack_ratio=0.5
    )
    assert kept.item() == 0.0
    assert (result.accepted, result.fraction, result.loss) == (True, 0.25, 0.0)


def test_line_search_tries_the_full_step_first() -> None:
    def evaluate(x: Tensor) -> tuple[float, float]:
        return -float(x), 0.0

    kept, result = line_search(evaluate, torch.tensor(0.0), torch.tensor(1.0), loss_before=0.0, max_kl=0.3)
    assert kept.item() == 1.0
    assert result.fraction == 1.0


def test_line_search_respects_the_trust_region() -> None:
    def evaluate(x: Tensor) -> tuple[float, float]:
        return -float(x), float(x)

    kept, result = line_search(
        evaluate, torch.tensor(0.0), torch.tensor(1.0), loss_before=0.0, max_kl=0.3, backtrack_ratio=0.5
    )
    assert kept.item() == 0.25
    assert result.kl == 0.25


def test_failed_line_search_restores_the_start() -> None:
    def evaluate(x: Tensor) -> tuple[float, float]:
        return float("nan"), 0.0

    start = torch.tensor([1.0, 2.0])
    kept, result = line_search(evaluate, start, torch.ones(2), loss_before=0.0, max_kl=1.0)
    assert kept is start
    assert (result.accepted, result.fraction, result.loss, result.kl) == (False, 0.0, 0.0, 0.0)
