"""AccessService: translate in, call, translate out."""

from __future__ import annotations

from typing import Any

from google.protobuf.duration_pb2 import Duration

from kit import identity
from kit.identity import DEFAULT_TENANT
from millrace.inference.v1 import access_service_pb2 as pb
from millrace.inference.v1 import access_service_pb2_grpc
from services.inference.access.key_servicer import page_size, role_number, role_of, timestamp
from services.inference.access.users import Login, User, Users


class AccessServicer(access_service_pb2_grpc.AccessServiceServicer):
    """Lets users log in, keeps them, and says who is calling."""

    def __init__(self, users: Users) -> None:
        self._users = users

    async def Login(self, request: pb.LoginRequest, context: Any) -> pb.LoginResponse:
        """Trades a name and a password for tokens."""
        address = identity.current().caller.client_id
        return pb.LoginResponse(tokens=_tokens(await self._users.login(request.name, request.password, address)))

    async def RefreshLogin(self, request: pb.RefreshLoginRequest, context: Any) -> pb.RefreshLoginResponse:
        """Trades a refresh token for new tokens."""
        return pb.RefreshLoginResponse(tokens=_tokens(await self._users.refresh(request.refresh_token)))

    async def GetCaller(self, request: pb.GetCallerRequest, context: Any) -> pb.GetCallerResponse:
        """Gets what the credential of this call stands for."""
        caller = identity.current().caller
        return pb.GetCallerResponse(
            principal=caller.principal,
            tenant=caller.tenant,
            role=caller.role,
            key_id=caller.key_id,
            tier=caller.tier,
            models=caller.models,
            endpoints=caller.endpoints,
            safety_profiles=caller.safety_profiles,
        )

    async def CreateUser(self, request: pb.CreateUserRequest, context: Any) -> pb.CreateUserResponse:
        """Makes a user."""
        asked = request.user
        user = User(asked.name, asked.tenant or DEFAULT_TENANT, role_of(asked.role, "user.role"), asked.tier)
        return pb.CreateUserResponse(user=_user(await self._users.create(user, request.password)))

    async def ListUsers(self, request: pb.ListUsersRequest, context: Any) -> pb.ListUsersResponse:
        """Lists users by name."""
        size = page_size(request.page_size)
        found = await self._users.list(size + 1, request.page_token)
        more = found[size - 1].name if len(found) > size else ""
        return pb.ListUsersResponse(users=[_user(user) for user in found[:size]], next_page_token=more)

    async def DisableUser(self, request: pb.DisableUserRequest, context: Any) -> pb.DisableUserResponse:
        """Lets a user log in no more."""
        return pb.DisableUserResponse(user=_user(await self._users.disable(request.name)))


def _tokens(login: Login) -> pb.LoginTokens:
    ttl = Duration(seconds=login.access_ttl_s)
    return pb.LoginTokens(access_token=login.access_token, access_token_ttl=ttl, refresh_token=login.refresh_token)


def _user(user: User) -> pb.User:
    return pb.User(
        name=user.name,
        tenant=user.tenant,
        role=role_number(user.role),
        tier=user.tier,
        created_time=timestamp(user.created_time_ms),
        disable_time=timestamp(user.disable_time_ms),
    )
