"""The entry point: reads the command line and calls the one module that does the command.

Modules are imported by the command that needs them, so that none waits for the others' libraries.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli import key_options
from cli.backup import options as backup_options
from cli.bench_cache.options import add_arguments
from cli.bench_engine.options import add_arguments as add_engine_arguments
from cli.errors import CommandError
from kit.errors import MillraceError

EXIT_FAILED = 1
# As for a bad command line: nothing was done.
EXIT_REFUSED = 2
# As shells report a program that Ctrl-C ended.
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except CommandError as error:
        print(f"millrace: {error}", file=sys.stderr)
        return EXIT_FAILED
    except MillraceError as error:
        print(f"millrace: {error.message}", file=sys.stderr)
        return EXIT_REFUSED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has enough, as `head` does. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="millrace", description="LLM serving as gRPC microservices.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="start the four services and stop them with Ctrl-C")
    up.add_argument("--no-color", action="store_true", help="no colours (as with NO_COLOR=1)")
    up.add_argument("--log-to-stdout", action="store_true", help="log to standard output, not to .millrace/logs")
    up.set_defaults(run=_up)

    chat = commands.add_parser("chat", help="chat in the terminal, or ask once")
    chat.add_argument("message", nargs="*", help="ask this and end; also read from a pipe")
    chat.add_argument("--model", default="auto", help="public name of the model (default: the router picks)")
    chat.add_argument("--system", help="system prompt")
    chat.add_argument("--temperature", type=float, help="0 to 2; absent means the model's default")
    chat.add_argument("--url", help="base URL of the edge (default: as the settings say)")
    chat.add_argument("--grpc", action="store_true", help="speak gRPC to inference instead of SSE to the edge")
    chat.add_argument("--target", metavar="HOST:PORT", help="where inference is (default: as the settings say)")
    _add_api_key(chat)
    chat.set_defaults(run=_chat)

    models = commands.add_parser("models", help="list the models")
    models.add_argument("--url", help="base URL of the edge (default: as the settings say)")
    _add_api_key(models)
    models.set_defaults(run=_models)
    _add_watching(commands)
    key_options.add_keys(commands, _add_reach).set_defaults(run=_keys)
    key_options.add_users(commands, _add_reach).set_defaults(run=_keys)

    bench = commands.add_parser("bench", help="measure a service on labelled data")
    measures = bench.add_subparsers(required=True, metavar="WHAT")
    cache = measures.add_parser("cache", help="what the cache answers, and how much of that is wrong, by policy")
    add_arguments(cache)
    cache.set_defaults(run=_bench_cache)
    safety = measures.add_parser("safety", help="what the safety service finds, and how fast")
    for name, rows in (("moderation", "labels"), ("pii", "spans"), ("injection", "injection")):
        safety.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"JSON lines with text and {rows}; also .gz")
    safety.add_argument("--json", type=Path, metavar="OUT", help="write the figures here as flat records")
    safety.add_argument("--document", type=Path, metavar="FILE", help="write the tables between its markers")
    safety.add_argument("--profile", default="", help="policy profile (default: default; moderation for --moderation)")
    safety.add_argument("--target", metavar="HOST:PORT", help="a running service (default: start one)")
    safety.set_defaults(run=_bench_safety)

    engine = measures.add_parser("engine", help="how fast local models answer, beside their peers")
    add_engine_arguments(engine)
    engine.set_defaults(run=_bench_engine)

    config = commands.add_parser("config", help="print every setting as a Markdown table")
    where = config.add_mutually_exclusive_group()
    where.add_argument("--write", type=Path, metavar="FILE", help="put the table between the markers of a document")
    where.add_argument("--check", type=Path, metavar="FILE", help="fail where a document's table is not current")
    config.set_defaults(run=_config)

    migrate = commands.add_parser("migrate", help="bring the database's schema up to date")
    migrate.set_defaults(run=_migrate)

    backup_options.add(commands, _backup, _restore)

    version = commands.add_parser("version", help="print the versions of Millrace, Python and gRPC")
    version.set_defaults(run=_version)
    return parser


def _add_watching(commands: Any) -> None:
    top = commands.add_parser("top", help="watch how Millrace fares")
    top.add_argument("--once", action="store_true", help="print the figures once and end")
    top.set_defaults(run=_top)
    trace = commands.add_parser("trace", help="print the waterfall of a request")
    trace.add_argument("request_id", help="the answer's x-request-id")
    trace.set_defaults(run=_trace)
    for command in (top, trace):
        command.add_argument("--url", help="base URL of the edge (default: as the settings say)")
        _add_api_key(command)


def _add_api_key(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--api-key",
        default=os.environ.get("MILLRACE_API_KEY", ""),
        help="key to show (default: MILLRACE_API_KEY, which no list of processes shows)",
    )


def _add_reach(command: argparse.ArgumentParser) -> None:
    command.add_argument("--target", metavar="HOST:PORT", help="where inference is (default: as the settings say)")
    _add_api_key(command)


def _up(args: argparse.Namespace) -> int:
    from cli.up import LOG_DIR, up

    return up(not args.no_color, None if args.log_to_stdout else LOG_DIR)


def _chat(args: argparse.Namespace) -> int:
    from cli.answers import Ask, GrpcBackend, SseBackend
    from cli.chat import Chat, say_once, talk

    backend = (
        GrpcBackend(args.target or _grpc_target(), args.api_key)
        if args.grpc
        else SseBackend(args.url or _edge_url(), args.api_key)
    )
    chat = Chat(backend, Ask(args.model, args.temperature), args.system)
    text = " ".join(args.message) or ("" if sys.stdin.isatty() else sys.stdin.read().strip())
    if not text and not sys.stdin.isatty():
        raise CommandError("nothing to ask: give a message, or pipe one in")
    return say_once(chat, text) if text else talk(chat)


def _models(args: argparse.Namespace) -> int:
    from cli.models import print_models

    return print_models(args.url or _edge_url(), args.api_key)


def _top(args: argparse.Namespace) -> int:
    from cli.top import top

    return top(args.url or _edge_url(), args.api_key, args.once)


def _trace(args: argparse.Namespace) -> int:
    from cli.trace import print_trace

    return print_trace(args.url or _edge_url(), args.api_key, args.request_id)


def _keys(args: argparse.Namespace) -> int:
    from cli.keys import run

    return run(args)


def _bench_cache(args: argparse.Namespace) -> int:
    from cli.bench_cache.command import run

    return run(args)


def _bench_safety(args: argparse.Namespace) -> int:
    from cli.bench_safety import Options, bench_safety

    return bench_safety(
        Options(args.moderation, args.pii, args.injection, args.json, args.document, args.target, args.profile)
    )


def _bench_engine(args: argparse.Namespace) -> int:
    from cli.bench_engine.command import run

    return run(args)


def _config(args: argparse.Namespace) -> int:
    from cli import tables

    if args.write:
        tables.write(args.write)
    elif not args.check:
        print(tables.markdown())
    elif not tables.is_current(args.check):
        raise CommandError(f"the configuration table of {args.check} is stale: run make docs-config")
    return 0


def _migrate(_: argparse.Namespace) -> int:
    from cli.migrate import migrate

    return migrate()


def _backup(args: argparse.Namespace) -> int:
    from cli.backup.command import backup

    return backup(args.folder, args.only)


def _restore(args: argparse.Namespace) -> int:
    from cli.backup.command import restore

    return restore(args.folder, args.only, args.force, args.check)


def _version(_: argparse.Namespace) -> int:
    import platform
    from importlib.metadata import version

    print(f"millrace {version('millrace')} (Python {platform.python_version()}, grpcio {version('grpcio')})")
    return 0


def _edge_url() -> str:
    from cli.layout import Layout

    return Layout.load().edge_url


def _grpc_target() -> str:
    from cli.layout import Layout

    return Layout.load().inference_target


if __name__ == "__main__":
    sys.exit(main())
