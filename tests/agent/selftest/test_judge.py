"""The limits by which figures are judged; test_examine.py has each fault in its row."""

from __future__ import annotations

import pytest

from agent.selftest.judge import ERROR_LIMITS, judge_failure, judge_networks, judge_workers
from tests.agent.selftest.figures import FACES, fail


@pytest.mark.parametrize("precision", ERROR_LIMITS)
def test_each_precision_has_its_limit(precision: str) -> None:
    """Just below it is right, just above it wrong; fp32 is held to float32, where TF32 would be 2e-3 off."""
    limit = ERROR_LIMITS[precision]
    for error, verdict in ((0.9 * limit, "ok"), (1.1 * limit, "bad")):
        figures = {"unet": {"finite": True, "error": error, "largest": 0.0}}
        assert judge_networks("networks", figures, precision, "cuda").verdict == verdict
    assert ERROR_LIMITS["fp32"] < 1e-3 < ERROR_LIMITS["fp16"] < ERROR_LIMITS["bf16"]


def test_two_workers_are_compared_with_one() -> None:
    """The row says how much longer both take."""
    row = judge_workers(FACES, [{**FACES, "seconds": 1.5}, {**FACES, "seconds": 1.8}])
    assert (row.verdict, "1.80 times" in row.found) == ("ok", True)


def test_a_worker_that_dies_in_a_minor_check_is_bad_and_blames_no_card() -> None:
    """An error that the check can name is a note there; the end of its process is not."""
    died = judge_failure("copies", fail("worker_died", "killed by SIGBUS", fault="worker"))
    assert (died.verdict, died.blames_card) == ("bad", False)
    assert judge_failure("copies", fail()).verdict == "note"
    assert judge_failure("speed", fail()).blames_card


def test_a_defect_of_the_program_is_no_fault_of_a_card() -> None:
    """The row is bad, but jobs go on; an error of the card's libraries, or the end of a worker, is another thing."""
    defect = judge_failure("speed", fail(message="KeyError: 'compiled'"))
    assert (defect.verdict, defect.blames_card) == ("bad", False)
    assert judge_failure("speed", fail(message="RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")).blames_card
    assert judge_failure("speed", fail("worker_stalled", "nothing for 240 s", fault="worker")).blames_card


@pytest.mark.parametrize("code", ["engine_unavailable", "weights_damaged"])
def test_what_the_installation_lacks_is_no_fault_of_a_card(code: str) -> None:
    """The row says what to install, and jobs go on."""
    row = judge_failure("speed", fail(code, "there is no ONNX Runtime", hint="pip install onnxruntime"))
    assert (row.verdict, row.advice, row.blames_card) == ("bad", "pip install onnxruntime", False)
