"""Compiles kernels.cu into kernels.ptx with NVRTC, which needs no GPU; and measures what ptxas makes of it.

    python backends/cuda/ptx.py            writes kernels.ptx
    python backends/cuda/ptx.py --check    says whether it is what kernels.cu gives, and within the bounds below

Needs the packages of requirements.txt beside it, which .ci/cuda.sh installs.
"""

import ctypes
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
OPTIONS = ["--gpu-architecture=compute_80", "--std=c++17", "--device-as-default-execution-space", "--fmad=false", "--ftz=false", "--prec-div=true",
           "--prec-sqrt=true"]
# What ptxas may use for each kernel on these architectures: registers a thread. Nothing may be spilled to memory. Up to 128,
# a multiprocessor has room for four thread blocks of the dots; up to 64, for eight of the update.
ARCHITECTURES = ["sm_80", "sm_90"]
REGISTERS = {"koala_dots": 128, "koala_recursion": 96, "koala_update": 64, "koala_change": 24}


def packages():
    """The folder of NVIDIA's packages."""
    import nvidia

    return pathlib.Path(next(iter(nvidia.__path__)))


def compiled():
    """The PTX of kernels.cu."""
    nvrtc = ctypes.CDLL(str(packages() / "cuda_nvrtc/lib/libnvrtc.so.12"))
    source = (HERE / "kernels.cu").read_bytes()
    options = [*OPTIONS, f"--include-path={packages() / 'cuda_runtime/include'}"]
    program = ctypes.c_void_p()
    if nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None) != 0:
        sys.exit("NVRTC: the program could not be made")
    arguments = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    status = nvrtc.nvrtcCompileProgram(program, len(options), arguments)

    def text(what):
        size = ctypes.c_size_t()
        getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(nvrtc, f"nvrtcGet{what}")(program, buffer)
        return buffer.value.decode()

    log = text("ProgramLog").strip()
    if log:
        print(log)
    if status != 0:
        sys.exit("NVRTC: kernels.cu does not compile")
    return text("PTX")


def assembled(ptx, architecture):
    """What ptxas says about each kernel: its registers, and its bytes of spilling and of stack."""
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "kernels.ptx"
        source.write_text(ptx)
        command = [packages() / "cuda_nvcc/bin/ptxas", "--verbose", f"--gpu-name={architecture}", source,
                   "--output-file", pathlib.Path(folder) / "kernels.cubin"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    kernels = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers",
        report,
        re.DOTALL,
    )
    return {name: tuple(map(int, numbers)) for name, *numbers in kernels}


def check(ptx):
    """Prints a line for each thing that must hold, and returns how many do and do not."""
    results = [((HERE / "kernels.ptx").read_text() == ptx, "kernels.ptx is what kernels.cu gives")]
    fused = re.findall(r"\b(?:fma|mad)\S*\.f(?:16|32|64)\b", ptx)
    results.append((not fused, f"no fused multiply-add in kernels.ptx: {len(fused)}"))
    # ptxas fuses only what does not say how it is rounded.
    unrounded = re.findall(r"\b(?:add|sub|mul|div|sqrt)\.(?:ftz\.)?f(?:16|32|64)\b", ptx)
    results.append((not unrounded, f"no arithmetic in it without its rounding: {len(unrounded)}"))
    results.append((".ftz" not in ptx and ".approx" not in ptx, "no flushing of denormals and no approximation in it"))
    for architecture in ARCHITECTURES:
        kernels = assembled(ptx, architecture)
        results.append((set(kernels) == set(REGISTERS), f"ptxas {architecture} assembles {', '.join(sorted(kernels))}"))
        for name, (_, stores, loads, registers) in sorted(kernels.items()):
            good = stores == loads == 0 and registers <= REGISTERS.get(name, 0)
            usage = f"{registers} registers of at most {REGISTERS.get(name)}, {stores + loads} bytes spilled of 0"
            results.append((good, f"{name} on {architecture}: {usage}"))
    for good, line in results:
        print("ok    " if good else "FAILED", line)
    return sum(good for good, _ in results), sum(not good for good, _ in results)


if __name__ == "__main__":
    made = compiled()
    if sys.argv[1:] == ["--check"]:
        passed, failed = check(made)
        print(f"test result: {'FAILED' if failed else 'ok'}. {passed} passed; {failed} failed")
        sys.exit(failed > 0)
    (HERE / "kernels.ptx").write_text(made)
    print(f"kernels.ptx: {len(made)} bytes")
