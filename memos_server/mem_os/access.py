"""Who may do what: the one table of permissions, and what of a cube a principal sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from memos_server import names
from memos_server._pb.mip.v1 import options_pb2
from memos_server._pb.mip.v1.access_pb2 import ROLE_ADMIN, ROLE_CREATOR, ROLE_READER, ROLE_WRITER
from memos_server._pb.mip.v1.common_pb2 import SENSITIVITY_SECRET
from memos_server.errors import MipError
from memos_server.graph_dbs.base import Clearance, PrincipalAccess, Version

SERVER = "server"
WRITER = 2
"""The rank from which on a principal changes a cube."""

_RANK = {ROLE_READER: 1, ROLE_WRITER: 2, ROLE_ADMIN: 3}
_NEEDED = {options_pb2.PERMISSION_READ: 1, options_pb2.PERMISSION_WRITE: 2, options_pb2.PERMISSION_ADMIN: 3}


@dataclass(frozen=True, slots=True)
class CubeView:
    """What a principal sees of a cube.

    Attributes:
        rank: 0 without a role on the whole cube, 1 reader, 2 writer, 3 administrator.
        level: The Sensitivity number up to which memories are seen; 0 none.
        granted: memory id -> level, for grants on single memories.
    """

    rank: int
    level: int
    granted: dict[str, int] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """True when nothing in the cube is hidden."""
        return self.rank > 0 and self.level >= SENSITIVITY_SECRET

    @property
    def clearance(self) -> Clearance:
        """The same as the record store judges it, where it counts and lists."""
        return Clearance(self.level, self.granted, whole=self.rank > 0)

    def ceiling(self, memory_id: str = "") -> int:
        """Returns the level up to which a memory is seen: that of the cube, or of a grant on the memory alone."""
        return max(self.level, self.granted.get(memory_id, 0))

    def sees(self, version: Version) -> bool:
        """Returns whether a version of a memory is visible: judged by the stricter of its label then and now."""
        label = max(version.sensitivity, version.current_sensitivity)
        return label <= self.ceiling(version.id)


def denied(resource: str) -> MipError:
    """Returns the one answer for what does not exist and for what the caller may not know of."""
    return MipError(
        "PERMISSION_DENIED", f"{resource or 'the resource'} does not exist, or you lack the permission for this call"
    )


def is_server_admin(access: PrincipalAccess) -> bool:
    """Returns whether a principal administers the server."""
    return access.grants.get(SERVER, (0, 0))[0] == ROLE_ADMIN


def view_of(access: PrincipalAccess, cube_id: str) -> CubeView:
    """Returns what a principal sees of a cube, whether the cube exists or not."""
    role, level = access.grants.get(names.cube_name(cube_id), (0, 0))
    prefix = f"{names.cube_name(cube_id)}/memories/"
    granted = {
        resource.removeprefix(prefix): memory_level
        for resource, (_, memory_level) in access.grants.items()
        if resource.startswith(prefix)
    }
    if is_server_admin(access):
        return CubeView(_RANK[ROLE_ADMIN], max(level, access.grants[SERVER][1]), granted)
    return CubeView(_RANK.get(role, 0), level if role else 0, granted)  # type: ignore[call-overload]


def require_level(view: CubeView, label: int, cube_id: str, memory_id: str) -> None:
    """Checks that a caller gives a memory no label above its own level.

    Raises:
        MipError: PERMISSION_DENIED.
    """
    # The first comparison spares most calls the look at single grants.
    if label > view.level and label > view.ceiling(memory_id):
        name = names.memory_name(cube_id, memory_id)
        raise MipError("PERMISSION_DENIED", f"the sensitivity of {name} would be above your own level")


def permits(access: PrincipalAccess, permission: int, resource: str) -> bool:
    """Returns whether a principal has a permission on a resource.

    Args:
        access: The principal's grants.
        permission: A Permission number.
        resource: `server`, or the name of a cube or of something in one; empty where the RPC names none.
    """
    if permission == options_pb2.PERMISSION_AUTHENTICATED or is_server_admin(access):
        return True
    if permission == options_pb2.PERMISSION_CREATE_CUBE:
        return access.grants.get(SERVER, (0, 0))[0] == ROLE_CREATOR
    needed = _NEEDED.get(permission)  # type: ignore[call-overload]
    if needed is None or not resource.startswith("cubes/"):
        return False
    cube = "/".join(resource.split("/")[:2])
    ranks = [_RANK.get(access.grants.get(name, (0, 0))[0], 0) for name in {cube, resource}]  # type: ignore[call-overload]
    if max(ranks) >= needed:
        return True
    # Who holds a grant on one memory may read the cube as far as that memory: list and search find it alone.
    below = f"{cube}/memories/"
    return needed == 1 and resource == cube and any(name.startswith(below) for name in access.grants)


def require(access: PrincipalAccess, permission: int, resources: Sequence[str]) -> None:
    """Checks a permission on everything that a request names.

    Where a request names a cube and memories in it, the permission on those memories suffices for the cube.

    Raises:
        MipError: PERMISSION_DENIED naming the first resource that fails.
    """
    holding = {resource.partition("/memories/")[0] for resource in resources if "/memories/" in resource}
    for resource in dict.fromkeys(resources):
        needed = options_pb2.PERMISSION_READ if resource in holding else permission
        if not permits(access, needed, resource):
            raise denied(resource)
