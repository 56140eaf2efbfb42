"""The coding schemes that ship, and what is refused."""

import numpy as np
import pytest

from branchnets.families.coded import codes


@pytest.mark.parametrize(
    ("name", "distance", "columns"),
    [
        ("cifar10_5of10", 4, (5, 5)),
        ("cifar10_3of10", 4, (3, 3)),
        ("cifar100_8of20", 8, (40, 40)),
        ("cifar100_4of20", 4, (20, 20)),
        ("imagenet_16of32", 10, (499, 501)),
        ("imagenet_8of32", 6, (249, 251)),
        ("imagenet_24of32", 6, (749, 751)),
        ("imagenet_4of32", 4, (125, 125)),
    ],
)
def test_shipped_schemes_have_the_papers_figures(name, distance, columns):
    scheme = codes.load_scheme(name)
    assert scheme.min_distance == distance
    assert (scheme.column_sums.min(), scheme.column_sums.max()) == columns
    shape = (scheme.num_classes, scheme.branches, scheme.active)
    assert codes.scheme_for(*shape).name == name
    if name in codes.PUBLISHED:
        assert codes.PUBLISHED[name] == shape


def test_table_3_of_the_paper():
    scheme = codes.load_scheme("cifar10_5of10")
    assert "".join(map(str, scheme.codewords[0])) == "1010100011"  # airplane
    assert "".join(map(str, codes.load_scheme("cifar10_3of10").codewords[9])) == "1100000010"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1100\n1010\n1110", "same number of ones.*2 to 3"),
        ("1100\n1010\n1100", "classes 0 and 2 have one codeword"),
        ("110\n1010", "equal length"),
        ("1102\n1010", "0 and 1"),
        ("0000\n0000", "same number of ones"),
    ],
)
def test_bad_tables_are_refused_by_name(text, message):
    with pytest.raises(ValueError, match="mine.*" + message):
        codes.parse_scheme("mine", text)


def test_a_scheme_from_a_file(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("1100\n0110\n0011\n")
    scheme = codes.load_scheme(str(path))
    assert (scheme.num_classes, scheme.branches, scheme.active) == (3, 4, 2)
    assert scheme.min_distance == 2


def test_wrong_names_and_shapes_say_what_there_is():
    with pytest.raises(ValueError, match="Did you mean .cifar10_5of10"):
        codes.load_scheme("cifar10_5of1")
    with pytest.raises(ValueError, match="has 10 classes.*needs 12"):
        codes.load_scheme("cifar10_5of10").require(12, 10, 5)
    with pytest.raises(ValueError, match="no coding scheme for 7 classes"):
        codes.scheme_for(7, 10, 5)


def test_complement_keeps_distances():
    scheme = codes.load_scheme("cifar100_8of20")
    other = scheme.complement("other")
    assert other.active == 12 and other.min_distance == scheme.min_distance
    assert np.array_equal(other.codewords + scheme.codewords, np.ones((100, 20)))
