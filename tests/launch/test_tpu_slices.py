"""Slices made and deleted, as a stand-in for gcloud sees it: also where the cloud refuses."""

import ast

import pytest

QUOTA = (
    "RESOURCE_EXHAUSTED: Quota limit 'TPUV3PreemptiblePerProjectPerZoneForTPUAPI' has been"
    " exceeded. Limit: 0 in zone z."
)
CAPACITY = 'There is no more capacity in the zone "z"; you can try in another zone'
TYPE = "--accelerator-type=v3-8"


def test_a_slice_on_demand(cloud):
    assert "READY" in cloud.ok("create", TYPE, "--project=p")
    assert cloud.calls("create") == [
        ["tpu-vm", "create", "pod", TYPE, "--version=tpu-ubuntu2204-base"]
        + ["--zone=z", "--project=p", "--quiet"]
    ]
    assert cloud.read("slice") == "READY"


def test_every_type_has_its_image(cloud):
    for kind, image in {
        "v2-8": "tpu-ubuntu2204-base",
        "v4-64": "tpu-ubuntu2204-base",
        "v5litepod-16": "v2-alpha-tpuv5-lite",
        "v5p-8": "v2-alpha-tpuv5",
        "v6e-8": "v2-alpha-tpuv6e",
    }.items():
        assert f"--version={image} " in cloud.ok(
            "create", f"--accelerator-type={kind}", "--dry-run"
        )


def test_a_slice_that_is_there_is_not_made_again(cloud):
    """Nor is it forgotten how much of its log is kept; that of a new one begins anew."""
    cloud.ok("create", TYPE)
    lines = cloud.folder / "state/p/z/pod/log_lines"
    lines.write_text("7\0")
    cloud.ok("create", TYPE)
    assert len(cloud.calls("create")) == 1 and lines.exists()
    (cloud.folder / "slice").unlink()
    cloud.ok("create", TYPE, "--dry-run")
    assert lines.exists()
    cloud.ok("create", TYPE)
    assert len(cloud.calls("create")) == 2 and not lines.exists()


def test_what_is_there_is_remembered_as_it_was_made(cloud):
    """And waited for in the queue, though this call does not say that it was asked for there."""
    cloud.ok("create", TYPE, "--queued", "--spot", "--timeout=0", fails=1)
    made = cloud.read("state/p/z/pod/create")
    assert "--queued" in made and "--spot" in made
    events = [{}, {}, {"queue": "ACTIVE"}]
    cloud.scenario(events={"queued-resources describe": [{}] * 2 + events})
    said = cloud.ok("create", TYPE)
    assert "is there already: WAITING" in said and "READY" in said
    assert "as it was made" in cloud.ok("create", TYPE)
    assert cloud.read("state/p/z/pod/create") == made
    done = cloud.run("create", "--accelerator-type=v3-32")
    assert done.returncode == 2 and "is a v3-8, not a v3-32" in done.stderr
    assert len(cloud.calls("create")) == 1


def test_a_request_for_other_slices_is_left_alone(cloud):
    cloud.ok("create", TYPE)
    (cloud.folder / "queue").write_text("WAITING_FOR_RESOURCES")
    (cloud.folder / "nodes").write_text("pod;pod-2")
    done = cloud.run("delete", "--yes")
    assert done.returncode == 2 and "is for pod;pod-2, not for" in done.stderr
    assert not cloud.calls("delete")


def test_options_of_gcloud_are_handed_on(cloud):
    cloud.ok("create", TYPE, "--create-option=--network=net", "--create-option=--reserved")
    assert cloud.calls("create", "--network=net", "--reserved")
    assert "--create-option=--reserved\0" in cloud.read("state/p/z/pod/create")
    cloud.ok("logs", "--ssh-option=--internal-ip", "--worker=0", fails=127)  # not set up
    assert cloud.calls("ssh", "--internal-ip")
    cloud.ok("logs", "--ssh-option=--batch-size=4", fails=127)  # of the alpha track alone


def test_a_tunnel_is_asked_of_the_gcloud_that_has_it(cloud):
    """--tunnel-through-iap is in the alpha track alone; what it is not needed for is not."""
    cloud.up(1)
    cloud.ok(
        "setup", f"--archive={cloud.folder}/source.tar.gz", "--ssh-option=--tunnel-through-iap"
    )
    calls = [ast.literal_eval(line) for line in cloud.read("calls").splitlines()]
    tunnelled = [call for call in calls if "--tunnel-through-iap" in call]
    assert {call[4] for call in tunnelled} == {"ssh", "scp"}
    assert tunnelled == [call for call in calls if call[0] == "alpha"]


def test_a_flag_that_gcloud_does_not_know_creates_nothing(cloud):
    """The stand-in refuses it as gcloud does, before anything is asked for."""
    done = cloud.run("create", TYPE, "--create-option=--netwrok=net")
    assert done.returncode == 1 and "unrecognized arguments: --netwrok" in done.stderr
    assert cloud.read("slice") is None and not (cloud.folder / "state/p/z/pod/create").exists()


def test_the_project_is_that_of_gcloud_and_no_path(cloud):
    del cloud.environment["PROJECT_ID"]
    done = cloud.run("create", TYPE)
    assert done.returncode == 2 and "gcloud config set project" in done.stderr
    (cloud.folder / "project").write_text("example.com:mine")
    cloud.ok("create", TYPE)
    assert cloud.calls("tpu-vm", "create", "--project=example.com:mine")
    for wrong in ("--project=..", "--project=a/b", "--zone=../z"):
        done = cloud.run("delete", "--yes", wrong)
        assert done.returncode == 2 and wrong in done.stderr
    assert cloud.read("state/example.com:mine/z/pod/create")


def test_an_unknown_type_needs_an_image(cloud):
    done = cloud.run("create", "--accelerator-type=v9-8")
    assert done.returncode == 2 and "--version" in done.stderr and not cloud.calls()
    cloud.ok("create", "--accelerator-type=v9-8", "--version=its-image")
    assert cloud.calls("create", "--version=its-image")


@pytest.mark.parametrize(
    "refusal, advice",
    [
        (QUOTA, "console.cloud.google.com/iam-admin/quotas"),
        (CAPACITY, "--queued"),
        ("PERMISSION_DENIED: Permission 'tpu.nodes.create' denied", "TPU Admin"),
        ("INVALID_ARGUMENT: unknown accelerator", "accelerator-types list"),
    ],
)
def test_a_refusal_is_explained(cloud, refusal, advice):
    cloud.scenario(events={"tpu-vm create": [{"fail": refusal}]})
    done = cloud.run("create", TYPE, "--spot")
    assert done.returncode == 1
    assert refusal in done.stderr and advice in done.stderr
    assert cloud.calls("create", "--spot") and cloud.read("slice") is None


def test_gcloud_without_an_account_creates_nothing(cloud):
    cloud.scenario(events={"tpu-vm describe": [{"fail": "You do not have an active account"}]})
    done = cloud.run("create", TYPE)
    assert done.returncode == 1 and "active account" in done.stderr
    assert not cloud.calls("create")


def test_the_queue_is_waited_for(cloud):
    states = ["WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
    events = [{}, *({"queue": state} for state in states)]
    cloud.scenario(events={"queued-resources describe": events})
    said = cloud.ok("create", TYPE, "--queued", "--spot")
    assert cloud.calls("create") == [
        ["queued-resources", "create", "pod", "--node-id=pod", "--accelerator-type=v3-8"]
        + ["--runtime-version=tpu-ubuntu2204-base", "--spot"]
        + ["--zone=z", "--project=p", "--quiet"]
    ]
    assert said.count("WAITING_FOR_RESOURCES") == 1 and "PROVISIONING" in said
    assert cloud.read("slice") == "READY"


def test_a_wait_that_is_too_long_can_be_taken_up(cloud):
    done = cloud.run("create", TYPE, "--queued", "--timeout=0")
    assert done.returncode == 1 and "run this again" in done.stderr
    (cloud.folder / "queue").write_text("ACTIVE")
    cloud.ok("create", TYPE, "--queued")
    assert len(cloud.calls("create")) == 1


def test_a_request_that_failed_is_not_waited_for(cloud):
    cloud.scenario(events={"queued-resources describe": [{}, {"queue": "FAILED"}]})
    done = cloud.run("create", TYPE, "--queued")
    assert done.returncode == 1 and "delete.sh" in done.stderr


@pytest.mark.parametrize("queued", [False, True])
def test_delete_leaves_nothing(cloud, queued):
    """Also what the cloud itself calls UNKNOWN, which is not what gcloud cannot tell."""
    cloud.scenario(events={"queued-resources describe": [{}, {"queue": "ACTIVE"}]})
    if not queued:
        cloud.scenario()
    cloud.ok("create", TYPE, *(["--queued"] if queued else []))
    (cloud.folder / "slice").write_text("UNKNOWN")
    cloud.ok("delete", "--yes")
    assert cloud.read("slice") is None and cloud.read("queue") is None
    verb = (
        ["queued-resources", "delete", "pod", "--force"] if queued else ["tpu-vm", "delete", "pod"]
    )
    assert cloud.calls("delete") == [[*verb, "--zone=z", "--project=p", "--quiet"]]
    assert not list(cloud.folder.glob("state/p/z/*"))


def test_delete_asks_first(cloud):
    cloud.ok("create", TYPE)
    for answer in ("", "yes\n", "other\n"):
        assert cloud.run("delete", input=answer).returncode == 2
    assert not cloud.calls("delete")
    assert "the slice pod (READY, a v3-8)" in cloud.ok("delete", input="pod\n")
    assert cloud.read("slice") is None


def test_deleting_what_is_not_there_is_no_error(cloud):
    """As where somebody else deleted it; the log of its runs is kept all the same."""
    assert "nothing to delete" in cloud.ok("delete", "--yes")
    cloud.ok("create", TYPE)
    (cloud.folder / "state/p/z/pod/log").write_text("step 1\n")
    (cloud.folder / "slice").unlink()
    said = cloud.ok("delete", "--yes")
    (kept,) = cloud.folder.glob("state/p/z/*")
    assert kept.read_text() == "step 1\n" and str(kept) in said
    assert not cloud.calls("delete")


def test_a_delete_that_fails_says_that_it_may_cost(cloud):
    cloud.ok("create", TYPE)
    cloud.scenario(events={"tpu-vm delete": [{"fail": "INTERNAL: try again"}]})
    done = cloud.run("delete", "--yes")
    assert done.returncode == 1 and "cost" in done.stderr
    assert list(cloud.folder.glob("state/p/z/pod"))


def test_a_missing_project_is_not_a_missing_slice(cloud):
    refusal = "NOT_FOUND: Project 'q' was not found"
    cloud.scenario(events={"queued-resources describe": [{}] + [{"fail": refusal}] * 2})
    cloud.ok("create", TYPE)
    assert cloud.run("delete", "--yes").returncode == 1
