"""The one place where the safety service's parts meet. Tests hand in other parts; nothing is decided here."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from kit import huge_pages
from kit.encoder import Encoder
from kit.serve import Registration, Server
from millrace.safety.v1 import safety_service_pb2 as service_pb
from millrace.safety.v1 import safety_service_pb2_grpc as service_grpc
from services.safety.anonymising import Anonymiser
from services.safety.backends.assembly import BackendPool
from services.safety.config import SafetySettings
from services.safety.detectors.detector import Detector
from services.safety.detectors.encoded import EncodedTerms
from services.safety.detectors.folding import Folder
from services.safety.detectors.lexicon import Lexicon
from services.safety.detectors.pii import PersonalData
from services.safety.detectors.recognisers import load_recognisers
from services.safety.detectors.terms import ForbiddenTerms
from services.safety.learned.assembly import assemble
from services.safety.policy import Policies
from services.safety.policy_file import load_policies
from services.safety.reload import Reload
from services.safety.safety import Safety
from services.safety.servicer import SafetyServicer

FULL_NAME = service_pb.DESCRIPTOR.services_by_name["SafetyService"].full_name


@dataclass(frozen=True, slots=True)
class SafetyService:
    """The safety service, ready to be served."""

    safety: Safety
    reload: Reload | None
    pool: concurrent.futures.Executor
    encoder: Encoder
    backends: BackendPool
    registrations: tuple[Registration, ...]

    async def warm(self, server: Server) -> None:
        """Loads what the policies need, and lays it out for speed; then the policy file is watched."""
        await self.safety.warm()
        await asyncio.to_thread(huge_pages.collapse_all)
        if self.reload:
            self.reload.start(server)

    async def close(self) -> None:
        """Ends the threads; a detector that hangs does not keep the process."""
        if self.reload:
            await self.reload.close()
        self.pool.shutdown(wait=False, cancel_futures=True)
        await self.backends.close()
        await self.encoder.close()


def build(
    settings: SafetySettings,
    detectors: Mapping[str, Detector] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> SafetyService:
    """Joins the parts; `detectors` replaces those of the same name, `environ` holds the keys of backends.

    Raises:
        kit.errors.ConfigError: The policy file is wrong.
    """
    policies = load_policies(settings.policies_file)
    personal_data = PersonalData(load_recognisers())
    learned = assemble(settings.encoder_threads)
    folder = Folder()
    backends = BackendPool(environ, settings.way_out)

    def detectors_for(policies: Policies) -> Mapping[str, Detector]:
        return {
            "forbidden_terms": EncodedTerms(ForbiddenTerms(Lexicon(folder, policies.terms))),
            "pii": personal_data,
            "injection_phrases": EncodedTerms(
                ForbiddenTerms(Lexicon(folder, policies.injections), "injection_phrases")
            ),
            **learned.detectors,
            **{name: backends.detector(name, *each) for name, each in policies.backends.items()},
            **(detectors or {}),
        }

    pool = concurrent.futures.ThreadPoolExecutor(settings.detector_threads, "detector")
    safety = Safety(
        policies, detectors_for, Anonymiser({"pii": personal_data, "names": learned.detectors["names"]}, pool), pool
    )
    path = settings.policies_file
    reload = Reload(path, partial(load_policies, path), safety) if path else None
    registration = Registration(FULL_NAME, service_grpc.add_SafetyServiceServicer_to_server, SafetyServicer(safety))
    return SafetyService(safety, reload, pool, learned.encoder, backends, (registration,))
