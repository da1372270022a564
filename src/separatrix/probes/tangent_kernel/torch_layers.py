"""What the layers of a PyTorch module see and put out, in the form in which the kernel takes their Jacobians.

A linear, convolutional or embedding layer gives ``(inputs, gradients)``, for a weight that is applied as a matrix; a
normalisation with a scale and a shift gives their Jacobians, which are sums over positions. All other parameters are
differentiated example by example.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def applies_a_matrix(part: "torch.nn.Module") -> bool:
    """Whether :func:`inputs_as_rows` and :func:`gradients_as_rows` read the layer."""
    from torch import nn

    if isinstance(part, nn.Conv2d):
        return part.groups == 1 and part.padding_mode == "zeros" and not isinstance(part.padding, str)
    if isinstance(part, nn.Embedding):
        return part.max_norm is None and not part.scale_grad_by_freq and not part.sparse and part.padding_idx is None
    return isinstance(part, nn.Linear)


def inputs_as_rows(part: Any, seen: "torch.Tensor") -> "torch.Tensor":
    """What a layer sees at its T positions, ``(N, T, d_in)``; tokens are seen as unit vectors."""
    import torch

    if isinstance(part, torch.nn.Linear):
        return seen.reshape(len(seen), -1, part.in_features)
    if isinstance(part, torch.nn.Embedding):
        tokens = torch.nn.functional.one_hot(seen.reshape(len(seen), -1), part.num_embeddings)
        return tokens.to(part.weight.dtype)
    return torch.nn.functional.unfold(seen, part.kernel_size, part.dilation, part.padding, part.stride).mT


def gradients_as_rows(part: Any, slopes: "torch.Tensor") -> "torch.Tensor":
    """Gradients with respect to what a layer puts out, ``(N, C, ...)``, at its positions: ``(N, C, T, d_out)``."""
    import torch

    if isinstance(part, torch.nn.Conv2d):
        return slopes.flatten(3).mT
    return slopes.reshape(*slopes.shape[:2], -1, slopes.shape[-1])


def scales(part: "torch.nn.Module") -> bool:
    """Whether :func:`scale_and_shift` reads the layer: a normalisation that treats every example alone."""
    from torch import nn

    if isinstance(part, nn.modules.batchnorm._BatchNorm):
        return not part.training and part.affine and part.running_mean is not None
    if isinstance(part, nn.LayerNorm):
        return part.elementwise_affine
    return isinstance(part, nn.GroupNorm) and part.affine


def scale_and_shift(part: Any, seen: "torch.Tensor", slopes: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Jacobians of the scale and of the shift, ``(N, C, p)``.

    Parameters
    ----------
    part
        The layer.
    seen
        Its input, ``(N, ...)``.
    slopes
        Gradient of each output with respect to what it puts out, ``(N, C, ...)``.
    """
    from torch.nn import LayerNorm, functional
    from torch.nn.modules.batchnorm import _BatchNorm

    if isinstance(part, LayerNorm):
        normal = functional.layer_norm(seen, part.normalized_shape, eps=part.eps)
        size = part.weight.numel()
        add = lambda a: a.reshape(*a.shape[:2], -1, size).sum(2)  # noqa: E731
    else:
        if isinstance(part, _BatchNorm):
            normal = functional.batch_norm(seen, part.running_mean, part.running_var, eps=part.eps)
        else:
            normal = functional.group_norm(seen, part.num_groups, eps=part.eps)
        add = lambda a: a.flatten(3).sum(3) if a.ndim > 3 else a  # noqa: E731
    return add(slopes * normal[:, None]), add(slopes)
