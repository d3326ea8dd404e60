"""The tables of the database backend, of relays, spilled messages and operators.

Times of the bus are seconds since 1970 by the clock of the database, as floats: the
statements of the backend compare them, and add to them, in the same way on every
vendor. ``docs/databases.md`` says what each table is for.
"""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


class SparseIndex(models.Index):
    """An index of one field, of the rows that have a value in it where vendors can.

    Django makes no index with a condition where they cannot, and warns of it.
    """

    def create_sql(
        self,
        model: type[models.Model],
        schema_editor: BaseDatabaseSchemaEditor,
        using: str = "",
        **kwargs: Any,
    ) -> Any:
        """Return the statement that makes it."""
        if schema_editor.connection.features.supports_partial_indexes:
            (field,) = self.fields
            has_value = models.Q(**{f"{field}__isnull": False})
            index = models.Index(*self.fields, name=self.name, condition=has_value)
            return index.create_sql(model, schema_editor, using, **kwargs)
        return super().create_sql(model, schema_editor, using, **kwargs)


class OutboxEvent(models.Model):
    """An event that was emitted and not yet dispatched to its consumers."""

    id = models.BigAutoField(primary_key=True)
    type = models.CharField(max_length=200)
    precedence = models.SmallIntegerField()
    key_hash = models.BigIntegerField(null=True)
    delay = models.FloatField(default=0)
    made = models.FloatField()
    envelope = models.BinaryField()
    message_hash = models.BigIntegerField(null=True)
    causation_hash = models.BigIntegerField(null=True)

    class Meta:
        db_table = "gomq_outbox"
        indexes = [models.Index(fields=["precedence", "id"], name="gomq_outbox_next")]

    def __str__(self) -> str:
        return f"{self.type} {self.pk}"


class HistoryEvent(models.Model):
    """An event that was dispatched, kept to be handled and replayed."""

    id = models.BigIntegerField(primary_key=True)
    type = models.CharField(max_length=200)
    made = models.FloatField()
    envelope = models.BinaryField()
    message_hash = models.BigIntegerField(null=True)
    causation_hash = models.BigIntegerField(null=True)

    class Meta:
        db_table = "gomq_event"
        indexes = [
            models.Index(fields=["made"], name="gomq_event_made"),
            SparseIndex(fields=["message_hash"], name="gomq_event_message"),
            SparseIndex(fields=["causation_hash"], name="gomq_event_cause"),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.pk}"


class RecordedConsumer(models.Model):
    """A consumer that ``gomq setup`` recorded: events are dispatched to these."""

    id = models.AutoField(primary_key=True)
    name = models.CharField(max_length=200, unique=True)
    types = models.TextField()
    ordered = models.BooleanField(default=False)
    paused = models.BooleanField(null=True)
    capacity = models.IntegerField(null=True)

    class Meta:
        db_table = "gomq_consumer"

    def __str__(self) -> str:
        return self.name


class DueDelivery(models.Model):
    """What one consumer still has to do with one event."""

    pk = models.CompositePrimaryKey("event_id", "consumer_id")
    event_id = models.BigIntegerField()
    consumer_id = models.IntegerField()
    precedence = models.SmallIntegerField()
    state = models.SmallIntegerField()
    due = models.FloatField(null=True)
    lease = models.BigIntegerField(null=True)
    attempt = models.IntegerField(default=1)
    deaths = models.SmallIntegerField(default=0)
    first_failed = models.FloatField(null=True)
    key_hash = models.BigIntegerField(null=True)
    replayed = models.BooleanField(db_default=False)

    class Meta:
        db_table = "gomq_delivery"
        indexes = [
            models.Index(
                fields=["consumer_id", "state", "precedence", "event_id"],
                name="gomq_delivery_next",
            ),
            models.Index(fields=["state", "due"], name="gomq_delivery_due"),
            models.Index(fields=["lease"], name="gomq_delivery_lease"),
            models.Index(
                fields=["consumer_id", "key_hash", "event_id"],
                name="gomq_delivery_key",
            ),
        ]

    def __str__(self) -> str:
        return f"event {self.event_id} for consumer {self.consumer_id}"


class EndedDelivery(models.Model):
    """How a consumer last ended with one event; ``outcome`` as in ``outcomes.py``."""

    pk = models.CompositePrimaryKey("event_id", "consumer_id")
    event_id = models.BigIntegerField()
    consumer_id = models.IntegerField()
    attempt = models.IntegerField()
    outcome = models.SmallIntegerField()
    ended = models.FloatField()

    class Meta:
        db_table = "gomq_ended_delivery"
        default_permissions = ()

    def __str__(self) -> str:
        return f"event {self.event_id} for consumer {self.consumer_id}"


class WorkerProcess(models.Model):
    """A process that holds deliveries; it beats while it lives."""

    id = models.BigAutoField(primary_key=True)
    host = models.CharField(max_length=255)
    pid = models.IntegerField()
    owner = models.CharField(max_length=100)
    consumers = models.TextField(db_default="[]")
    started = models.FloatField()
    heartbeat = models.FloatField()
    ended = models.FloatField(null=True)

    class Meta:
        db_table = "gomq_process"
        indexes = [
            models.Index(fields=["ended", "heartbeat"], name="gomq_process_beat")
        ]

    def __str__(self) -> str:
        return f"{self.host} {self.pid}"


class HandledMessage(models.Model):
    """What an idempotent consumer has handled, noted with what it did."""

    pk = models.CompositePrimaryKey("consumer_id", "message_id")
    consumer_id = models.IntegerField()
    message_id = models.CharField(max_length=32)
    event_id = models.BigIntegerField()

    class Meta:
        db_table = "gomq_inbox"
        indexes = [models.Index(fields=["event_id"], name="gomq_inbox_event")]

    def __str__(self) -> str:
        return f"message {self.message_id} for consumer {self.consumer_id}"


class StoredDeadLetter(models.Model):
    """A message that a consumer gave up on.

    ``event_id`` is None where its broker has no tables: the message was in the memory
    of a process. Those have ``replay_wanted`` set until a process takes them.
    """

    id = models.BigAutoField(primary_key=True)
    event_id = models.BigIntegerField(null=True)
    broker = models.CharField(max_length=200)
    consumer = models.CharField(max_length=200)
    type = models.CharField(max_length=200)
    message_id = models.CharField(max_length=200)
    trace_id = models.CharField(max_length=32)
    attempt = models.IntegerField()
    error_type = models.CharField(max_length=200)
    error = models.TextField()
    traceback = models.TextField()
    first_failed = models.FloatField()
    failed = models.FloatField()
    envelope = models.BinaryField()
    replay_wanted = models.BooleanField(db_default=False)

    class Meta:
        db_table = "gomq_dead_letter"
        verbose_name = "dead letter"
        default_permissions = ("view",)
        permissions = (
            ("view_payload", "Can view the payload of dead letters"),
            ("replay_dead_letters", "Can replay dead letters"),
            ("discard_dead_letters", "Can discard dead letters"),
        )
        indexes = [
            models.Index(fields=["consumer", "id"], name="gomq_dead_consumer"),
            models.Index(fields=["message_id"], name="gomq_dead_message"),
            models.Index(
                fields=["broker", "event_id", "replay_wanted"], name="gomq_dead_wanted"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.type} for {self.consumer}"


class RelayedEvent(models.Model):
    """An event that was emitted and not yet forwarded to the server of its broker."""

    id = models.BigAutoField(primary_key=True)
    relay_id = models.BigIntegerField()
    broker = models.CharField(max_length=200)
    type = models.CharField(max_length=200)
    key_hash = models.BigIntegerField(null=True)
    delay = models.FloatField(default=0)
    made = models.FloatField()
    envelope = models.BinaryField()

    class Meta:
        db_table = "gomq_relay_event"
        indexes = [models.Index(fields=["relay_id", "id"], name="gomq_relay_next")]

    def __str__(self) -> str:
        return f"{self.type} {self.pk}"


class RelayLease(models.Model):
    """Which process forwards the events of a broker, and until when it may."""

    id = models.BigIntegerField(primary_key=True)
    broker = models.CharField(max_length=200)
    owner = models.CharField(max_length=100)
    held_until = models.FloatField()

    class Meta:
        db_table = "gomq_relay"

    def __str__(self) -> str:
        return self.broker


class SpilledMessage(models.Model):
    """A message of a memory broker that one consumer had no room for."""

    id = models.BigAutoField(primary_key=True)
    subscription = models.BigIntegerField()
    broker = models.CharField(max_length=200)
    consumer = models.CharField(max_length=200)
    owner = models.BigIntegerField(null=True)
    precedence = models.SmallIntegerField()
    place = models.BigIntegerField()
    type = models.CharField(max_length=200)
    attempt = models.IntegerField()
    postponed = models.IntegerField()
    first_failed = models.FloatField(null=True)
    available = models.FloatField()
    envelope = models.BinaryField()

    class Meta:
        db_table = "gomq_spilled"
        indexes = [
            models.Index(
                fields=["subscription", "owner", "precedence", "place"],
                name="gomq_spilled_next",
            ),
            models.Index(fields=["owner"], name="gomq_spilled_owner"),
        ]

    def __str__(self) -> str:
        return f"{self.type} for {self.consumer}"


class SpillingProcess(models.Model):
    """A process that has messages in the table of spilled ones."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=100)
    heartbeat = models.FloatField()

    class Meta:
        db_table = "gomq_spiller"

    def __str__(self) -> str:
        return self.name


class Consumer(models.Model):
    """How operators want a consumer to be in every process; None: as it is."""

    id = models.BigAutoField(primary_key=True)
    broker = models.CharField(max_length=200)
    consumer = models.CharField(max_length=200)
    paused = models.BooleanField(null=True)
    capacity = models.IntegerField(null=True)
    changed = models.FloatField()
    changed_by = models.CharField(max_length=150)

    class Meta:
        db_table = "gomq_desired"
        default_permissions = ()
        permissions = (
            ("pause_consumer", "Can pause and resume consumers"),
            ("resize_consumer", "Can resize the channels of consumers"),
        )
        constraints = [
            models.UniqueConstraint(
                fields=["broker", "consumer"], name="gomq_desired_consumer"
            )
        ]

    def __str__(self) -> str:
        return self.consumer


class SiteProcess(models.Model):
    """A process that runs the bus, and what it holds now; its id is its slot.

    A process takes the slot of one that ended, once that one's ticks are of no use.
    """

    id = models.BigAutoField(primary_key=True)
    owner = models.CharField(max_length=100)
    host = models.CharField(max_length=255)
    pid = models.IntegerField()
    role = models.CharField(max_length=100)
    started = models.FloatField()
    heartbeat = models.FloatField()
    ended = models.FloatField(null=True)
    holds = models.TextField()

    class Meta:
        db_table = "gomq_site_process"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.host} {self.pid}"


class Tick(models.Model):
    """What one process counted in some seconds: a ring, bounded by its key."""

    pk = models.CompositePrimaryKey("slot", "place")
    slot = models.BigIntegerField()
    place = models.SmallIntegerField()
    ended = models.FloatField()
    seconds = models.FloatField()
    counted = models.TextField()
    written = models.FloatField()

    class Meta:
        db_table = "gomq_tick"
        default_permissions = ()
        indexes = [models.Index(fields=["written"], name="gomq_tick_written")]

    def __str__(self) -> str:
        return f"{self.slot} {self.place}"


class Watch(models.Model):
    """Somebody looks at what processes do, until then; one row."""

    id = models.BigAutoField(primary_key=True)
    until = models.FloatField()

    class Meta:
        db_table = "gomq_watch"
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.until)


class MessageWatch(models.Model):
    """Somebody looks at these messages as they are handled, until then."""

    id = models.BigAutoField(primary_key=True)
    event = models.CharField(max_length=220)
    consumer = models.CharField(max_length=200)
    payload = models.BooleanField()
    until = models.FloatField()

    class Meta:
        db_table = "gomq_message_watch"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.event} {self.consumer}".rstrip()


class SampledMessage(models.Model):
    """A message that one process has handled lately: a ring, bounded by its key."""

    pk = models.CompositePrimaryKey("slot", "place")
    slot = models.BigIntegerField()
    place = models.SmallIntegerField()
    event = models.CharField(max_length=200)
    consumer = models.CharField(max_length=200)
    sample = models.TextField()
    payload = models.TextField()
    written = models.FloatField()

    class Meta:
        db_table = "gomq_message_sample"
        default_permissions = ()
        permissions = (("view_message", "Can view the payload of sampled messages"),)
        indexes = [models.Index(fields=["written"], name="gomq_message_sample_written")]

    def __str__(self) -> str:
        return f"{self.event} for {self.consumer}"
