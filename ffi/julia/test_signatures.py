"""Compares src/capi.jl with include/koala.h: every enum, struct, and signature. Run by pytest, or as a program.

There is no need for Julia or a C compiler: both files are read as text. What Julia declares has to be what C declares;
Julia need not declare all of it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parent
HEADER = FOLDER.parents[1] / "include" / "koala.h"
SOURCE = FOLDER / "src" / "capi.jl"

NUMBERS = {
    "size_t": "Csize_t",
    "double": "Cdouble",
    "int32_t": "Int32",
    "uint32_t": "UInt32",
    "uint64_t": "UInt64",
    "char": "Cchar",
    "void": "Cvoid",
}


class Declarations(NamedTuple):
    """What a file declares: an enum's values, a struct's members in their order, a function's parameters and result."""

    enums: dict[str, dict[str, int]]
    structs: dict[str, list[tuple[str, str]]]
    functions: dict[str, tuple[list[tuple[str, str]], str]]


def julia_type(c: str) -> str:
    """A type of C as Julia has it, a pointer as Ptr."""
    c = re.sub(r"\b(const|struct)\b", " ", c)
    stars = c.count("*")
    name = c.replace("*", " ").strip()
    name = NUMBERS.get(name, name)
    return "Ptr{" * stars + name + "}" * stars


def declared(parameter: str) -> tuple[str, str]:
    """A member or parameter of C, such as `const char *name`, as name and Julia's type."""
    match = re.fullmatch(r"(.*?)(\w+)", parameter.strip(), re.DOTALL)
    assert match, parameter
    return match[2], julia_type(match[1])


def read_header(text: str) -> Declarations:
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    text = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    enums = {}
    for name, body in re.findall(r"enum (koala_\w+)[^{;]*\{(.*?)\}", text, re.DOTALL):
        enums[name] = {value: int(number) for value, number in re.findall(r"(\w+) = (-?\d+)", body)}
    structs = {}
    for body, name in re.findall(r"typedef struct koala_\w+ \{(.*?)\} (koala_\w+);", text, re.DOTALL):
        # An array of a struct's own is not used on Julia's side.
        members = [member for member in body.split(";") if member.strip() and "[" not in member]
        structs[name] = [declared(member) for member in members]
    functions = {}
    for result, name, parameters in re.findall(r"^([\w \*]+?)(koala_\w+)\(([^()]*)\);", text, re.MULTILINE | re.DOTALL):
        listed = [] if parameters.strip() == "void" else parameters.split(",")
        functions[name] = ([declared(parameter) for parameter in listed], julia_type(result))
    return Declarations(enums, structs, functions)


def read_julia(text: str) -> Declarations:
    text = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    enums = {}
    for name, body in re.findall(r"^@enum (\w+)::Int32 begin\n(.*?)^end$", text, re.MULTILINE | re.DOTALL):
        enums[name] = {value: int(number) for value, number in re.findall(r"(\w+) = (-?\d+)", body)}
    structs = {}
    for name, body in re.findall(r"^struct (\w+)\n(.*?)^end$", text, re.MULTILINE | re.DOTALL):
        members = [line.strip().split("::") for line in body.splitlines()]
        structs[name] = [(member, kind) for member, kind in members]
    functions = {}
    for name, parameters, result in re.findall(r"@ccall libkoala\.(\w+)\(([^()]*)\)::(\w+)", text):
        listed = [parameter.strip().split("::") for parameter in parameters.split(",") if parameter.strip()]
        functions[name] = ([(parameter, kind) for parameter, kind in listed], result)
    return Declarations(enums, structs, functions)


C = read_header(HEADER.read_text(encoding="utf-8"))
JULIA = read_julia(SOURCE.read_text(encoding="utf-8"))


def fits(julia: str, c: str) -> bool:
    """Whether an argument of Julia's type can be passed as C's: a pointer by Ref, and a text as Cstring, too."""
    return julia in (c, re.sub(r"^Ptr", "Ref", c)) or (julia, c) == ("Cstring", "Ptr{Cchar}")


def test_something_was_found() -> None:
    text = SOURCE.read_text(encoding="utf-8")
    assert len(JULIA.enums) == text.count("@enum ") >= 9
    assert len(JULIA.structs) == len(re.findall(r"^struct ", text, re.MULTILINE)) >= 9
    assert len(JULIA.functions) == text.count("@ccall ") >= 14
    assert len(C.enums) >= 10 and len(C.structs) >= 9 and len(C.functions) >= 30


def test_every_call_is_in_this_file() -> None:
    others = [path for path in SOURCE.parent.glob("*.jl") if path != SOURCE]
    assert others and not any("ccall" in path.read_text(encoding="utf-8") for path in others)


def test_enums() -> None:
    for name, values in JULIA.enums.items():
        assert values == C.enums[name], name


def test_structs() -> None:
    for name, members in JULIA.structs.items():
        assert members == C.structs[name], name


def test_functions() -> None:
    for name, (parameters, result) in JULIA.functions.items():
        expected, expected_result = C.functions[name]
        assert [parameter for parameter, _ in parameters] == [parameter for parameter, _ in expected], name
        for (parameter, julia), (_, c) in zip(parameters, expected):
            assert fits(julia, c), f"{name}: {parameter} is {julia} in Julia and {c} in C"
        assert result == expected_result, name


def test_status_and_version() -> None:
    julia, header = SOURCE.read_text(encoding="utf-8"), HEADER.read_text(encoding="utf-8")
    # C has the status as an int32_t, and success as its zero.
    assert "const koala_status = Int32\n" in julia and "typedef int32_t koala_status;" in header
    assert f"const KOALA_STATUS_OK = {C.enums['koala_status']['KOALA_STATUS_OK']}\n" in julia
    version = re.findall(r"^#define KOALA_VERSION (\d+)$", header, re.MULTILINE)
    assert len(version) == 1 and version == re.findall(r"^const KOALA_VERSION = (\d+)$", julia, re.MULTILINE)


def test_it_sees_mistakes() -> None:
    # The test of this test: what is changed by a little does not fit any more.
    wrong = SOURCE.read_text(encoding="utf-8")
    for right, changed in (("loss::Cdouble\n", "loss::Cfloat\n"), ("KOALA_NOISE_FIXED = 1", "KOALA_NOISE_FIXED = 2")):
        assert right in wrong
        wrong = wrong.replace(right, changed)
    found = read_julia(wrong)
    assert found.structs["koala_step"] != C.structs["koala_step"]
    assert found.enums["koala_noise"] != C.enums["koala_noise"]
    assert fits("Ref{UInt32}", "Ptr{UInt32}")
    assert not fits("Ref{Cfloat}", "Ptr{Cdouble}") and not fits("Cint", "Csize_t")


if __name__ == "__main__":
    for name, test in [*globals().items()]:
        if name.startswith("test_"):
            test()
            print("passed", name)
