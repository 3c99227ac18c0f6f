"""The wheel of the generated stubs stands alone: grpcio and protobuf are all that it needs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What the wheel needs, with what these need in turn.
RUNTIME = ("grpcio", "protobuf", "typing_extensions")

# Runs where only the wheel, grpcio and protobuf are: imports every module and makes a call of each shape.
PROBE = """
import importlib, json, sys
from concurrent import futures
import grpc
from millrace.inference.v1 import inference_service_pb2 as pb, inference_service_pb2_grpc as rpc

for name in json.loads(sys.argv[1]):
    importlib.import_module(name)

class Servicer(rpc.InferenceServiceServicer):
    def GetModel(self, request, context):
        response = pb.GetModelResponse()
        response.model.name = request.name
        return response

    def StreamGenerate(self, request, context):
        for sequence in (1, 2):
            yield pb.StreamGenerateResponse(sequence=sequence)

server = grpc.server(futures.ThreadPoolExecutor(2))
rpc.add_InferenceServiceServicer_to_server(Servicer(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    stub = rpc.InferenceServiceStub(channel)
    model = stub.GetModel(pb.GetModelRequest(name="m"), timeout=10).model.name
    sequences = [event.sequence for event in stub.StreamGenerate(pb.StreamGenerateRequest(), timeout=10)]
    try:
        stub.ListModels(pb.ListModelsRequest(), timeout=10)
        missing = ""
    except grpc.RpcError as error:
        missing = error.code().name
server.stop(0)
print(json.dumps({"model": model, "sequences": sequences, "missing": missing, "third": sorted(
    {name.partition(".")[0] for name in sys.modules} & {"kit", "services", "pydantic", "opentelemetry", "torch"})}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    # A copy, so that neither leftovers of an older build get into the wheel nor this one's into the tree.
    source = shutil.copytree(ROOT / "gen", out / "gen", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    return next(out.glob("millrace_stubs-*.whl"))


@pytest.fixture(scope="module")
def empty_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel and its two requirements; those are linked, not fetched, so no network."""
    home = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True, timeout=120)
    site = next(home.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for name in RUNTIME:
        package = distribution(name)
        for top in {file.parts[0] for file in package.files or () if ".." not in file.parts}:
            target = site / top
            if not target.exists():
                target.symlink_to(Path(str(package.locate_file(top))))
    return home / "bin" / "python"


def test_wheel_asks_for_grpcio_and_protobuf_only(wheel):
    """The wheel's metadata names two requirements, and it ships type information and no `millrace/__init__.py`."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    required = [line.split(":")[1].strip().split(">")[0] for line in metadata.splitlines() if "Requires-Dist" in line]

    assert sorted(required) == ["grpcio", "protobuf"]
    assert "millrace/__init__.py" not in names
    for service in ("inference", "cache", "safety"):
        assert f"millrace/{service}/v1/py.typed" in names
        assert f"millrace/{service}/v1/{service}_service_pb2_grpc.pyi" in names


def test_wheel_works_in_an_empty_environment(wheel, empty_python):
    """Every module imports, and unary, streaming and unimplemented calls work, with nothing of the project around."""
    with zipfile.ZipFile(wheel) as archive:
        modules = [name[:-3].replace("/", ".") for name in archive.namelist() if name.endswith("_pb2.py")]
    probe = subprocess.run(
        [empty_python, "-I", "-c", PROBE, json.dumps(modules)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=empty_python.parent,
    )

    assert probe.returncode == 0, probe.stderr
    assert json.loads(probe.stdout) == {
        "model": "m",
        "sequences": [1, 2],
        "missing": "UNIMPLEMENTED",
        "third": [],
    }
