"""A stand-in for a service's process: serves gRPC health, drains on SIGTERM, and can be told to misbehave.

Run as a program: `python -m tests.fakes.service --port N [--journal FILE] [--die-with CODE] [--ignore-sigterm]`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


async def main() -> int:
    """Serves until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="fake")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--journal", type=Path, help="append the name here when stopped")
    parser.add_argument("--die-with", type=int, help="say something and exit with this code instead of serving")
    parser.add_argument("--die-if", type=Path, help="exit with 1 instead of serving where this file exists")
    parser.add_argument("--no-handlers-if", type=Path, help="load for ever where this file exists")
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--never-ready", action="store_true")
    parser.add_argument("--no-handlers", action="store_true", help="load for ever, without handling signals")
    args = parser.parse_args()
    print(json.dumps({"message": f"{args.name} is loading"}), flush=True)
    if args.die_with is not None:
        print("the disk is made of cheese", flush=True)
        return int(args.die_with)
    if args.die_if and args.die_if.exists():
        return 1
    if args.no_handlers or (args.no_handlers_if and args.no_handlers_if.exists()):
        await asyncio.Event().wait()
    stop = asyncio.Event()
    on_sigterm = (lambda: None) if args.ignore_sigterm else stop.set
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, on_sigterm)
    servicer = health.aio.HealthServicer()
    status = health_pb2.HealthCheckResponse.NOT_SERVING if args.never_ready else health_pb2.HealthCheckResponse.SERVING
    await servicer.set("", status)
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{args.port}")
    await server.start()
    await stop.wait()
    if args.journal:
        with args.journal.open("a") as file:
            file.write(f"{args.name}\n")
    await server.stop(0)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
