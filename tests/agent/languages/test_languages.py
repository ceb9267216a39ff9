"""Chinese for what people read: every sentence of the code has it, and names and numbers come through."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from agent.errors import ErrorCode
from agent.jobs import spec
from agent.languages import PLACE, Template, choose_language, explain_error, find_chinese, load_table, translate

ROOT = Path(__file__).parents[3]
CHINESE = re.compile(r"[\u4e00-\u9fff]")
SPOKEN = (
    *("models", "agent/intake", "agent/jobs", "agent/scheduler", "agent/results", "agent/client.py"),
    *("gpu_pool/slot.py", "gpu_pool/wait_reasons.py", "gpu_pool/cards.py", "agent/settings_file.py"),
    *("agent/cli", "agent/setup", "agent/page", "agent/desktop", "agent/service", "agent/daemon.py"),
)
"""Where the code speaks to people: each of its sentences is in the table, but for those below."""
SILENT = re.compile(
    r"models/(musetalk/(selftest|nets|compositing|__main__|commands/(verify|convert)|inpainting/(forms|fused_weights|memory_errors)"
    r"|avatar/store|weights/(architectures|published_configs))|avatars|first_part|preview/renderer"
    r"|checkpoints/(torch_file|unpickler|configs|terminal|verdicts)|musev/(nets|__main__|commands/(verify|convert))"
    r"|media/output/encode\.py:(74|95))|agent/jobs/(schema|media_names)|agent/(scheduler/(reports|tuning|workers)|results/outbox)"
)
"""Files whose sentences are for logs, for other programs, and for tables of a command."""
OTHER_TEXT = re.compile(
    r"SELECT |RuntimeError|code of|pip install|python -m|Started by|The file that gets|\\\[Errno|musedrop|musetalk 101|"
    r"Stands for|Accepted and|Of Duix|low, medium|The settings of|that is in force|to this file\.|[#|]|must be set|"
    r"camera raw|SILK|MIDI|Creative|playlist|rich text|text file|Matroska|no frame header|another kind of RIFF|its ICC|"
    r"MuseTalk lip|moves the mouth|paints the|turns pictures|hears the|finds |the weights need|the NVIDIA driver$|"
    r"a 101, no|another con|SHA-256 101|101 bytes|101 is here|101 MiB resident|10\d( x| =| to| 102 103|\.\.\.| \"102\"| See)|"  # noqa: E501
    r"<|event:|submitter = |substr|finished_at|state IN|default-src|sudo | +101|-----|%\(|101systemctl|\[dim|"
    r"101 (\[bold|->|min|h)|not known yet| \(tried|there(, and kept| and back)|"
    r"MuseV: its|image-to-video pip|moves a picture|(keeps|sees|reads) the|draws \(base|Stable Diffusion|"
    r"\(a calm person|\(open mouth|a calm person looks|open mouth, speaking|Stable Video|Stability AI|"
    r"non-commercial research|a (network with|UNet without)|the preset for|"
    r"101 tensors of the right|"
    r"Exec=|Comment=|there is no 101 here|101: 102 %|outbox/|Faces and|it was replaced|process 101|"
    r"(be|is) \w+ (up|away|folder|out)|it is no folder|end of data|the address|no reading|ended by itself"
)
"""Names of formats and parts, SQL, helps of programs, and words that a sentence of the table has as a value."""
QUIET_CALLS = {
    *("debug", "info", "warning", "error", "exception", "Field", "Format", "execute", "query", "rows", "ValueError"),
    *("Option", "Argument", "Typer", "filter"),
}
MOST_WORDS_OF_A_NAME = 2


def read_template(node: ast.expr) -> str:
    """Return a text as the code has it, each of its values as 101, 102 ..."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if not isinstance(node, ast.JoinedStr):
        return ""
    parts = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
    numbers = iter(range(101, 201))
    return "".join(str(next(numbers)) if part is None else str(part) for part in parts)


def find_sentences(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each sentence, without docstrings and what is said to logs."""
    if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in QUIET_CALLS:
        return
    if isinstance(node, ast.expr) and (text := read_template(node)):
        if len(text.split()) > MOST_WORDS_OF_A_NAME:
            yield node.lineno, text
        return
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)):
            yield from find_sentences(child)


def list_spoken() -> Iterator[tuple[str, str]]:
    for place in SPOKEN:
        path = ROOT / place
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            name = file.relative_to(ROOT).as_posix()
            for line, text in find_sentences(ast.parse(file.read_text(encoding="utf-8"))):
                if not SILENT.match(f"{name}:{line}"):
                    yield f"{name}:{line}", text


def blank_out(text: str) -> str:
    """Return a text with all its values, or a template with all its places, as {}."""
    return re.sub(r"10\d|\{[^{}]*\}", "{}", text).strip(" ,;.:{}")


def test_every_sentence_of_the_code_has_its_chinese() -> None:
    """With all names and numbers that stand in it. A new sentence needs a line of agent/languages/zh.json.

    A part of a sentence stands in a template of the table.
    """
    forms = [blank_out(english) for english in load_table()["sentences"]]
    missing = []
    for place, text in list_spoken():
        chinese = find_chinese(text) or ""
        is_whole = CHINESE.search(chinese) and set(re.findall(r"10\d", text)) <= set(re.findall(r"10\d", chinese))
        if not is_whole and not OTHER_TEXT.match(text) and not any(blank_out(text) in form for form in forms):
            missing.append(f"{place}: {text}")
    assert missing == []


def test_every_code_has_a_chinese_text() -> None:
    """What an error of a code says is in Chinese, whatever its message; its own hint is, too."""
    assert set(load_table()["codes"]) == set(ErrorCode)
    for code in ErrorCode:
        told = explain_error(code, "Traceback <b>of</b> nothing known")
        assert CHINESE.search(told), code
        assert "Traceback <b>of</b> nothing known" in told
        assert not code.hint or CHINESE.search(translate(code.hint)), code


def test_what_a_key_of_a_job_file_means_is_there_in_chinese() -> None:
    """It is the hint of a value that is refused."""
    models = (model for model in vars(spec).values() if isinstance(model, type) and issubclass(model, BaseModel))
    fields = {field.description or "" for model in models for field in model.model_fields.values()} - {""}
    assert [text for text in fields if not CHINESE.search(find_chinese(text) or "")] == []


def test_every_place_of_a_template_is_filled() -> None:
    """Each has the same places in both languages, each once, and is found by its own form."""
    for english, chinese in load_table()["sentences"].items():
        places = PLACE.findall(english)
        assert sorted(places) == sorted(PLACE.findall(chinese)), english
        values = iter(range(101, 201))
        sample = PLACE.sub(lambda _, values=values: str(next(values)), english)  # type: ignore[misc]
        found = Template(english, chinese).translate(sample)
        assert found is not None or "why" in english, english
        assert found is None or all(str(101 + n) in found for n in range(len(places))), english


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("no face was found in 脸 <img onerror=x>.jpg", "在 脸 <img onerror=x>.jpg 中没有找到人脸"),
        ("{name} is empty: it has no bytes at all", "{name} 是空的：没有任何内容"),
        ("a\nb holds no sound at all", "a\nb 里没有任何声音"),
        (
            "fps is 'x': a frame rate is above 0 and at most 120; output.crf is 99: should be at most 51",
            "fps 是 'x'：帧率应大于 0 且不大于 120；output.crf 是 99：应不大于 51",
        ),
        (
            "its workers died 3 times: The worker on cpu:0 was killed by SIGSEGV. It did not end when asked.",
            "它的工作进程中断了 3 次：cpu:0 上的工作进程被 SIGSEGV 终止。它没有按要求结束。",
        ),
        ("face.jpg could not be opened: No such file or directory", "无法打开 face.jpg：没有这个文件或目录"),
        ("line 3, column 4: Expecting value", "第 3 行第 4 列：此处应为一个值"),
    ],
)
def test_names_numbers_and_reasons_come_through(english: str, chinese: str) -> None:
    """Whatever stands in a name stays as it is; a reason that is a sentence itself is in Chinese."""
    assert find_chinese(english) == chinese


def test_an_unknown_sentence_stays_as_it_is() -> None:
    """Also a very long one, and one that is full of joints; no text takes long."""
    for text in ("nothing like this", "", "a: b", "x; " * 2000, ". is {n} " * 400, "a is b and no c " * 200):
        assert translate(text) == text


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "en_GB.UTF-8", "LC_MESSAGES": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": ""}, "zh"),
    ],
)
def test_the_environment_chooses_the_language(environment: dict[str, str], language: str) -> None:
    """LC_ALL before LC_MESSAGES before LANG, and an empty one says nothing."""
    assert choose_language(environment) == language
