"""A run's labels keep their meaning: data with classes of other names is refused."""

import jax
import pytest

from branchnets import main
from branchnets.engine.rundir import RunDir
from branchnets.engine.runs import load_run
from branchnets.engine.train import train
from branchnets.errors import ConfigError

ONE = jax.devices()[:1]


def test_a_data_set_whose_classes_have_other_names_is_refused(tiny, name_classes, tmp_path, capsys):
    train(tiny(), str(tmp_path), ONE)
    command = ["main", "--mode=eval", f"--workdir={tmp_path}"]
    assert main.main([*command, "--config.data.name=digits"]) == 2
    message = "class 0 of the run is 'class_0'; that of the data set digits is '0', so its labels"
    assert message in capsys.readouterr().err
    names = RunDir(tmp_path, write=False).derived()["data"]["class_names"]
    for own, message in [
        ([*names[:3], "cat", *names[4:]], "class 3 of the run is 'cat'.*fake is 'class_3'"),
        ([*names, "cat"], "class 10 of the run is 'cat'.*fake is none at all"),
        (names[:9], "class 9 of the run is none at all.*fake is 'class_9'"),
    ]:
        name_classes(tmp_path, own)
        with pytest.raises(ConfigError, match=message):  # the run's own data, changed since
            load_run(tmp_path, devices=ONE)
    name_classes(tmp_path, None)
    assert load_run(tmp_path, devices=ONE).step == 4
    digits = RunDir(tmp_path, write=False).config()
    digits.data.name = "digits"
    assert load_run(tmp_path, config=digits, devices=ONE).dataset.name == "digits"
