"""The forms of UNet and decoder: the same function, whichever is the fastest."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.upsampling import Upsample2D
from torch import nn

from models.musetalk.inpainting.forms import (
    FORMS,
    FusedUpsample,
    LayoutGroupNorm,
    Measurement,
    NormSilu,
    ShuffledUpsample,
    arrange,
    choose_form,
    list_forms,
    measure_forms,
)
from models.musetalk.inpainting.fused_weights import optimise
from models.musetalk.inpainting.fusion import FoldedUpsample
from models.musetalk.inpainting.inpainter import Inpainter
from models.musetalk.inpainting.modules import channels_last_layout, contiguous_layout
from tests.models.musetalk import tiny_nets
from tests.models.musetalk.inpainting.meta_device import META, Recorder

CPU = torch.device("cpu")


@torch.no_grad()
@pytest.mark.parametrize("size", [(5, 7), (8, 8), (1, 1)])
def test_shuffled_upsamplers_are_the_transposed_ones(size: tuple[int, int]) -> None:
    """Every pixel, at the edges too."""
    torch.manual_seed(0)
    plain = Upsample2D(6, use_conv=True, out_channels=4)
    given = torch.randn(2, 6, *size)
    shuffled = ShuffledUpsample(FoldedUpsample(plain))
    assert torch.allclose(shuffled(given), plain(given), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_norms_that_keep_the_layout_are_the_librarys(layout: torch.memory_format) -> None:
    """The same numbers, also far from zero, and in the layout that was given."""
    norm = nn.GroupNorm(4, 16)
    norm.weight.uniform_(0.5, 2)
    norm.bias.uniform_(-1, 1)
    given = (torch.randn(2, 16, 6, 5) + 30).contiguous(memory_format=layout)
    found = LayoutGroupNorm(norm)(given)
    assert torch.allclose(found, norm(given), atol=2e-3)
    assert found.is_contiguous(memory_format=layout)
    assert torch.equal(LayoutGroupNorm(norm)(given.flatten(2)), norm(given.flatten(2)))


@pytest.mark.slow
def test_every_form_gives_the_same() -> None:
    """On the tiny networks; the usual form is the one to compare with."""
    found = measure_forms(optimise(tiny_nets.unet()), optimise(tiny_nets.vae()), CPU, batch=1, rounds=1)
    assert list(found) == list_forms(CPU) == [name for name in FORMS if "kernels" not in name]
    assert all(one.is_same and one.unet_ms > 0 < one.decode_ms for one in found.values())


def test_the_fastest_that_gives_the_same_is_chosen() -> None:
    """One that differs never is, and the usual one stays where little is to gain."""
    found = {"usual": Measurement(1, 3, True), "shuffled": Measurement(1, 2.9, True), "norms": Measurement(1, 1, False)}
    assert choose_form(found) == "usual"
    assert choose_form(found | {"contiguous": Measurement(1, 2.5, True)}) == "contiguous"
    assert choose_form({"usual": Measurement(1, 1, False)}) == "usual"


@pytest.mark.parametrize("name", [*FORMS, "of a later version"])
def test_an_inpainter_runs_the_form_that_it_is_told(name: str) -> None:
    """In 16 bits, and says so; one that it doesn't know is the usual one, and the published way has no other."""
    unet, vae = (tiny_nets.cast_to(torch.bfloat16, net) for net in (tiny_nets.unet(), tiny_nets.vae()))
    opened = Inpainter(unet, vae, CPU, form=name)
    form = FORMS.get(name, FORMS["usual"])
    kinds = [type(module) for net in (opened._predict, opened._decode) for module in net.modules()]
    assert (ShuffledUpsample in kinds) == (form.upsampler == "shuffled") == (FoldedUpsample not in kinds)
    assert (FusedUpsample in kinds) == (form.upsampler == "kernel")
    assert (LayoutGroupNorm in kinds) == (form.norm != "library") == (nn.GroupNorm not in kinds)
    assert (NormSilu in kinds) == (form.norm == "kernel")
    assert opened._decode.layout is (contiguous_layout if form.layout == "contiguous" else channels_last_layout)
    assert not {ShuffledUpsample, LayoutGroupNorm} & {type(module) for module in opened._encode.modules()}
    assert opened.stats().get("form", "usual") == name
    assert "form" not in Inpainter(unet, vae, CPU, form=name, plain=True).stats()
    assert "form" not in Inpainter(tiny_nets.unet(), tiny_nets.vae(), CPU, form=name).stats()


@torch.no_grad()
def test_such_norms_end_the_changes_of_layout() -> None:
    """On a card no convolution of the decoder gets channels first any more; on the meta device one sees it."""
    strays = {}
    for name in ("usual", "norms"):
        with META:
            norms = nn.Sequential(*(nn.Sequential(nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 16, 3)) for _ in "abc"))
        net = arrange(norms.half(), FORMS[name])
        given = torch.empty(2, 16, 32, 32, device=META, dtype=torch.float16)
        with Recorder() as recorder:
            net(given.contiguous(memory_format=torch.channels_last))
        strays[name] = len(recorder.strays)
    assert strays == {"usual": 3, "norms": 0}
