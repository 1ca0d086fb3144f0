"""Which token looks at which: the attention of a vision transformer, whatever library wrote it.

    with watching_attention() as watched:
        logits = network(x)
    layers = watched.of_tokens(len(x))      # of each layer N × heads × T × T, in the graph of the logits

Fused attention never shows its weights. For the time of the forward pass it is computed as it is written,
softmax(q k' / sqrt(d)) v, and softmaxes that a network computes itself are watched: one way for timm, Hugging Face,
torchvision and torch.nn alike, which changes neither a layer nor a setting.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

from underfire.core.errors import UnderfireError

Attention = Float[Tensor, "n heads t t"]  # of each row's token to each column's; rows sum to 1

_SOFTMAX = frozenset({F.softmax, torch.softmax, Tensor.softmax})
_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)
_UNUSUAL = ("bias_k", "bias_v", "add_zero_attn", "key_padding_mask", "attn_mask", "use_separate_proj_weight")
INSTEAD = "use Grad-CAM (grad-cam), which explains any network"


@contextmanager
def watching_attention() -> Iterator["WatchedAttention"]:
    """For the time of a forward pass."""
    with WatchedAttention() as watched:
        yield watched


class WatchedAttention(TorchFunctionMode):
    """What attention gave in a forward pass, in order."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: list[Tensor] = []
        self._tokens: set[int] = set()  # what linear layers saw

    def of_tokens(self, images: int) -> list[Attention]:
        """Each layer's, of all tokens to all tokens; UnderfireError says what the network computes instead."""
        square = [each for each in self._seen if each.shape[2] == each.shape[3] > 1]
        if not square:
            raise UnderfireError(
                f"Rollout needs a vision transformer, and no attention is seen in this network; {INSTEAD}."
            )
        counts = sorted({each.shape[2] for each in square})
        if len(counts) > 1 or counts[0] not in self._tokens or any(len(each) != images for each in square):
            raise UnderfireError(
                "Rollout needs attention of all tokens to all tokens in every layer; this network attends within "
                f"windows, between channels or at several resolutions, as Swin does: {INSTEAD}."
            )
        return square

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._fused(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            return self._multi_head(_MULTI_HEAD.bind(*args, **kwargs))
        if func is F.linear and (inputs := args[0] if args else kwargs["input"]).ndim == 3:
            self._tokens.add(inputs.shape[1])
        result = func(*args, **kwargs)
        return self._kept(result) if func in _SOFTMAX and result.ndim == 4 else result

    def _kept(self, attention: Tensor) -> Tensor:
        """Asked for its gradient, where no image is."""
        if torch.is_grad_enabled() and not attention.requires_grad:
            attention.requires_grad_()
        self._seen.append(attention)
        return attention

    def _fused(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """As torch documents it; of the causal and the grouped kind, which no vision transformer has, as it is."""
        if query.ndim != 4 or is_causal or enable_gqa:
            options: dict[str, Any] = {"scale": scale, "enable_gqa": enable_gqa}
            return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, **options)
        scores = query @ key.transpose(2, 3) * (query.shape[3] ** -0.5 if scale is None else scale)
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        return self._kept(scores.softmax(3)) @ value

    def _multi_head(self, call: inspect.BoundArguments) -> tuple[Tensor, Tensor | None]:
        """torch.nn.MultiheadAttention without masks, its tokens first; with masks as it is."""
        given = call.arguments
        unusual = (given.get(name) for name in _UNUSUAL)
        if given["query"].ndim != 3 or not all(each is None or each is False for each in unusual):
            return F.multi_head_attention_forward(*call.args, **call.kwargs)
        biases = (None,) * 3 if given["in_proj_bias"] is None else given["in_proj_bias"].chunk(3)
        inputs = (given[name] for name in ("query", "key", "value"))
        projected = (F.linear(*each) for each in zip(inputs, given["in_proj_weight"].chunk(3), biases, strict=True))
        query, key, value = (
            each.view(*each.shape[:2], given["num_heads"], -1).permute(1, 2, 0, 3) for each in projected
        )
        looked = self._fused(query, key, value).permute(2, 0, 1, 3).flatten(2)
        attention = self._seen[-1] if given.get("need_weights", True) else None
        if attention is not None and given.get("average_attn_weights", True):
            attention = attention.mean(1)
        return F.linear(looked, given["out_proj_weight"], given["out_proj_bias"]), attention
