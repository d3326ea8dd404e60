"""Which classes send the signals of a model, and which rows a many-to-many changed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

from django.apps import apps
from django.db.models import Model
from django.db.models.fields.related_descriptors import ManyToManyDescriptor

from django_gomq.bus.errors import ConfigurationError

_CHANGES: Final = frozenset({"post_add", "post_remove", "post_clear"})


def find_model(model: str | type[Model], caller: str) -> type[Model]:
    """Return the model class, which may be abstract, a proxy or unmanaged.

    Raises ConfigurationError, with the caller's name, for what is no model, what is
    swapped out, and while models are still being loaded.
    """
    name = repr(model) if isinstance(model, str) else getattr(model, "__name__", model)
    call = f"{caller}({name})"
    if not apps.models_ready:
        raise ConfigurationError(
            f"{call}: models are still being loaded: call it in AppConfig.ready()."
        )
    found = _look_up(model, call) if isinstance(model, str) else model
    if not (isinstance(found, type) and issubclass(found, Model)) or found is Model:
        raise ConfigurationError(
            f"{call}: that is no model; give a model class, or 'app_label.ModelName'."
        )
    swapped = found._meta.swapped
    if swapped:
        raise ConfigurationError(
            f"{call}: {found._meta.label} is swapped out, {found._meta.swappable} is "
            f"{swapped!r}: name settings.{found._meta.swappable}."
        )
    return found


def _look_up(label: str, call: str) -> Any:
    try:
        return apps.get_model(label)
    except ValueError:
        raise ConfigurationError(
            f"{call} names no app: write 'app_label.ModelName'."
        ) from None
    except LookupError as error:
        app = label.partition(".")[0]
        models = apps.app_configs[app].get_models() if app in apps.app_configs else ()
        names = ", ".join(sorted(model._meta.label for model in models))
        known = f"There are {names}. " if names else ""
        raise ConfigurationError(
            f"{call}: {error} {known}Write 'app_label.ModelName'; of an abstract model "
            "give the class."
        ) from error


def classes_of(model: type[Model]) -> list[type[Model]]:
    """Return the classes whose instances are instances of the model, it first.

    Django sends their signals as from them alone: proxies, children with a table of
    their own, and whatever inherits from an abstract model. Raises ConfigurationError
    where none has a table.
    """
    found = [class_ for class_ in _family(model) if not class_._meta.abstract]
    found = [class_ for class_ in dict.fromkeys(found) if not class_._meta.swapped]
    if not found:
        raise ConfigurationError(
            f"{model.__name__} is abstract, and no model inherits from it: name one "
            "that has a table."
        )
    return found


def _family(model: type[Model]) -> Iterator[type[Model]]:
    yield model
    for child in model.__subclasses__():
        yield from _family(child)


def deleted_as(model: type[Model]) -> list[type[Model]]:
    """Return the classes of which a deletion tells, one for each row.

    Of a child with a table of its own Django tells a second time, of its parent.
    """
    family = classes_of(model)
    tables = {class_ for class_ in family if not class_._meta.proxy}
    return [class_ for class_ in family if tables.isdisjoint(_parents(class_))]


def _parents(model: type[Model]) -> Collection[Any]:
    concrete = model._meta.concrete_model or model
    return concrete._meta.get_parent_list()


class ManyToMany:
    """One side of a many-to-many relation, and which of its rows a change is about."""

    def __init__(self, model: type[Model], accessor: str) -> None:
        """Look for it; raises ConfigurationError where the model has none."""
        descriptor = getattr(model, accessor, None)
        if not isinstance(descriptor, ManyToManyDescriptor):
            known = ", ".join(_accessors(model)) or "none"
            raise ConfigurationError(
                f"{model._meta.label}: {accessor!r} is no many-to-many field, nor its "
                f"accessor from the other side; there are {known}."
            )
        self.through: Any = descriptor.through
        self.label = model._meta.label
        self._model = model
        self._is_reverse = descriptor.reverse
        field: Any = descriptor.rel.field
        self._is_symmetrical = descriptor.rel.symmetrical
        self._query_name = (
            field.related_query_name() if descriptor.reverse else field.name
        )

    def changed(self, instance: Any, action: str, **signal: Any) -> Iterable[Any]:
        """Return the instances of the model that this ``m2m_changed`` is about."""
        is_far = signal["reverse"] != self._is_reverse
        keys: Collection[Any] | None = signal["pk_set"]
        if not is_far and isinstance(instance, self._model):
            is_change = action in _CHANGES and (keys is None or len(keys) > 0)
            yield from [instance] if is_change else []
        if is_far or self._is_symmetrical:
            yield from self._changed_from_far(instance, action, keys, signal["using"])

    def _changed_from_far(
        self, instance: Any, action: str, keys: Collection[Any] | None, using: str
    ) -> Iterable[Any]:
        """Look for the instances that ``tag.records.add(...)`` changed.

        The signal's instance is the tag then, and it names the records by their keys. A
        clear names none, and tells before it happens.
        """
        related = self._model._base_manager.using(using)
        if action == "pre_clear":
            return related.filter(**{self._query_name: instance.pk}).order_by("pk")
        if action in _CHANGES and keys:
            return related.filter(pk__in=keys).order_by("pk")
        return []


def _accessors(model: type[Model]) -> list[str]:
    relations: list[Any] = [
        relation for relation in model._meta.related_objects if relation.many_to_many
    ]
    fields = [field.name for field in model._meta.many_to_many]
    return sorted(
        [*fields, *(str(relation.get_accessor_name()) for relation in relations)]
    )
