"""A script of faults: what it may say, which request it takes, and that it takes the same ones every time."""

from __future__ import annotations

from pathlib import Path

import pytest

from moonpool.settings import ConfigError
from moonpool.twin.faults import Fault, Faults, load, read_row, retry_after


def _picked(rows: list[Fault], count: int, seed: int = 0, model: str = "m") -> list[int]:
    script = Faults(rows, seed)
    return [number for number in range(1, count + 1) if script.pick("/chat/completions", model, "sk-a") is not None]


@pytest.mark.parametrize(
    ("row", "picked"),
    [
        (Fault(request=3, html=True), [3]),
        (Fault(request=[1, 4], html=True), [1, 4]),
        (Fault(every=3, html=True), [3, 6]),
        (Fault(every=2, times=2, html=True), [2, 4]),
        (Fault(times=1, html=True), [1]),
        (Fault(html=True), [1, 2, 3, 4, 5, 6]),
        (Fault(model="other", html=True), []),
        (Fault(model="m*", key="sk-?", path="*/completions", request=2, html=True), [2]),
        (Fault(path="/beta/*", html=True), []),
        (Fault(probability=0.0, html=True), []),
        (Fault(probability=1.0, html=True), [1, 2, 3, 4, 5, 6]),
    ],
)
def test_a_row_takes_the_requests_it_speaks_of(row: Fault, picked: list[int]) -> None:
    """By number, each k-th, at most so often, by path, model and key."""
    assert _picked([row], 6) == picked


def test_a_row_counts_what_fits_it() -> None:
    """The third request for one model is the third of those, whatever else came between."""
    script = Faults([Fault(model="a", request=3, html=True)])
    taken = [script.pick("/", model, "") for model in "abababa"]
    assert [at for at, row in enumerate(taken) if row is not None] == [4]


def test_the_first_row_that_fits_is_the_one_and_the_others_count_on() -> None:
    """A second row does not fall behind while the first one takes its requests."""
    first, second = Fault(request=2, html=True), Fault(every=2, refuse="busy")
    script = Faults([first, second])
    assert [script.pick("/", "m", "") for _ in range(4)] == [None, first, None, second]


def test_chance_is_the_seeds() -> None:
    """The same seed draws the same requests, another seed others, about as many as were asked for."""
    rows = [Fault(probability=0.25, html=True)]
    assert _picked(rows, 400, seed=7) == _picked(rows, 400, seed=7)
    assert _picked(rows, 400, seed=7) != _picked(rows, 400, seed=8)
    assert 60 < len(_picked(rows, 400, seed=7)) < 140


def test_a_script_is_read(tmp_path: Path) -> None:
    """Rows and a seed; a seed that was typed goes before."""
    path = tmp_path / "faults.toml"
    path.write_text('seed = 5\n[[fault]]\nrequest = 2\ncut_after = 3\nslow_ms = 1\n[[fault]]\nrefuse = "busy"\n')
    script = load(path)
    assert script.seed == 5
    assert [row.effects() for row in script.rows] == [["cut_after", "slow_ms"], ["refuse"]]
    assert load(path, 9).seed == 9


@pytest.mark.parametrize(
    ("text", "key", "sentence"),
    [
        ("[[fault]]\ncut_afer = 1\n", "fault[0].cut_afer", "did you mean cut_after?"),
        ("[[faults]]\ncut_after = 1\n", "faults", "did you mean fault?"),
        ("[[fault]]\nrequest = 1\n", "fault[0]", "not what goes wrong"),
        ("[[fault]]\ncut_after = -1\n", "fault[0]", ">= 0"),
        ('[[fault]]\nproblem = "upstream.bussy"\n', "fault[0].problem", "did you mean upstream.busy?"),
        ('[[fault]]\nrefuse = "maybe"\n', "fault[0]", "maybe"),
        ("[[fault]\n", "", "is not TOML"),
    ],
)
def test_what_is_wrong_is_said_with_file_key_and_the_nearest_name(
    tmp_path: Path, text: str, key: str, sentence: str
) -> None:
    """Nothing unknown is passed over."""
    path = tmp_path / "faults.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert (caught.value.file, caught.value.key) == (str(path), key)
    assert sentence in str(caught.value)


def test_zero_events_are_an_effect() -> None:
    """`after 0` is something that happens, where a number that was not given is not."""
    assert read_row({"stall_after": 0}).effects() == ["stall_after"]
    assert read_row({"rate_limit": ""}).effects() == ["rate_limit"]


def test_a_date_is_made_of_the_clock() -> None:
    """`now+N` becomes the date that HTTP wants; anything else goes out as it stands."""
    assert retry_after("now+60", 0.0) == "Thu, 01 Jan 1970 00:01:00 GMT"
    assert retry_after("-1", 0.0) == "-1"
