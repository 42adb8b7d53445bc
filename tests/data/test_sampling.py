"""Sampling is a function of (seed, step, i): every image once an epoch, and no state."""

from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.data.sampling import Sampler

small = st.integers(1, 20)


@given(images=small, batch=small, seed=st.integers(0, 3), epoch=st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_every_image_is_drawn_once_an_epoch(images: int, batch: int, seed: int, epoch: int) -> None:
    sampler = Sampler(images, batch, seed)
    places = range(epoch * images, (epoch + 1) * images)
    assert sorted(sampler.image(*divmod(place, batch)) for place in places) == list(range(images))


def test_the_order_differs_between_epochs_and_seeds() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [Sampler(50, 1, seed).image(epoch * 50 + i, 0) for i in range(50)]

    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    assert order(0, 0) == order(0, 0)


def test_the_random_numbers_depend_on_seed_step_and_place_only() -> None:
    sampler = Sampler(10, 4, 7)
    draws = {(s, i): sampler.generator(s, i).random() for s in range(5) for i in range(4)}
    assert len(set(draws.values())) == 20
    assert draws[3, 2] == Sampler(99, 4, 7).generator(3, 2).random()
    assert draws[3, 2] != Sampler(10, 4, 8).generator(3, 2).random()
