"""The table of faults: its tests exist, and it counts what they say."""

import ast
import pathlib
import xml.etree.ElementTree as xml

from benchmarks import faults

TESTS = pathlib.Path(__file__).parents[1]

REPORT = """<testsuites><testsuite>
<testcase classname="tests.a.test_b" name="test_many"><properties>
  <property name="tried" value="20"/>
  <property name="note" value="none lost"/></properties></testcase>
<testcase classname="tests.a.test_b" name="test_each[x]"/>
<testcase classname="tests.a.test_b" name="test_each[y]"><failure/></testcase>
<testcase classname="tests.a.test_b" name="test_each[z]"><skipped/></testcase>
</testsuite></testsuites>"""


def test_every_fault_has_tests_that_exist():
    for fault in faults.FAULTS:
        for test in fault.tests:
            path, _, name = test.partition("::")
            tree = ast.parse((TESTS / path).read_text())
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_tries_are_counted_from_pytests_report(tmp_path):
    (tmp_path / "report.xml").write_text(REPORT)
    found = faults.results(tmp_path / "report.xml")
    path = "a/test_b.py::"
    assert set(found) == {f"{path}test_many", f"{path}test_each"}
    assert faults.count(found[f"{path}test_many"]) == faults.Counted(20, 20, 0, ("none lost",))
    assert faults.count(found[f"{path}test_each"]) == faults.Counted(2, 1, 1, ())
    rows = faults.table(
        [
            faults.Fault("A", "B", (f"{path}test_many", f"{path}test_each")),
            faults.Fault("C", "D", (f"{path}test_gone",)),
        ],
        found,
    )
    assert rows[2:] == [
        "| A | B | 22 | 21 | none lost; 1 test(s) could not run here |",
        "| C | D | 0 | 0 | 1 test(s) not there |",
    ]
    failed = xml.fromstring(
        '<testcase><properties><property name="tried" value="9"/></properties><error/></testcase>'
    )
    assert faults.count([failed]) == faults.Counted(9, 0, 0, ())


def test_one_part_is_written_anew_and_the_other_stays():
    both = faults.page({"several": "## Several hosts\n\nb\n", "one": "## One host\n\na\n"})
    assert both.index("## One host") < both.index("## Several hosts")
    assert faults.page({"several": "## Several hosts\n\nb\n"}, both) == both
    assert faults.page({"one": "## One host\n\nc\n"}, both) == both.replace("\na\n", "\nc\n")
