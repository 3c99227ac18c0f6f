"""Uploads, as far as the edge has to do with them."""

from __future__ import annotations

import errno
from tempfile import SpooledTemporaryFile
from typing import Any

import pytest
from starlette import formparsers


class FullDisk(SpooledTemporaryFile):  # type: ignore[type-arg]
    """A temporary file on a disk that has no room."""

    def write(self, data: Any) -> int:
        """Fails as the kernel does."""
        raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_full_disk_is_told_as_that(edge, monkeypatch, caplog):
    """An upload that finds no room is 503 and says what it is; so does the log, with the folder."""
    monkeypatch.setattr(formparsers, "SpooledTemporaryFile", FullDisk)
    answer = await edge.client.post("/v1/files", files={"file": ("in.jsonl", b"x")}, data={"purpose": "batch"})
    error = answer.json()["error"]

    assert (answer.status_code, error["code"], answer.headers["retry-after"]) == (503, "disk_full", "5")
    assert "disk for uploads is full" in error["message"]
    assert [record.message for record in caplog.records if record.name == "services.edge.jobs.files"] == [
        "the disk for uploads is full"
    ]


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
async def test_another_failure_of_the_disk_is_not(edge, monkeypatch, number):
    """What is no want of room is a failure of Millrace's own."""

    class Broken(FullDisk):
        def write(self, data: Any) -> int:
            raise OSError(number, "broken")

    monkeypatch.setattr(formparsers, "SpooledTemporaryFile", Broken)
    answer = await edge.client.post("/v1/files", files={"file": ("in.jsonl", b"x")}, data={"purpose": "batch"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
