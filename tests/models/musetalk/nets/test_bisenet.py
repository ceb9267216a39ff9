"""The face parser: the numbers of the published program."""

from __future__ import annotations

import numpy as np

from models.musetalk.nets import bisenet
from models.musetalk.nets.bisenet import BiSeNet
from tests.models.musetalk.recipe import fill, golden, relative_error, synth_frame


def test_parser_gives_the_golden_classes() -> None:
    """From the picture to the class of each pixel; where two classes are as good as equal, either."""
    told = golden("11_bisenet_recipe")
    net = fill(BiSeNet(), "bisenet")
    crop = np.ascontiguousarray(told["image_rgb"][..., ::-1])
    inputs = bisenet.network_input(crop)
    assert np.abs(inputs[:, ::16, ::16].numpy() - told["input_sub"]).max() < 1e-6
    logits = net(inputs[None])[0, :, ::16, ::16].numpy()
    assert relative_error(logits, told["logits_sub"]) < 1e-4
    classes = bisenet.class_map(net, crop)
    assert classes.dtype == np.uint8
    clear = told["top2_margin"] >= 1e-3
    assert np.array_equal(classes[::2, ::2][clear], told["argmax"][::2, ::2][clear])


def test_parser_takes_crops_of_many_sizes() -> None:
    """Batches give what single crops give, in order."""
    net = fill(BiSeNet(4), "bisenet")
    crops = [synth_frame(n, side, side) for n, side in enumerate((60, 512, 700))]
    together = bisenet.class_maps(net, crops, batch=2)
    assert together.shape == (3, 512, 512)
    for crop, classes in zip(crops, together, strict=True):
        assert (bisenet.class_map(net, crop) != classes).mean() < 1e-3
    assert len(np.unique(together)) > 3
