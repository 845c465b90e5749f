"""What requests look like on the wire. Answers are values of the model, written by `ldoms.model.codec`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from ldoms.model.migration import DEFAULT_MAX_SUSPEND_S, OnStall
from ldoms.model.sizes import MAX_DESCRIPTION_BYTES
from ldoms.model.stopping import MAX_STOP_S, StopMode

PREFIX = "/v1"
COMMAND_HEADER = "X-Ldm-Command"
"""The command line behind a request, for ``ldm list-history``."""
RUN_HEADER = "X-Ldm-Run"
"""The same in all requests of one command line: it gets one row of ``ldm list-history``."""
NOTICE_HEADER = "X-Ldm-Notice"
"""Of an answer: what `ldm` has to tell whoever typed the command, percent-encoded."""
CONSOLE_HEADER = "X-Ldm-Console"
"""The id of a client of a console, in the answer that it follows."""


CoreId = Annotated[int, Field(ge=0, le=1 << 40)]
"""The number of a core."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Properties(_Body):
    """Properties as the command line has them; an empty value clears one."""

    properties: dict[str, str] = Field(default_factory=dict)


class NewDomain(Properties):
    """A domain to be made."""

    name: str


class Amount(_Body):
    """A change of the number of virtual CPUs or cores, or of memory in MiB."""

    action: Literal["add", "set", "remove"]
    amount: int = Field(ge=0, le=1 << 40)


class CoreChange(_Body):
    """A change of the whole cores of a domain: of their number, or with `core_ids` of those that are named."""

    action: Literal["add", "set", "remove"]
    amount: int = Field(default=0, ge=0, le=1 << 40)
    core_ids: tuple[CoreId, ...] | None = Field(default=None, max_length=1 << 16)


class MemoryAmount(Amount):
    """A change of memory in MiB; `adjusted`: rounded to what is possible, not refused."""

    adjusted: bool = False


class Variables(_Body):
    """Boot variables and their values."""

    values: dict[str, str]


class NewDisk(_Body):
    """A disk for a domain; `id` None = the next free one."""

    name: str
    volume: str
    service: str
    timeout_s: int = Field(default=0, ge=0)
    id: int | None = Field(default=None, ge=0)


class SwitchProperties(Properties):
    """Properties of a virtual switch; `quick`: its uplink need not be there."""

    quick: bool = False


class DiskChange(_Body):
    """A change of a disk: another volume, another time to wait; what is empty or None stays."""

    volume: str = ""
    service: str = ""
    timeout_s: int | None = Field(default=None, ge=0)


class NewNetwork(Properties):
    """A network interface for a domain."""

    name: str
    switch: str


class NewPolicy(Properties):
    """A resource management policy for a domain."""

    name: str


class NewService(Properties):
    """A virtual service for a domain (``primary``)."""

    name: str
    domain: str


class NewSwitch(NewService):
    """A virtual switch; `quick`: its uplink need not be there."""

    quick: bool = False


class NewVolume(_Body):
    """A back end to be offered by a disk service."""

    name: str
    backend: str
    options: tuple[str, ...] = ()
    mpgroup: str = ""
    force: bool = False
    quick: bool = False


class VolumeChange(_Body):
    """A change of a volume; what is None stays, what is empty is cleared."""

    options: tuple[str, ...] | None = None
    mpgroup: str | None = None
    force: bool = False


class Binding(_Body):
    """How a domain is bound; `quick`: its back ends are not looked at now."""

    quick: bool = False


class Force(_Body):
    """Whether to insist."""

    force: bool = False


class Stop(_Body):
    """How a domain is to be stopped; see `ldoms.model.stopping.StopOptions`."""

    mode: StopMode = StopMode.SHUT_DOWN
    limit_s: float | None = Field(default=None, ge=0, le=MAX_STOP_S)
    message: str = Field(default="", max_length=1000)


class Panic(_Body):
    """A guest that is to panic; `core` is a file for its memory, empty = none."""

    core: str = ""


class Migration(_Body):
    """A migration to be begun; see `ldoms.model.migration.MigrationOptions`. `tuning`: names and values as typed."""

    host: str
    user: str = ""
    password: SecretStr = SecretStr("")
    new_name: str = ""
    force: bool = False
    dry_run: bool = False
    certificates: bool = False
    encrypted: bool = True
    save_spconfig: bool = False
    core_map: tuple[tuple[CoreId, CoreId], ...] = ()
    copy_storage: bool = False
    max_suspend_s: float = Field(default=DEFAULT_MAX_SUSPEND_S, gt=0, le=2000)
    max_bandwidth_bytes_s: int = Field(default=0, ge=0)
    max_time_s: float = Field(default=0.0, ge=0)
    on_stall: OnStall = OnStall.THROTTLE
    tuning: dict[str, str] = Field(default_factory=dict)
    boost: int | None = Field(default=None, ge=0, le=99_999)


class MigrationLimits(_Body):
    """Limits of a migration that is under way; see `ldoms.model.migration.LimitChanges`."""

    max_bandwidth_bytes_s: int | None = Field(default=None, ge=0)
    max_suspend_s: float | None = Field(default=None, gt=0, le=2000)
    max_time_s: float | None = Field(default=None, ge=0)


class LogSwitches(Properties):
    """Sorts of messages to be logged or not, `on` or `off`; with `defaults` all others are as by default."""

    defaults: bool = False


class NewTrust(_Body):
    """A host to be trusted; without a fingerprint nothing is changed, and the answer has the one that it shows."""

    host: str
    fingerprint: str = ""


class SignOfLife(_Body):
    """How a migration stands on its source."""

    phase: str
    progress: int = Field(ge=0, le=100)


class Reason(_Body):
    """Why a migration is called off."""

    reason: str


class NewConfiguration(_Body):
    """A configuration to be saved: of the host as it is, or with `autosave` of changes that were not saved."""

    name: str = ""
    autosave: str = ""


class ConfigurationName(_Body):
    """A configuration that is there."""

    name: str


class Constraints(_Body):
    """Domains and services as XML."""

    xml: str


class UseOfConstraints(_Body):
    """What is to be done with domains that are described as XML; `force` and `services_only` are of ``init``.

    `quick` is of ``bind``: back ends are not looked at now.
    """

    action: Literal["add", "set", "bind", "start", "init"]
    xml: str = Field(max_length=MAX_DESCRIPTION_BYTES)
    force: bool = False
    services_only: bool = False
    quick: bool = False
