"""MuseV's UNet: that of Stable Diffusion 1.5, with layers along the time, a reference and a picture grafted on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from models.musev.nets.attention import GivenFrameAttention, ReferenceAttention, Scene, WordsAndPictureAttention
from models.musev.nets.temporal import TemporalAttention, TemporalConv, join_frames

GROUPS = 32
"""Of channels in each norm."""
DOWN_TYPES = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")
UP_TYPES = ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")
MAPS_OF_BLOCKS = ((1, 2, 3), (4, 5, 6), (7, 8, 9), (7, 8))
"""Which maps of the reference each block reads. The last one has 10 and 11, but was trained on 7 and 8."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides the layers of the networks.

    channels       of the four blocks
    words          width of the tokens of the text encoder
    heads          of every attention
    input_motion   temporal attention before the first block
    still_frame    the frame that is given has no time embedding, and frames have the distance `motion_speed`
    reference      attention to maps of the reference and to tokens of the picture
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    words: int = 768
    heads: int = 8
    input_motion: bool = False
    still_frame: bool = True
    reference: bool = True

    @property
    def spatial_config(self) -> dict[str, Any]:
        """The config of the network of Stable Diffusion inside."""
        return {
            "block_out_channels": self.channels,
            "cross_attention_dim": self.words,
            "attention_head_dim": self.heads,
            "down_block_types": DOWN_TYPES,
            "up_block_types": UP_TYPES,
            "norm_num_groups": GROUPS,
        }


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the network is told beside latents and timestep; items are the halves of guidance.

    words         (items, tokens, width)
    maps          of the reference: 12 and that of the middle, each (items, channels, h, w); empty without reference
    image         (items, 4, width) tokens of the picture, or None
    image_scale   their weight
    motion_speed  distance of two frames, in frames of the training videos
    """

    words: Tensor
    maps: Sequence[Tensor] = field(default=())
    image: Tensor | None = None
    image_scale: float = 1.0
    motion_speed: float = 8.0


class MotionUNet(UNet2DConditionModel):
    """Predicts the noise of a window of frames, of which the first one is given, without noise."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(**shape.spatial_config)
        self.shape, self.scene = shape, Scene()
        self.on_layer: Callable[[], None] | None = None
        first, embedding = shape.channels[0], 4 * shape.channels[0]
        self.frame_embedding = TimestepEmbedding(first, embedding)
        if shape.input_motion:
            self.transformer_in = self._make_temporal_attention(first)
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            self._add_motion(block)
        if shape.reference:
            self._add_reference()
        self._set_attention()
        for module in self.modules():
            if isinstance(module, ResnetBlock2D):
                module.skip_time_act = shape.still_frame

    def _make_temporal_attention(self, channels: int) -> TemporalAttention:
        return TemporalAttention(channels, self.shape.heads, GROUPS, 4 * self.shape.channels[0])

    def _add_motion(self, block: Any) -> None:
        block.temp_convs = nn.ModuleList(TemporalConv(resnet.out_channels, GROUPS) for resnet in block.resnets)
        attentions = getattr(block, "attentions", ())
        widths = (attention.proj_out.out_channels for attention in attentions)
        block.temp_attentions = nn.ModuleList(self._make_temporal_attention(width) for width in widths)

    def _add_reference(self) -> None:
        channels = self.shape.channels
        self.first_refer_emb_attns = ReferenceAttention(channels[0], self.shape.heads)
        self.mid_block_refer_emb_attns = ReferenceAttention(channels[-1], self.shape.heads)
        for block, numbers, width in zip(self.down_blocks, MAPS_OF_BLOCKS, channels, strict=True):
            block.refer_emb_attns = nn.ModuleList(ReferenceAttention(width, self.shape.heads) for _ in numbers)
        for name, module in self.named_modules():
            if isinstance(module, Attention) and name.endswith(".attn2") and ".attentions." in name:
                for layer in ("to_k_ip", "to_v_ip"):
                    module.add_module(layer, nn.Linear(self.shape.words, module.inner_dim, bias=False))

    def _set_attention(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, Attention) and ".attentions." in name:
                kind = GivenFrameAttention if name.endswith(".attn1") else WordsAndPictureAttention
                module.set_processor(kind(self.scene))  # type: ignore[arg-type]  # it names only its own

    def predict(self, latents: Tensor, timestep: Tensor, given: Conditions) -> Tensor:
        """Return the noise in (items, 4, frames, height, width) latents, of which the first frame is given."""
        items, _, frames = latents.shape[:3]
        time = self._embed_time(timestep, items, frames, latents.dtype)
        numbers = self._embed_frames(frames, given.motion_speed, latents)
        words = given.words.repeat_interleave(frames, dim=0)
        self.scene.frames, self.scene.image_scale = frames, given.image_scale
        self.scene.image = None if given.image is None else given.image.repeat_interleave(frames, dim=0)
        x, skips = self._go_down(join_frames(latents), time, words, numbers, given.maps)
        x = self._go_through_middle(x, time, words, numbers, given.maps)
        x = self._go_up(x, skips, time, words, numbers)
        x = self.conv_out(functional.silu(self.conv_norm_out(x)))
        return x.unflatten(0, (items, frames)).transpose(1, 2)

    def _embed_time(self, timestep: Tensor, items: int, frames: int, dtype: torch.dtype) -> Tensor:
        """Return (items x frames, n): when each frame is."""
        embedding = self.time_embedding(self.time_proj(timestep.reshape(1)).to(dtype))
        time = embedding.expand(items * frames, -1)
        if not self.shape.still_frame:
            return time
        time = functional.silu(time)
        if frames > 1:
            time = time.clone()
            time[::frames] = 0
        return time

    def _embed_frames(self, frames: int, motion_speed: float, latents: Tensor) -> Tensor:
        """Return (frames, n): which frame of the window each is."""
        numbers = torch.arange(frames, device=latents.device)
        if self.shape.still_frame:
            numbers = (numbers * motion_speed).long()
        embedding = self.frame_embedding(self.time_proj(numbers).to(latents.dtype))
        return functional.silu(embedding) if self.shape.still_frame else embedding

    def _go_down(
        self, x: Tensor, time: Tensor, words: Tensor, numbers: Tensor, maps: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        frames = len(numbers)
        x = self.conv_in(x)
        if self.shape.input_motion:
            x = self.transformer_in(x, numbers)
        if maps:
            x = self.first_refer_emb_attns(x, maps[0], frames)
        skips, blocks = [x], cast("list[Any]", self.down_blocks)
        for block, read in zip(blocks, MAPS_OF_BLOCKS, strict=True):
            layers = [*block.resnets, *(block.downsamplers or ())]
            for number, layer in enumerate(layers):
                is_resnet = number < len(block.resnets)
                x = self._run_layer(block, number, x, time, words, numbers) if is_resnet else layer(x)
                if maps:
                    x = block.refer_emb_attns[number](x, maps[read[number]], frames)
                skips.append(x)
        return x, skips

    def _go_through_middle(
        self, x: Tensor, time: Tensor, words: Tensor, numbers: Tensor, maps: Sequence[Tensor]
    ) -> Tensor:
        block: Any = self.mid_block
        x = self._run_layer(block, 0, x, time, words, numbers)
        x = block.temp_convs[1](block.resnets[1](x, time), len(numbers))
        return self.mid_block_refer_emb_attns(x, maps[-1], len(numbers)) if maps else x

    def _go_up(self, x: Tensor, skips: list[Tensor], time: Tensor, words: Tensor, numbers: Tensor) -> Tensor:
        for block in cast("list[Any]", self.up_blocks):
            for number in range(len(block.resnets)):
                x = self._run_layer(block, number, torch.cat([x, skips.pop()], dim=1), time, words, numbers)
            for upsampler in block.upsamplers or ():
                x = upsampler(x, skips[-1].shape[2:])
        return x

    def _run_layer(self, block: Any, number: int, x: Tensor, time: Tensor, words: Tensor, numbers: Tensor) -> Tensor:
        """Return x after a ResNet and what follows it: convolution in time, attention in space, attention in time."""
        if self.on_layer:
            self.on_layer()
        x = block.temp_convs[number](block.resnets[number](x, time), len(numbers))
        if number < len(block.temp_attentions):
            x = block.attentions[number](x, encoder_hidden_states=words, return_dict=False)[0]
            x = block.temp_attentions[number](x, numbers)
        return x


class ReferenceNet(UNet2DConditionModel):
    """The first half of the network of Stable Diffusion, whose maps of a picture the UNet attends to."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(**shape.spatial_config)
        for name in ("up_blocks", "conv_norm_out", "conv_act", "conv_out"):
            delattr(self, name)

    def read_maps(self, latents: Tensor, words: Tensor) -> list[Tensor]:
        """Return 12 maps and that of the middle, (items, channels, h, w), of latents (items, 4, height, width)."""
        zero = torch.zeros(len(latents), device=latents.device)
        time = self.time_embedding(self.time_proj(zero).to(latents.dtype))
        x = self.conv_in(latents)
        maps = [x]
        for block in self.down_blocks:
            given = {"encoder_hidden_states": words} if hasattr(block, "attentions") else {}
            x, found = block(hidden_states=x, temb=time, **given)
            maps += found
        middle: Any = self.mid_block
        return [*maps, middle(x, time, encoder_hidden_states=words)]
