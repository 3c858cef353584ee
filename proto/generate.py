"""Generates `proto/gen` from the contracts: messages, stubs and their types.

`buf.validate` has no .proto in any wheel, so its descriptor is taken from protovalidate's and handed to protoc as a
descriptor set. Comments are not in generated code, so they are written beside it (`comments.json`), for the OpenAPI
document. `--image FILE` writes the whole image instead, for buf.
"""

import argparse
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc_tools
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent
GENERATED = PROTO / "gen"
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"
GOOGLE_API = Path(importlib.import_module("google.api").__path__[0]).parents[1]


def contracts() -> list[str]:
    """Every contract, relative to `proto/`, in a fixed order."""
    return sorted(str(path.relative_to(PROTO)) for path in (PROTO / "siyu").rglob("*.proto"))


def validate_descriptor() -> descriptor_pb2.FileDescriptorProto:
    """The descriptor of buf/validate/validate.proto, as protovalidate carries it."""
    generated = importlib.import_module("protovalidate._gen.buf.validate.validate_pb")
    return descriptor_pb2.FileDescriptorProto.FromString(generated.desc().proto.to_binary())


def dependencies(into: Path) -> Path:
    """Writes the descriptor set of everything that the contracts import, and returns its path."""
    google = ["google/api/annotations.proto", "google/api/http.proto", "google/api/field_behavior.proto"]
    known = ["descriptor", "timestamp", "duration", "empty", "any", "field_mask", "struct", "wrappers"]
    base = into / "base.binpb"
    run(
        f"-I{WELL_KNOWN}", f"-I{GOOGLE_API}", "--include_imports", f"--descriptor_set_out={base}",
        *google, *(f"google/protobuf/{name}.proto" for name in known),
    )  # fmt: skip
    files = descriptor_pb2.FileDescriptorSet.FromString(base.read_bytes())
    files.file.append(validate_descriptor())
    out = into / "dependencies.binpb"
    out.write_bytes(files.SerializeToString())
    return out


def run(*arguments: str) -> None:
    """Runs protoc; its own messages tell what is wrong."""
    if protoc.main(["protoc", *arguments]) != 0:
        sys.exit("protoc refused the contracts; see above")


def generate(into: Path) -> None:
    """Writes the Python of every contract below `into`, and the contracts' comments."""
    with tempfile.TemporaryDirectory() as scratch:
        imports = dependencies(Path(scratch))
        binaries = Path(sys.executable).parent
        messages = (
            f"--descriptor_set_in={imports}", f"-I{PROTO}", f"--python_out={into}",
            f"--plugin=protoc-gen-mypy={binaries / 'protoc-gen-mypy'}", f"--mypy_out=quiet:{into}",
        )  # fmt: skip
        stubs = (
            f"--grpc_python_out={into}",
            f"--plugin=protoc-gen-mypy_grpc={binaries / 'protoc-gen-mypy_grpc'}", f"--mypy_grpc_out=quiet:{into}",
        )  # fmt: skip
        run(*messages, *stubs, *contracts())
        run(*messages, "buf/validate/validate.proto")
    for stub in into.rglob("*_pb2_grpc.py"):
        if "Stub" not in stub.read_text():  # a contract without services has no stubs
            stub.unlink()
            stub.with_suffix(".pyi").unlink()
    (into / "comments.json").write_text(json.dumps(comments(), indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def comments() -> dict[str, str]:
    """The leading comment of every service, RPC, message, field, enum and value, by its full name."""
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "image.binpb"
        image(whole)
        files = descriptor_pb2.FileDescriptorSet.FromString(whole.read_bytes()).file
    found: dict[str, str] = {}
    for file in files:
        if file.package.startswith("siyu."):
            for location in file.source_code_info.location:
                if location.leading_comments and len(location.path) >= 2:
                    lines = location.leading_comments.strip().splitlines()
                    found[full_name(file, location.path)] = "\n".join(line.strip() for line in lines)
    return found


def full_name(file: descriptor_pb2.FileDescriptorProto, path: Sequence[int]) -> str:
    """The full name of what a source location's path leads to: pairs of field number and index, from the file down."""
    names = [file.package]
    at: Any = file
    for number, index in zip(path[::2], path[1::2], strict=True):
        at = getattr(at, at.DESCRIPTOR.fields_by_number[number].name)[index]
        names.append(at.name)
    return ".".join(names)


def image(out: Path) -> None:
    """Writes one self-contained descriptor set with comments: buf lints it."""
    with tempfile.TemporaryDirectory() as scratch:
        imports = dependencies(Path(scratch))
        run(
            f"--descriptor_set_in={imports}", f"-I{PROTO}", "--include_imports", "--include_source_info",
            f"--descriptor_set_out={out}", *contracts(),
        )  # fmt: skip


def check() -> None:
    """Exits with a message if the committed code is not what the contracts generate."""
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        generate(fresh)
        difference = subprocess.run(
            ["diff", "-r", "-x", "__pycache__", str(fresh), str(GENERATED)], capture_output=True, text=True, check=False
        )
        if difference.returncode != 0:
            sys.exit(f"proto/gen is not current; run `make proto`.\n{difference.stdout[:2000]}")


def main() -> None:
    """Generates, checks, or writes the image."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed code instead of writing it")
    parser.add_argument("--image", type=Path, help="write the descriptor image to this file instead")
    chosen = parser.parse_args()
    if chosen.image:
        image(chosen.image)
    elif chosen.check:
        check()
    else:
        shutil.rmtree(GENERATED, ignore_errors=True)
        GENERATED.mkdir()
        generate(GENERATED)


if __name__ == "__main__":
    main()
