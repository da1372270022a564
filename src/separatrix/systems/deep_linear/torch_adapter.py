"""Exact gradient noise and mode strengths of a deep linear network that is a PyTorch model.

The model is made of bias-free ``nn.Linear`` layers, all of them trained, and is only read: parameters, gradients,
training mode and random state stay as they are. Results are tensors of the model's dtype on its device; NumPy arrays
and tensors of other dtypes or devices are converted. Moments are those of one sample: multiply covariances by
:func:`separatrix.systems.deep_linear.gradient_noise.batch_factor` for a mini-batch.

The theory's loss is ``|y - W x|^2 / 2`` per sample (``loss="half-squared"``). PyTorch's ``MSELoss`` takes the mean over
the outputs and has no 1/2 (``loss="mse"``): its gradients are ``2 / d_L`` times as large and their covariances
``(2 / d_L)^2`` times, so that a learning rate ``eta`` there is ``2 eta / d_L`` in the theory.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from separatrix.systems.deep_linear import dataset_noise, gradient_noise, modewise
from separatrix.systems.deep_linear.gradient_noise import GAUSSIAN, InputLaw
from separatrix.systems.deep_linear.modewise import ModeMoments

if TYPE_CHECKING:
    import torch

Loss: TypeAlias = Literal["half-squared", "mse"]
Model: TypeAlias = "torch.nn.Module | Sequence[torch.nn.Module]"

_ALLOWED = "allowed are bias-free nn.Linear layers in an nn.Sequential, with nn.Identity between them"


def layer_weights(model: Model) -> "list[torch.Tensor]":
    """Copies of the weights ``W_1..W_L`` of a deep linear network, each ``(d_l, d_{l-1})``, outside any graph.

    Parameters
    ----------
    model
        An ``nn.Linear``, an ``nn.Sequential`` (nested or not), an ``nn.ModuleList`` or a sequence of these, in the
        order in which they act. ``nn.Identity`` is skipped.

    Raises
    ------
    ValueError
        If another kind of module, a bias, a reparametrised or a repeated layer is met, widths do not match, or layers
        differ in dtype or device: one sentence that names the module.
    ImportError
        If PyTorch is not installed.
    """
    layers = list(_linear_layers(model, "model"))
    if not layers:
        raise ValueError(f"the model has no layers: {_ALLOWED}")
    weights, seen = [], {}
    for name, weight in layers:
        if id(weight) in seen:
            raise ValueError(f"{name} has the weights of {seen[id(weight)]}: every layer must have its own")
        seen[id(weight)] = name
        if weights and weight.shape[1] != weights[-1].shape[0]:
            raise ValueError(f"{name} takes {weight.shape[1]} inputs, but the layer before it has {weights[-1].shape[0]} outputs")  # fmt: skip  # noqa: E501
        if weights and (weight.dtype, weight.device) != (weights[0].dtype, weights[0].device):
            raise ValueError(
                f"{name} is {weight.dtype} on {weight.device}, but the first layer is {weights[0].dtype} on "
                f"{weights[0].device}: all layers must agree"
            )
        weights.append(weight.detach().clone())
    return weights


def mean_gradient(
    model: Model, teacher: Any, inputs: InputLaw = GAUSSIAN, *, loss: Loss = "half-squared"
) -> "list[torch.Tensor]":
    """Gradient of the population loss for each layer, ``(d_l, d_{l-1})``: see :func:`.gradient_noise.mean_gradient`.

    Parameters
    ----------
    model
        As in :func:`layer_weights`.
    teacher
        ``M``, ``(d_L, d_0)``.
    inputs
        Law of the inputs; whitened Gaussian by default.
    loss
        ``half-squared`` or ``mse``.

    Raises
    ------
    ValueError
        If the model is refused by :func:`layer_weights`, a shape does not fit it, or the loss is unknown.
    """
    weights = layer_weights(model)
    factor = _gradient_factor(loss, weights)
    with _as_stored(weights):
        gradients = gradient_noise.mean_gradient(weights, _teacher(teacher, weights), _law(inputs, weights))
        return [factor * g for g in gradients]


def noise_traces(
    model: Model, teacher: Any, label_noise: float, inputs: InputLaw = GAUSSIAN, *, loss: Loss = "half-squared"
) -> "torch.Tensor":
    """Trace of the one-sample gradient covariance of each layer, ``(L,)``: see :func:`.gradient_noise.noise_traces`.

    Parameters
    ----------
    model
        As in :func:`layer_weights`.
    teacher
        ``M``, ``(d_L, d_0)``.
    label_noise
        Standard deviation of the label noise of each output.
    inputs
        Law of the inputs; whitened Gaussian by default.
    loss
        ``half-squared`` or ``mse``.

    Raises
    ------
    ValueError
        If the model is refused by :func:`layer_weights`, a shape does not fit it, the label noise is negative, or the
        loss is unknown.
    """
    weights = layer_weights(model)
    factor, sigma = _gradient_factor(loss, weights), _standard_deviation(label_noise)
    with _as_stored(weights):
        traces = gradient_noise.noise_traces(weights, _teacher(teacher, weights), sigma, _law(inputs, weights))
        return factor**2 * traces


def mode_strengths(model: Model, left: Any, right: Any) -> "torch.Tensor":
    """Strengths ``w_ab = u_a^T W v_b``, ``(r, r)``; the diagonal holds those of the modes.

    Parameters
    ----------
    model
        As in :func:`layer_weights`.
    left, right
        Directions ``u_a`` and ``v_b`` as columns, ``(d_L, r)`` and ``(d_0, r)``: the teacher's singular vectors.

    Raises
    ------
    ValueError
        If the model is refused by :func:`layer_weights`, or a shape does not fit it.
    """
    weights = layer_weights(model)
    with _as_stored(weights):
        u, v = _frames(left, right, weights)
        return u.mT @ gradient_noise.layer_product(weights) @ v


def mode_moments(
    model: Model,
    teacher: Any,
    left: Any,
    right: Any,
    label_noise: float,
    inputs: InputLaw = GAUSSIAN,
    *,
    loss: Loss = "half-squared",
) -> ModeMoments:
    """Drift and diffusion of every mode strength, each ``(r, r)``: see :func:`.modewise.mode_moments`.

    Parameters
    ----------
    model
        As in :func:`layer_weights`.
    teacher
        ``M``, ``(d_L, d_0)``.
    left, right
        Directions ``u_a`` and ``v_b`` as columns, ``(d_L, r)`` and ``(d_0, r)``.
    label_noise
        Standard deviation of the label noise of each output.
    inputs
        Law of the inputs; whitened Gaussian by default.
    loss
        ``half-squared`` or ``mse``; time is the learning rate on this loss times the number of steps.

    Raises
    ------
    ValueError
        If the model is refused by :func:`layer_weights`, a shape does not fit it, the label noise is negative, or the
        loss is unknown.
    """
    weights = layer_weights(model)
    factor, sigma = _gradient_factor(loss, weights), _standard_deviation(label_noise)
    with _as_stored(weights):
        u, v = _frames(left, right, weights)
        moments = modewise.mode_moments(weights, _teacher(teacher, weights), u, v, sigma, _law(inputs, weights))
        return ModeMoments(
            strength=moments.strength,
            flow=factor * moments.flow,
            ito=factor**2 * moments.ito,
            variance_rate=factor**2 * moments.variance_rate,
        )


def dataset_mean_gradient(
    model: Model, inputs: Any, outputs: Any, *, loss: Loss = "half-squared"
) -> "list[torch.Tensor]":
    """Gradient of the training loss for each layer, ``(d_l, d_{l-1})``: what one full-batch backward pass gives.

    Parameters
    ----------
    model
        As in :func:`layer_weights`.
    inputs, outputs
        ``(N, d_0)`` and ``(N, d_L)``.
    loss
        ``half-squared`` or ``mse``.

    Raises
    ------
    ValueError
        If the model is refused by :func:`layer_weights`, a shape does not fit it, or the loss is unknown.
    """
    weights = layer_weights(model)
    factor = _gradient_factor(loss, weights)
    with _as_stored(weights):
        return [factor * g for g in dataset_noise.dataset_mean_gradient(weights, *_samples(inputs, outputs, weights))]


def dataset_noise_traces(model: Model, inputs: Any, outputs: Any, *, loss: Loss = "half-squared") -> "torch.Tensor":
    """Trace of the covariance of the per-sample gradients of each layer over a data set, ``(L,)``; exact.

    Parameters
    ----------
    model
        As in :func:`layer_weights`.
    inputs, outputs
        ``(N, d_0)`` and ``(N, d_L)``.
    loss
        ``half-squared`` or ``mse``.

    Raises
    ------
    ValueError
        If the model is refused by :func:`layer_weights`, a shape does not fit it, or the loss is unknown.
    """
    weights = layer_weights(model)
    factor = _gradient_factor(loss, weights)
    with _as_stored(weights):
        return factor**2 * dataset_noise.dataset_noise_traces(weights, *_samples(inputs, outputs, weights))


def dataset_mode_diffusion(
    model: Model, inputs: Any, outputs: Any, left: Any, right: Any, *, loss: Loss = "half-squared"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Flow and variance rate of the modes on a data set, ``(r,)``: see :func:`.dataset_noise.dataset_mode_diffusion`.

    Parameters
    ----------
    model
        As in :func:`layer_weights`.
    inputs, outputs
        ``(N, d_0)`` and ``(N, d_L)``.
    left, right
        Directions ``u_a`` and ``v_a`` as columns, ``(d_L, r)`` and ``(d_0, r)``.
    loss
        ``half-squared`` or ``mse``; time is the learning rate on this loss times the number of steps.

    Raises
    ------
    ValueError
        If the model is refused by :func:`layer_weights`, a shape does not fit it, or the loss is unknown.
    """
    weights = layer_weights(model)
    factor = _gradient_factor(loss, weights)
    with _as_stored(weights):
        flow, variance_rate = dataset_noise.dataset_mode_diffusion(
            weights, *_samples(inputs, outputs, weights), *_frames(left, right, weights)
        )
        return factor * flow, factor**2 * variance_rate


# -- reading the model --------------------------------------------------------------------------------------------


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError("reading a PyTorch model needs PyTorch: pip install separatrix[torch]") from error
    return torch


def _linear_layers(module: Any, name: str) -> "Iterator[tuple[str, torch.Tensor]]":
    nn = _torch().nn
    kind = type(module)
    # Subclasses may compute something else, so what counts is the forward pass. Spectral or weight norm and pruning
    # keep it, but take the weight out of the parameters: the gradients are then those of something else.
    forward = getattr(kind, "forward", None)
    if forward is nn.Sequential.forward or isinstance(module, (list, tuple, nn.ModuleList)):
        for i, part in enumerate(module):
            yield from _linear_layers(part, f"{name}[{i}]")
    elif forward is nn.Linear.forward and "weight" in module._parameters:
        if module.bias is not None:
            raise ValueError(f"{name} is an nn.Linear with a bias: {_ALLOWED}")
        if isinstance(module, nn.LazyLinear):
            raise ValueError(f"{name} is an nn.LazyLinear without weights yet: pass a batch through the model first")
        yield name, module.weight
    elif forward is not nn.Identity.forward:
        what = "a reparametrised nn.Linear" if forward is nn.Linear.forward else f"of type {kind.__name__}"
        raise ValueError(f"{name} is {what}: {_ALLOWED}")


# -- arguments beside the model -----------------------------------------------------------------------------------


@contextmanager
def _as_stored(weights: "list[torch.Tensor]") -> Iterator[None]:
    """No graph, new tensors on the model's device, and no lower precision than the model's own."""
    torch = _torch()
    device = weights[0].device
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(device)
        if device.type in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        yield


def _gradient_factor(loss: Loss, weights: "list[torch.Tensor]") -> float:
    """Gradient of the loss over that of ``|y - W x|^2 / 2``."""
    if loss not in ("half-squared", "mse"):
        raise ValueError(f"loss must be 'half-squared' or 'mse', got {loss!r}")
    return 1.0 if loss == "half-squared" else 2 / weights[-1].shape[0]


def _standard_deviation(label_noise: float) -> float:
    if not 0 <= label_noise < float("inf"):
        raise ValueError(f"label_noise must be a standard deviation, finite and not negative, got {label_noise}")
    return float(label_noise)


def _law(inputs: InputLaw, weights: "list[torch.Tensor]") -> InputLaw:
    if inputs.covariance is None:
        return inputs
    d_in = weights[0].shape[1]
    return replace(inputs, covariance=_tensor("the covariance of the inputs", inputs.covariance, (d_in, d_in), weights))


def _teacher(teacher: Any, weights: "list[torch.Tensor]") -> "torch.Tensor":
    return _tensor("teacher", teacher, (weights[-1].shape[0], weights[0].shape[1]), weights)


def _frames(left: Any, right: Any, weights: "list[torch.Tensor]") -> "tuple[torch.Tensor, torch.Tensor]":
    u = _tensor("left", left, (weights[-1].shape[0], "modes"), weights)
    return u, _tensor("right", right, (weights[0].shape[1], u.shape[1]), weights)


def _samples(inputs: Any, outputs: Any, weights: "list[torch.Tensor]") -> "tuple[torch.Tensor, torch.Tensor]":
    x = _tensor("inputs", inputs, ("samples", weights[0].shape[1]), weights)
    if len(x) == 0:
        raise ValueError("inputs must have at least one sample")
    return x, _tensor("outputs", outputs, (len(x), weights[-1].shape[0]), weights)


def _tensor(name: str, value: Any, shape: Sequence[int | str], weights: "list[torch.Tensor]") -> "torch.Tensor":
    """``value`` like the weights, after a check of its shape; words in ``shape`` stand for any number."""
    torch = _torch()
    if not isinstance(value, torch.Tensor):
        value = torch.from_numpy(np.array(value, np.float64, order="C"))  # a copy: views may be read-only or reversed
    if value.ndim != len(shape) or any(isinstance(d, int) and d != n for d, n in zip(shape, value.shape, strict=True)):
        raise ValueError(f"{name} must have shape ({', '.join(map(str, shape))}), got {tuple(value.shape)}")
    return value.detach().to(weights[0].dtype).to(weights[0].device)
