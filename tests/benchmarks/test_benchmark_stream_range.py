"""The range of activations: what sums grows, what averages does not."""

from benchmarks import stream_range

SMALL = "maskconnect_digits:branches=4,fan_in=4,channels=8,connectivity=ones"


def test_a_sum_grows_by_its_inputs_in_every_module():
    total, mean = (
        stream_range.largest(f"{SMALL},aggregate={kind}", "float32", 8, 2)
        for kind in ("sum", "mean")
    )
    modules = [f"stage{stage}/block{i}" for stage in (2, 3, 4) for i in range(2)]
    assert list(total) == [*modules, "logits"]
    assert total["stage2/block0"] == mean["stage2/block0"]
    # Four times the mean of four streams.
    assert total["stage2/block1"] > 2 * mean["stage2/block1"]


def test_unknown_models_are_refused(capsys):
    assert stream_range.main(["maskconnect_digit"]) == 2
    assert "maskconnect_digits" in capsys.readouterr().err
