"""The way in: a clean machine, with or without make, from any folder, on any system."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

import allkit
from allkit import ROOT, AllkitError, cli
from allkit.app.drop_zone import MAX_FILES, MAX_UPLOAD
from allkit.app.page import MAX_MESSAGE
from allkit.classify import MAX_BYTES
from allkit.course import check_setup, times, tools
from allkit.data import relative_paths
from allkit.folders import run_path

README = (ROOT / "README.md").read_text(encoding="utf-8")
PICTURES = {"docs/pictures/cells.png", "docs/pictures/upload.gif"}


def call(*words: str, folder: Path, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "allkit", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=300)


# ---- commands, from any folder -----------------------------------------------------------------------------


def test_python_dash_m_is_the_command_in_any_folder(tmp_path):
    done = call("--version", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"allkit {allkit.__version__}\n")


@pytest.fixture
def steps(monkeypatch):
    """Stand in for the processes of `allkit test`: what was called, and the exit codes to return."""
    seen = SimpleNamespace(calls=[], codes={})

    def run(command, cwd, env, check):
        name = next((word for word in ("check", "format", "--no-logo", "notebooks") if word in command), "units")
        name = "format" if "format" in command else name
        seen.calls.append(SimpleNamespace(name=name, command=command, cwd=cwd, env=env))
        return SimpleNamespace(returncode=seen.codes.get(name, 0))

    monkeypatch.setattr(tools.subprocess, "run", run)
    return seen


def test_the_checks_run_in_their_order_in_the_clone_apart_from_the_users_runs(steps, monkeypatch, tmp_path):
    monkeypatch.setattr(tools, "TEST_RUNS", tmp_path / "test-runs")
    (tmp_path / "test-runs" / "latest").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert tools.run_checks() == 0
    assert [step.name for step in steps.calls] == ["check", "format", "--no-logo", "notebooks", "units"]
    assert {step.cwd for step in steps.calls} == {ROOT}
    assert {step.command[0] for step in steps.calls} == {sys.executable}
    notebooks, units = steps.calls[-2:]
    assert notebooks.env["ALLKIT_RUNS"] == str(tmp_path / "test-runs")
    assert units.env["ALLKIT_TEST_RUN"] == str(tmp_path / "test-runs" / "latest")
    assert "ALLKIT_TEST_RUN" not in set(notebooks.env) - set(os.environ)
    assert units.env.get("ALLKIT_RUNS") == os.environ.get("ALLKIT_RUNS")
    assert not (tmp_path / "test-runs").exists(), "an earlier test's models are not taken for this one's"


@pytest.mark.parametrize("name", ["check", "format", "--no-logo", "notebooks", "units"])
def test_the_first_check_that_fails_ends_it_with_its_code(steps, monkeypatch, tmp_path, name):
    monkeypatch.setattr(tools, "TEST_RUNS", tmp_path)
    steps.codes[name] = 7
    assert tools.run_checks() == 7
    assert steps.calls[-1].name == name


def test_one_check_can_be_run_alone_and_is_the_real_one(tmp_path, monkeypatch):
    done = call("test", "--only", "lint", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All checks passed!" in done.stdout
    assert "0 broken" in done.stdout
    monkeypatch.setattr(tools, "ROOT", tmp_path)
    (tmp_path / "wrong.py").write_text("import os\n", encoding="utf-8")
    assert tools.run_checks("lint") == 1


def test_missing_tools_are_named_with_what_to_install(monkeypatch):
    monkeypatch.setattr(
        tools, "requires", lambda _: ['sphinx>=8; extra == "book"', "numpy", 'nowhere; extra == "book"']
    )
    monkeypatch.setattr(tools, "_is_installed", lambda name: name != "nowhere")
    with pytest.raises(AllkitError, match=r'^not installed: nowhere; .*pip install -e "\.\[dev,book\]"'):
        tools.run_script("book.py", extra="book")
    tools.require_packages("dev")


@pytest.mark.parametrize(
    ("words", "script"),
    [
        (["book"], ["book.py", str(ROOT / "build" / "book")]),
        (["book", "--run", "mine", "--out", "there"], ["book.py", "there", "--run", "mine"]),
        (["slides", "there"], ["slides.py", "there"]),
    ],
)
def test_book_and_slides_call_the_scripts_of_the_clone(monkeypatch, words, script):
    monkeypatch.setattr(tools, "require_packages", lambda _: None)
    called = []
    done = SimpleNamespace(returncode=3)
    monkeypatch.setattr(tools.subprocess, "run", lambda command, **_: called.append(command) or done)
    monkeypatch.setattr(sys, "argv", ["allkit", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 3
    assert called == [[sys.executable, str(ROOT / "docs" / script[0]), *script[1:]]]


def test_slides_are_made_from_another_folder(tmp_path):
    done = call("slides", "mine", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "mine").glob("*.html"))) == 3


def test_lab_hands_on_options_after_two_dashes(monkeypatch, tmp_path):
    called = []
    done = SimpleNamespace(returncode=0)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: called.append(command) or done)
    monkeypatch.setattr(sys, "argv", ["allkit", "lab", f"--folder={tmp_path}", "--", "--ip=0.0.0.0", "--no-browser"])
    with pytest.raises(SystemExit):
        cli.main()
    assert called[0][1:] == ["-m", "jupyterlab", f"--notebook-dir={tmp_path}", "--ip=0.0.0.0", "--no-browser"]


# ---- Windows -----------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """Stand in for a model: the names of the files that `allkit classify` asks it about."""
    seen = []
    answer = SimpleNamespace(label="ALL", rejected=False, reasons={}, probabilities={"ALL": 0.9, "HEM": 0.1})
    trained = SimpleNamespace(metadata={"data": {"source": "synthetic"}})

    def classify_files(images, _, threshold):
        seen.extend(images)
        return [answer for name in images]

    monkeypatch.setattr("allkit.models.load_models", lambda _, lazily: {"MobileNet": trained})
    monkeypatch.setattr("allkit.classify.classify_files", classify_files)
    return seen


def test_wildcards_that_the_shell_left_alone_are_files(monkeypatch, tmp_path, asked):
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.png", "c.bmp", "[1].png"):
        (tmp_path / name).touch()
    monkeypatch.setattr(sys, "argv", ["allkit", "classify", "?.png", "c.bmp", "[1].p*", "none*.png"])
    with pytest.raises(SystemExit):
        cli.main()
    assert asked == ["a.png", "b.png", "c.bmp", "[1].png", "none*.png"]


@pytest.mark.skipif(os.name == "nt", reason="no such name there")
def test_a_file_whose_name_holds_a_star_is_itself(monkeypatch, tmp_path, asked):
    monkeypatch.chdir(tmp_path)
    for name in ("*.png", "a.png"):
        (tmp_path / name).touch()
    monkeypatch.setattr(sys, "argv", ["allkit", "classify", "*.png"])
    with pytest.raises(SystemExit):
        cli.main()
    assert asked == ["*.png"]


def test_a_run_made_on_windows_has_the_same_images_elsewhere():
    there = [r"C:\Users\x\kit\data\fold_0\all\a.png", r"C:\Users\x\kit\data\fold_0\hem\b.png"]
    here = ["/home/y/kit/data/fold_0/all/a.png", "/home/y/kit/data/fold_0/hem/b.png"]
    assert relative_paths(there) == relative_paths(here) == ["all/a.png", "hem/b.png"]
    assert relative_paths([r"C:\a\x.png", r"D:\b\y.png"]) == ["C:/a/x.png", "D:/b/y.png"]
    assert relative_paths(["/a/odd\\name.png", "/a/b.png"]) == ["odd\\name.png", "b.png"]


@pytest.mark.parametrize("name", ["my:run", "a?b", "what*", 'a"b', "a|b"])
def test_a_run_has_a_name_that_every_system_can_store(name):
    with pytest.raises(AllkitError, match="no name for a folder"):
        run_path(name)


def test_text_files_name_their_encoding():
    """ruff sees this only where it knows that something is a path."""
    wanting = []
    for path in [*(ROOT / "allkit").rglob("*.py"), *(ROOT / "docs").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
            names = {word.arg for word in node.keywords} if called else set()
            if called in ("read_text", "write_text") and "encoding" not in names:
                wanting.append(f"{path}:{node.lineno}")
            if called in ("run", "Popen", "check_output") and "text" in names and "encoding" not in names:
                wanting.append(f"{path}:{node.lineno}")
    assert not wanting


def test_files_have_the_same_bytes_and_legal_names_everywhere():
    def git(*words):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=60)

    files = git("ls-files", "-z").stdout.split("\0")[:-1]
    if not files:
        pytest.skip("no clone of git")
    asked = ["notebooks/00_start_here.ipynb", "data/weights/mobilenet.npz", "data/cnmc-manifest.csv.xz", ".ci/run"]
    answers = re.findall(r"^(.+): (\w+): (.+)$", git("check-attr", "text", "eol", "--", *asked).stdout, re.MULTILINE)
    found = {(name, what): value for name, what, value in answers}
    assert [found[name, "text"] for name in asked] == ["set", "unset", "unset", "auto"]
    assert [found[name, "eol"] for name in asked if found[name, "text"] != "unset"] == ["lf", "lf"]
    assert "crlf" not in git("ls-files", "--eol").stdout
    assert not [name for name in files if re.search(r'[<>:"|?*\\]', name)]
    assert len({name.lower() for name in files}) == len(files)


# ---- what a newcomer reads ---------------------------------------------------------------------------------


def links(page: Path) -> set[str]:
    found = re.findall(r"\]\(([^)\s#]+)", page.read_text(encoding="utf-8"))
    return {link for link in found if "://" not in link}


def test_the_readme_is_short_and_what_it_leads_to_exists():
    assert len(README.splitlines()) <= 120
    assert set(links(ROOT / "README.md")) >= {*PICTURES, "docs/operating.md", "docs/anywhere.md", "CONTRIBUTING.md"}
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data" / "README.md"):
        assert not [link for link in links(page) if not (page.parent / link).exists()]
    assert all(len(alt) > 40 for alt in re.findall(r"!\[(.*?)\]", README))
    notebooks = re.findall(r"^\| `(\d\d_\w+)` \|", README, re.MULTILINE)
    assert notebooks == sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def test_commands_in_the_pages_are_commands_of_the_kit():
    known = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    known |= {group.name for group in cli.app.registered_groups}
    for page in ("README.md", "CONTRIBUTING.md", "docs/operating.md", "docs/anywhere.md", "docs/instructor.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        blocks = "\n".join(re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
        said = re.findall(r"^allkit ([a-z]+)", blocks, re.MULTILINE) + re.findall(r"`allkit ([a-z]+)", text)
        assert set(said) <= known, page
        targets = set(re.findall(r"make ([a-z-]+)`", text))
        assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def numbers() -> tuple[str, ...]:
    """Hours to read, minutes to compute, GB of disk and GB of memory, as the README says them."""
    row = r"^\| about (\d+) hours\b.*? about (\d+) minutes .*? ([\d.]+) GB.*? (\d+) GB"
    return re.search(row, README, re.MULTILINE).groups()


def test_the_readmes_hours_minutes_and_memory_are_those_that_code_computes():
    hours, minutes, _, memory = numbers()
    seconds = pd.read_csv(times.FILE, index_col="notebook")["seconds"].drop("one drawn cell")
    assert int(hours) == round(times.read_minutes().sum() / 60)
    assert int(minutes) == round(seconds.sum() / 60)
    assert int(memory) == check_setup.MEMORY


@pytest.mark.skipif(sys.platform != "linux" or sys.prefix == sys.base_prefix, reason="measured on Linux, in a .venv")
def test_the_readmes_disk_is_about_what_the_environment_takes():
    files = {(status.st_ino, status.st_blocks) for path in Path(sys.prefix).rglob("*") if (status := path.lstat())}
    assert sum(blocks for _, blocks in files) * 512 / 1e9 == pytest.approx(float(numbers()[2]), rel=0.15)


# ---- where it starts elsewhere -----------------------------------------------------------------------------


def test_the_pages_limits_are_those_of_the_upload_cell():
    text = " ".join((ROOT / "docs" / "operating.md").read_text(encoding="utf-8").split())
    megabytes = [number // 2**20 for number in (MAX_BYTES, MAX_UPLOAD)]
    assert f"A file may hold {megabytes[0]} MB, an upload {MAX_FILES} files of {megabytes[1]} MB together." in text
    assert megabytes[0] < MAX_MESSAGE // 2**20, "a file fits into a message"


def read_yaml(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_workflow_has_rows_for_windows_and_macos_that_need_no_make():
    jobs = read_yaml(".github/workflows/ci.yml")["jobs"]
    rows = jobs["without-make"]["strategy"]["matrix"]["include"]
    assert {row["os"]: row["scripts"] for row in rows} == {"windows-latest": "Scripts", "macos-latest": "bin"}
    steps = [step.get("run", "") for step in jobs["without-make"]["steps"]]
    assert {"allkit test", "allkit run"} <= set(steps)
    assert not [step for step in steps if re.search(r"\bmake\b", step)]
    assert {"make test", "make run"} <= {step.get("run") for step in jobs["locked"]["steps"]}


def test_issue_forms_ask_for_the_machine_and_forbid_patients_images():
    forms = {path.stem: read_yaml(f".github/ISSUE_TEMPLATE/{path.name}")
             for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"}  # fmt: skip
    assert set(forms) == {"problem", "idea"}
    for form in forms.values():
        assert {"name", "description", "body"} <= set(form)
        assert "No images of patients" in form["body"][0]["attributes"]["value"]
        (boxes,) = [part for part in form["body"] if part["type"] == "checkboxes"]
        assert all(option["required"] for option in boxes["attributes"]["options"])
    (machine,) = [part for part in forms["problem"]["body"] if part.get("id") == "machine"]
    code = re.search(r'python -c "(.+?)"', machine["attributes"]["description"])[1]
    module, function = re.search(r"from ([\w.]+) import (\w+)", code).groups()
    assert callable(getattr(sys.modules[module], function))
    assert machine["validations"]["required"]


def test_containers_run_for_a_user_without_rights_and_open_the_two_ports():
    settings = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert settings["forwardPorts"] == [8888, 8866]
    assert (ROOT / ".devcontainer" / settings["build"]["dockerfile"]).is_file()
    for file in ("Dockerfile", ".devcontainer/Dockerfile"):
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
        (user,) = re.findall(r"useradd .* (\w+)$", "\n".join(lines), re.MULTILINE)
        assert f"USER {user}" in lines or settings["remoteUser"] == user
    assert 'CMD ["allkit", "app"]' in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert (ROOT / ".binder" / "runtime.txt").read_text(encoding="utf-8").strip() == "python-3.12"
    if os.name == "posix":
        assert os.access(ROOT / ".binder" / "postBuild", os.X_OK)
