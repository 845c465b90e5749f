"""``add-spconfig``, ``set-spconfig``, ``remove-spconfig``, ``list-spconfig``: the host's layout, saved under names.

What the host has now is in the store in any case, so the autosave of the current configuration is not kept twice: it
is the store itself. Only what a power-on has replaced is written down as an autosave of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

from ldoms.manager.control_domain import factory_default
from ldoms.manager.host import Host
from ldoms.model.configuration import (
    FACTORY_DEFAULT,
    POST_MIGRATION,
    Configuration,
    ConfigurationView,
    check_configuration_name,
    guests_of,
)
from ldoms.model.errors import AlreadyExists, NotFound, RequestError
from ldoms.model.events import EventKind
from ldoms.model.migration import MigrationOptions
from ldoms.model.services import Services

CURRENT, NEXT = "configuration", "next-configuration"
"""Under which the store remembers two names."""


class ConfigurationVerbs:
    """The configurations of a host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._store = host.store

    @property
    def current(self) -> str:
        """The configuration that the host was last saved as, or made from at a power-on."""
        return self._store.recall(CURRENT) or FACTORY_DEFAULT

    @property
    def chosen(self) -> str:
        """The configuration that was chosen for the next power-on; empty = none was."""
        return self._store.recall(NEXT)

    def snapshot(self, name: str) -> Configuration:
        """The host as it is now. A domain that is about to come or to go is not part of it."""
        domains = tuple(domain for domain in self._store.domains() if self._host.is_owner(domain.uuid))
        return Configuration(name, time.time(), domains, self._store.services())

    # Verbs

    def add(self, name: str) -> None:
        """Save the host under a new name, which is the current configuration then.

        Raises:
            RequestError: it cannot be a name, or is reserved.
            AlreadyExists: it is taken.
        """
        check_configuration_name(name)
        self._check_new(name)
        self._save_as(name)

    def recover(self, autosave: str, new_name: str) -> None:
        """Make a configuration of changes that were not saved: under the same name, or a new one.

        Changes that the host still has are saved; what a power-on has replaced comes back with the next one.

        Raises:
            NotFound: there is no autosave of that name.
            RequestError: the name of the configuration is reserved.
            AlreadyExists: the new name is taken.
        """
        kept = self._store.configuration(autosave, autosaved=True)
        if kept is None and autosave != self.current:
            raise NotFound(f"autosave {autosave} was not found: 'ldm list-spconfig -r' lists what there is")
        name = check_configuration_name(new_name or autosave)
        if new_name:
            self._check_new(new_name)
        if kept is None:
            self._save_as(name)
            return
        with self._store.transaction():
            self._store.put_configuration(replace(kept, name=name, saved_at=time.time()))
            self._store.delete_configuration(autosave, autosaved=True)
            self._store.remember(NEXT, name)
            self._tell(name)

    def set(self, name: str) -> None:
        """Choose the configuration for the next power-on.

        Raises:
            NotFound: there is none of that name.
        """
        self._check_known(name)
        with self._store.transaction():
            is_brought_anyway = name == self.current and name != FACTORY_DEFAULT
            self._store.remember(NEXT, "" if is_brought_anyway else name)
            self._tell(name)

    def remove(self, name: str, *, autosaved: bool) -> None:
        """Forget a configuration with its autosave, or the autosave alone; the host stays as it is.

        Raises:
            RequestError: it is the factory default, which is always there.
            NotFound: there is none of that name.
        """
        if autosaved:
            if self._store.configuration(name, autosaved=True) is None:
                hint = " apart from what the host has now" if name == self.current else ""
                raise NotFound(f"an autosave of configuration {name} was not found{hint}")
            self._store.delete_configuration(name, autosaved=True)
            return
        if name == FACTORY_DEFAULT:
            raise RequestError(
                f"configuration {FACTORY_DEFAULT} is always there: it cannot be removed", code="bad-name"
            )
        self._check_known(name)
        with self._store.transaction():
            self._store.delete_configuration(name)
            self._store.delete_configuration(name, autosaved=True)
            if name == self.current:
                self._store.remember(CURRENT, "")
            if name == self.chosen:
                self._store.remember(NEXT, "")
            self._tell(name)

    def save_after_migration(self, options: MigrationOptions) -> None:
        """Save the host, as a domain has just come or gone, under the name that is kept for that, if it is wanted."""
        if options.save_spconfig or self._host.facts.saves_configuration:
            self._save_as(POST_MIGRATION)

    # Listings

    def list(self) -> tuple[ConfigurationView, ...]:
        """All configurations, the factory default first, then the oldest."""
        factory = Configuration(FACTORY_DEFAULT, 0.0)
        return tuple(
            ConfigurationView(
                known.name,
                known.saved_at,
                is_current=known.name == self.current,
                is_next=known.name == self.chosen,
                domains=len(guests_of(known.domains)),
            )
            for known in (factory, *self._store.configurations())
        )

    def list_autosaves(self, name: str = "") -> tuple[ConfigurationView, ...]:
        """All autosaves, or that of one configuration.

        Raises:
            NotFound: there is none of that name.
        """
        kept = {known.name: known for known in self._store.configurations(autosaved=True)}
        autosaves = {self.current: self.snapshot(self.current), **kept}
        if name and name not in autosaves:
            raise NotFound(f"autosave {name} was not found")
        return tuple(
            ConfigurationView(
                autosave.name,
                autosave.saved_at,
                is_current=autosave.name == self.current,
                is_newer=self.is_newer(autosave),
                domains=len(guests_of(autosave.domains)),
            )
            for autosave in autosaves.values()
            if not name or autosave.name == name
        )

    def is_newer(self, autosave: Configuration) -> bool:
        """Whether an autosave has what the configuration of its name has not."""
        if autosave.name == FACTORY_DEFAULT:
            return not self._is_factory(autosave)
        saved = self._store.configuration(autosave.name)
        return saved is not None and autosave.saved_at > saved.saved_at and not autosave.is_same_layout(saved)

    def is_factory_default(self) -> bool:
        """Whether nothing was ever made of the host, or all of it was taken back."""
        return self._is_factory(self.snapshot(FACTORY_DEFAULT))

    # Inside

    def _save_as(self, name: str) -> None:
        before = self.snapshot(self.current)
        with self._store.transaction():
            if name != before.name and before.name != FACTORY_DEFAULT and self.is_newer(before):
                self._store.put_configuration(before, autosaved=True)
            self._store.put_configuration(replace(before, name=name))
            self._store.delete_configuration(name, autosaved=True)
            self._store.remember(CURRENT, name)
            self._store.remember(NEXT, "")
            self._tell(name)

    def _is_factory(self, configuration: Configuration) -> bool:
        """Whether nothing was ever made of the host."""
        control = next((domain for domain in configuration.domains if domain.is_control), None)
        if guests_of(configuration.domains) or configuration.services != Services():
            return False
        return control is None or control.constraints == factory_default(self._host.size, control.mac).constraints

    def _check_new(self, name: str) -> None:
        if name in self._names():
            raise AlreadyExists(f"configuration {name} already exists: remove it first ('ldm remove-spconfig {name}')")

    def _check_known(self, name: str) -> None:
        if name not in self._names():
            raise NotFound(f"configuration {name} was not found: 'ldm list-spconfig' lists what there is")

    def _names(self) -> Iterable[str]:
        return {FACTORY_DEFAULT, *(known.name for known in self._store.configurations())}

    def _tell(self, name: str) -> None:
        self._host.events.publish(EventKind.CONFIGURATIONS_CHANGED, configuration=name)
