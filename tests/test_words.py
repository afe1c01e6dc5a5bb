"""The project is written in the field's words; each rule is also shown to catch a violation."""

import functools
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
SUFFIXES = {".py", ".md", ".yaml", ".toml"}
EXCEPTED = {"CHANGELOG.md", "tests/test_words.py"}


class Rule(NamedTuple):
    """What is not written any more.

    Attributes:
        old: Of a name, matched as a whole; of a phrase, searched in the text.
        instead: What to write.
        example: Text that breaks the rule.
        where: Start of the paths that the rule is for, as a regular expression.
    """

    old: str
    instead: str
    example: str
    where: str = ""


DISTILL = r"packages/kd-core/src/kd_core/distill/"
TRAINING = r"packages/kd-core/src/kd_core/training/"
NOT_TESTS = r"(?!.*tests/)"
NOT_UNIC = r"(?!.*/(test_)?(unic|joint_terms)\.py$)"  # whose `draws` is a name of its own

NAMES = [  # of variables, functions, classes, modules and arguments
    Rule("Kit|kit", "TaskAdapter, adapter", "class MyKit(Kit): ..."),
    Rule("[Aa]ssembl(y|e|es|ed|ing)", "builder, build, BuiltExperiment", "assembly = 1"),
    Rule("run_config", "spec", "import run_config"),
    Rule("together", "shared_teacher", "run(together=True)"),
    Rule("shown", "teacher_features", "batch.shown = 1", DISTILL),
    Rule("seen", "student_features", "def run_teacher(seen): ...", DISTILL),
    Rule("listen(_to)?", "infer_shapes", "teacher.listen(batch)"),
    Rule("settle", "calibrate_batchnorm", "settle(model, batch)"),
    Rule("meet_average", "set_ema", "task.meet_average(ema)"),
    Rule("agree|wish(es)?", "any_rank, flag", "def agree(flag): ..."),
    Rule("obstacle", "why_not_capturable", "reason = obstacle(step)"),
    Rule("strangers?", "distractors, other_people", "strangers = 3"),
    Rule("notes", "host_reads", "self.notes = []", TRAINING),
    Rule("looks", "appearance", "from kd_reid.data import looks"),
    Rule("draws", "sampling", "image = flip(image, draws)", NOT_UNIC),
    Rule("waves", "synthetic_signals", "from kd_core.testing.waves import fill"),
    Rule("pedestrians?", "synthetic_people", "import pedestrians"),
    Rule(r"(\w+_)?(go|goes|going|gone|went)_on(_\w+)?", "resume", "def go_on(self): ..."),
    Rule(r"(\w+_)?anew(_\w+)?", "restart", "def begin_anew(self): ..."),
    Rule(r"(\w+_)?give_back(_\w+)?", "release", "claim.give_back()"),
    Rule(r"(\w+_)?take_leave(_\w+)?", "remove", "take_leave(child)"),
    Rule(r"(\w*_)?(tells?|telling|told)(_\w+)?", "print, report", "tell_of(told)", NOT_TESTS),
]


@functools.cache
def any_name(places: frozenset[str]) -> re.Pattern[str]:
    """Return what a file has somewhere if a name may be old: to take it apart is slow."""
    return re.compile(rf"\b(?:{'|'.join(f'(?:{r.old})' for r in NAMES if r.where in places)})\b")


PHRASES = [  # of prose, messages, config keys and options
    Rule("--together", "--share-teacher", "cls_train.py --together"),
    Rule(r"\bstages\s*=\s*dict\(", "phases", "stages = dict(before=dict())"),
    Rule(r"[\"'`]stage:", "phase:", "weights='stage:before/student.pth'"),
    Rule(r"\bteacher\.recipe\b|\brecipe=[\"'\[]", "config", "teacher = dict(recipe='a.py')"),
    Rule(r"\[[\"']shown[\"']\]", "teacher_features", "batch['shown']"),
    Rule(
        r"(?i)\b(go|goes|going|gone|went) on\b(?! (line|edge))",
        "resume, continue",
        "A run goes on.",
    ),
    Rule(r"(?i)\banew\b", "again, restart, recompute", "It starts anew."),
    Rule(
        r"(?i)\b(give|gives|given|giving|gave) (\w+ ){0,3}back\b",
        "release, return",
        "Give a claim back.",
    ),
    Rule(
        r"(?i)\b(take|takes|taken|taking|took) leave\b",
        "remove, leave",
        "It takes leave of a teacher.",
    ),
    Rule(
        r"(?i)(?<!there )\b(is|are|was|were) no (?!longer|more|less|later|earlier|better|worse)",
        "is not a",
        "A list is no map.",
    ),
    Rule(r"(?i)\brefuses? (also )?what\b", "reject anything but", "Refuse what is no map."),
    Rule(r"\"\"\"Refuse\b", "Reject", 'def f():\n    """Refuse a map."""'),
    Rule(r"(?i)\b(tells?|telling|told) whether\b", "return whether", "Tell whether it fits."),
    Rule(r"\"\"\"(Tell|Say)\b", "Return, Print, Report", 'def f():\n    """Tell a place."""'),
    Rule(r"(?i)\btold\b", "said, printed, reported", "All of it is told.", NOT_TESTS),
    Rule(r"(?i)\bof one's own\b", "of yours, a user's", "A network of one's own."),
    Rule(r"(?i)\bfor want of\b", "since there is not", "Small data for want of a GPU."),
    Rule(r"(?i)\bstands? (twice|behind|alone)\b", "is repeated, comes after", "SEED stands twice"),
    Rule(r"(?i)\bcan(not)? be had\b", "be read, is available", "Weights cannot be had."),
    Rule(r"(?i)\bin parts of the time\b", "relative to (lower is better)", "in parts of the time"),
    Rule(r"(?i)\bthe (house|room)\b", "the package, the module", "the rest of the house"),
    Rule(
        r"(?i)\blives? (in|on|at|inside|below|here|there)\b",
        "is in, is defined in, is on",
        "The set lives on the device.",
    ),
    Rule(r"\bpedestrians?\b", "people", "Draw a pedestrian."),
    Rule(r"(?i)\bteachers? shows?\b", "teacher features, teacher outputs", "what teachers show"),
    Rule(r"(?i)\bmade again\b", "created again", "move it elsewhere, and it is made again"),
    # What a user has may be all that there is of it: nobody is told to delete it.
    Rule(
        r"([;:,?] (or |and )?|\")(delete|remove) (it\b|(the|its) folder|its shards|one of|\{)",
        "move it elsewhere; name another",
        "is there already; delete it",
    ),
    Rule(r"(?i)\bfor ever\b|\bwithout end\b", "forever", "0 waits for ever"),
    Rule(r"(?i)\bmend(s|ed|ing)?\b", "correct, repair, fix", "Errors that the user can mend."),
    Rule(r"(?i)\bstands? still\b", "is stopped", "a worker that stands still"),
    Rule(r"(?i)\b(not|never) looked at\b", "is not used", "The student is not looked at."),
    Rule(r"(?i)\bcomes? twice\b", "is repeated", "a path comes twice"),
    Rule(
        r"(?i)nn\.Module`?'s sight",
        "without registering it as a submodule",
        "out of nn.Module's sight",
    ),
]

_STARTS = r"(?i)\b"
ANY_PHRASE = re.compile(
    rf"\b(?:{'|'.join(r.old.removeprefix(_STARTS) for r in PHRASES if r.old.startswith(_STARTS))})"
)
"""What a text in small letters has somewhere if one of these phrases is in it: faster than each."""


def names(source: str) -> Iterator[tuple[str, int]]:
    """Yield the names in a python source, with their lines."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            yield token.string, token.start[0]


def in_one_line(text: str) -> tuple[str, list[int]]:
    """Join the lines of a text as its sentences run on; return the line of every character too.

    Comment marks, and the quotes between the parts of a python string, are not part of a sentence.
    """
    parts, lines, position, line = list[str](), list[int](), 0, 1
    between = re.compile(r"[ \t]*[\"']?\s*\n\s*(?:#+ |[rbf]{0,2}[\"'](?![\"'])|[>*-] )?|[ \t]+")
    for match in between.finditer(text):
        parts.append(text[position : match.start()] + " ")
        lines += [line] * len(parts[-1])
        line += text.count("\n", position, match.end())
        position = match.end()
    parts.append(text[position:])
    return "".join(parts), lines + [line] * len(parts[-1])


def word_errors(path: str, text: str) -> list[str]:
    """Name the old words in a file, and what to write instead."""
    errors = []
    places = frozenset(where for where in {rule.where for rule in NAMES} if re.match(where, path))
    if path.endswith(".py") and any_name(places).search(text):
        found = list(names(text))
        distinct = {name for name, _ in found}
        for rule in NAMES:
            if re.match(rule.where, path):
                old = {name for name in distinct if re.fullmatch(rule.old, name)}
                lines = [line for name, line in found if name in old]
                errors += [f"line {line}: {rule.old!r}; write {rule.instead}" for line in lines]
    joined, lines = in_one_line(text)
    found_one = ANY_PHRASE.search(joined.lower())
    for rule in PHRASES:
        if rule.old.startswith(_STARTS) and not found_one:
            continue
        if re.match(rule.where, path):
            errors += [
                f"line {lines[match.start()]}: {match[0]!r}; write {rule.instead}"
                for match in re.finditer(rule.old, joined)
            ]
    return errors


def tracked_files() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [
        path
        for path in output.splitlines()
        if Path(path).suffix in SUFFIXES and path not in EXCEPTED and (ROOT / path).is_file()
    ]


def glossary() -> str:
    return (ROOT / "docs/glossary.md").read_text(encoding="utf-8")


def is_defined(place: str) -> bool:
    """Return whether a folder exists, or a module defines the last part of an import path."""
    if "/" in place:
        return (ROOT / place).is_dir()
    module, _, name = place.rpartition(".")
    package = module.partition(".")[0].replace("_", "-")
    file = ROOT / "packages" / package / "src" / (module.replace(".", "/") + ".py")
    return file.is_file() and bool(re.search(rf"^(class|def) {name}\b", file.read_text(), re.M))


def test_old_words_are_gone():
    paths = tracked_files()
    assert {"pyproject.toml", "CONTRIBUTING.md", "tests/test_layout.py"} <= set(paths)
    errors = {path: word_errors(path, (ROOT / path).read_text(encoding="utf-8")) for path in paths}
    assert {path: found for path, found in errors.items() if found} == {}


def test_every_word_of_the_glossary_is_defined_where_it_says():
    rows = re.findall(r"^\|.*\| `([\w./]+)` \|$", glossary(), re.MULTILINE)
    assert len(rows) > 20
    assert [place for place in rows if not is_defined(place)] == []
    assert not is_defined("kd_core.distill.term.Tern")


@pytest.mark.parametrize("rule", NAMES + PHRASES, ids=lambda rule: rule.instead)
def test_an_old_word_is_found(rule):
    folder = "training" if rule.where == TRAINING else "distill"
    path = f"packages/kd-core/src/kd_core/{folder}/x.py" if rule in NAMES else "x.md"
    errors = word_errors(path, rule.example)
    assert any(rule.instead in error and "line " in error for error in errors)


@pytest.mark.parametrize(
    "text",
    [
        '"""A sentence that goes\n    on here."""',
        "# A sentence that goes\n# on here.",
        'raise Error(\n    f"{path} goes "\n    f"on here"\n)',
    ],
)
def test_a_phrase_is_found_across_lines(text):
    assert [error[:7] for error in word_errors("x.py", text)] == [
        f"line {next(n for n, line in enumerate(text.splitlines(), 1) if 'goes' in line)}:"
    ]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("x.py", "roles = dict(stages=['layer1', 'layer2'])"),
        ("x.py", "seen = set()"),
        ("x.py", "altogether = assembler = 1"),
        ("x.md", "There is no file. It is no longer there. The head is not a map."),
        ("x.md", "All of them together, a recipe, what the table shows."),
    ],
)
def test_other_words_are_not(path, text):
    assert word_errors(path, text) == []
