"""The tangent map of SGD in PyTorch, carried along a training that goes on as it would without.

SGD is linear in the gradient, the parameters and the momentum, so that one rule serves twice: applied to these it is
the step, and applied to ``(H dtheta, dtheta, dv)``, with the Hessian H of the batch, it is the step's derivative.
Without extras, ``dv' = mu dv + (H + w) dtheta`` and ``dtheta' = dtheta - eta dv'``: a Hessian product for each
direction and step, no second run and no floating-point floor. The step of the rule is compared with the training's.

Batch normalisation in training mode is differentiated through the statistics of the batch; its running statistics, like
all buffers, are not perturbed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from separatrix.probes.operators import ProbeError
from separatrix.probes.torch_graphs import full_precision

if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor
else:
    Tensor = Any

#: ``loss(model, batch)``: what the training step takes the gradient of, a scalar tensor.
BatchLoss = Callable[[Any, Any], Any]

#: Share of a step by which the training may miss the rule: products in short formats, another order of sums.
_TOLERANCE = 0.01


def trained(model: "torch.nn.Module") -> "list[torch.nn.Parameter]":
    """Parameters that can be perturbed."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def refuse_narrow(model: "torch.nn.Module") -> None:
    """Raise ProbeError if parameters are too short for a perturbation that is small."""
    for parameter in trained(model):
        if parameter.dtype.itemsize < 4:
            raise ProbeError(
                f"parameters in {parameter.dtype} carry no small perturbation: train a copy of the model in float32"
            )


class TorchTangent:
    """Perturbations of vanishing size of the parameters of a run, which begin with no perturbation of the momentum.

    ``with tangent.following(batch): ...`` around each training step carries them along; the run keeps its bits.

    Parameters
    ----------
    model, optimizer
        The run, as the training step changes it; only read. Settings of the optimiser are looked up at each step:
        learning rates of its groups, weight decay, momentum, dampening, Nesterov's momentum, ``maximize``.
    loss
        ``loss(model, batch)``.
    directions
        K perturbations of norm 1: arrays for the parameters with ``requires_grad``, in the order of the module
        (:func:`.perturbation.random_direction`).

    Raises
    ------
    ProbeError
        If the optimiser is not ``torch.optim.SGD``, it trains parameters that are not the model's, or parameters have
        less than 32 bits.
    """

    def __init__(
        self,
        model: "torch.nn.Module",
        optimizer: "torch.optim.Optimizer",
        loss: BatchLoss,
        directions: Sequence[Sequence[np.ndarray]],
    ) -> None:
        import torch

        refuse_narrow(model)
        if not isinstance(optimizer, torch.optim.SGD):
            raise ProbeError(
                f"the tangent map is that of torch.optim.SGD, got {type(optimizer).__name__}: Adam and its like divide "
                "by the root of a running mean, which has no derivative at zero"
            )
        self._model, self._optimizer, self._loss = model, optimizer, loss
        self._parameters = trained(model)
        known = {id(p) for p in model.parameters()}
        if any(id(p) not in known for group in optimizer.param_groups for p in group["params"]):
            raise ProbeError("the optimizer trains parameters that are not the model's")
        self._moved = [
            torch.stack([torch.from_numpy(np.asarray(way[i])).to(p) for way in directions])
            for i, p in enumerate(self._parameters)
        ]
        self._turned = [torch.zeros_like(moved) for moved in self._moved]
        self._log = np.zeros(len(directions))

    @property
    def growth(self) -> Float[np.ndarray, " K"]:
        """Logarithm of the length of each perturbation, which was 1 at the start; ``-inf`` for one that is gone."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._log + np.log(self._lengths())

    @contextmanager
    def following(self, batch: Any) -> Iterator[None]:
        """Carry the perturbations over the training step on ``batch`` that is made inside.

        Raises
        ------
        ProbeError
            If the loss is no scalar tensor, or the step moved the parameters by something else than SGD on this loss.
        """
        import torch

        devices = {p.device for p in self._parameters if p.device.type == "cuda"}
        with torch.random.fork_rng(devices=devices), torch.enable_grad(), full_precision(), _buffers_kept(self._model):
            slopes = self._slopes(batch)
        with torch.no_grad():
            expected, length = self._advance(slopes)
        yield
        self._check(expected, length)

    def _slopes(self, batch: Any) -> dict[int, tuple[Tensor, Tensor]]:
        """Gradient, and its change along all perturbations, by each parameter that the loss depends on."""
        import torch

        value = self._loss(self._model, batch)
        if not isinstance(value, torch.Tensor) or value.ndim or not value.requires_grad:
            raise ProbeError("loss(model, batch) must be a scalar tensor that depends on the trained parameters")
        made = torch.autograd.grad(value, self._parameters, create_graph=True, allow_unused=True)
        slopes = {i: slope for i, slope in enumerate(made) if slope is not None}
        # a slope that depends on no parameter (a loss linear in them) has no graph and no curvature
        curved = {i: slope for i, slope in slopes.items() if slope.requires_grad}
        changes = {i: torch.zeros_like(self._moved[i]) for i in slopes}
        for k in range(len(self._log) if curved else 0):
            products = torch.autograd.grad(
                list(curved.values()), [self._parameters[i] for i in slopes], [self._moved[i][k] for i in curved],
                retain_graph=True, allow_unused=True,
            )  # fmt: skip
            for change, product in zip(changes.values(), products, strict=True):
                if product is not None:
                    change[k] = product
        return {i: (slope.detach(), changes[i]) for i, slope in slopes.items()}

    def _advance(self, slopes: Mapping[int, tuple[Tensor, Tensor]]) -> tuple[list[Tensor], float]:
        """Move the perturbations; the parameters that are expected after the step, and its length."""
        expected = [p.detach().clone() for p in self._parameters]
        steps = []
        groups = {id(p): group for group in self._optimizer.param_groups for p in group["params"]}
        for i, (slope, curved) in slopes.items():  # SGD leaves alone what has no gradient
            p = self._parameters[i]
            if id(p) not in groups:
                continue
            momentum = self._optimizer.state[p].get("momentum_buffer") if p in self._optimizer.state else None
            step, _ = _sgd(groups[id(p)], slope, p.detach(), momentum)
            expected[i] += step
            steps.append(step)
            before = None if momentum is None else self._turned[i]
            step, after = _sgd(groups[id(p)], curved, self._moved[i], before)
            self._moved[i] += step
            self._turned[i] = self._turned[i] if after is None else after
        lengths = self._lengths()
        lengths[lengths == 0] = 1.0
        self._log += np.log(lengths)
        for part in (*self._moved, *self._turned):
            part /= _column(lengths, part)
        return expected, _norm(steps)

    def _lengths(self) -> Float[np.ndarray, " K"]:
        return np.array([_norm([moved[k] for moved in self._moved]) for k in range(len(self._log))])

    def _check(self, expected: list[Tensor], length: float) -> None:
        import torch

        with torch.no_grad():
            away = _norm([p - e for p, e in zip(self._parameters, expected, strict=True)])
        rounding = max(torch.finfo(p.dtype).eps for p in self._parameters) * _norm(expected)
        if away > _TOLERANCE * length + rounding:  # a run that blew up is no mistake, and compares as false
            raise ProbeError(
                f"the training step missed that of SGD on the given loss by {away:.2g}, where the latter has length "
                f"{length:.2g}: clipping, averaging or another loss is not in the settings of the optimizer"
            )


def _sgd(group: Mapping[str, Any], slope: Tensor, position: Tensor, momentum: Any) -> tuple[Tensor, Any]:
    """Change of a parameter and its new momentum, as ``torch.optim.SGD`` has them; linear in all three."""
    slope = -slope if group["maximize"] else slope
    slope = slope + group["weight_decay"] * position
    if group["momentum"]:
        # the first gradient starts the momentum undamped
        momentum = slope if momentum is None else group["momentum"] * momentum + (1 - group["dampening"]) * slope
        slope = slope + group["momentum"] * momentum if group["nesterov"] else momentum
    return -group["lr"] * slope, momentum


def _norm(parts: Sequence[Tensor]) -> float:
    """Euclidean norm over all of the tensors, in float64."""
    import torch

    return float(np.linalg.norm([float(torch.linalg.vector_norm(part, dtype=torch.float64)) for part in parts]))


def _column(values: np.ndarray, like: Tensor) -> Tensor:
    """K numbers that divide a tensor ``(K, ...)``."""
    import torch

    return torch.from_numpy(values).to(like).reshape(-1, *(1,) * (like.ndim - 1))


@contextmanager
def _buffers_kept(model: "torch.nn.Module") -> Iterator[None]:
    """Running statistics that a forward pass writes are put back."""
    import torch

    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)
