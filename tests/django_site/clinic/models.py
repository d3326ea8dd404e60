from __future__ import annotations

from django.db import models


class Tag(models.Model):
    name = models.CharField(max_length=50)

    def __str__(self) -> str:
        return self.name


class Record(models.Model):
    patient_id = models.IntegerField()
    note = models.CharField(max_length=200, default="")
    tags = models.ManyToManyField(Tag, related_name="records")

    def __str__(self) -> str:
        return f"record {self.pk}"


class Label(models.Model):
    name = models.CharField(max_length=50)

    def __str__(self) -> str:
        return self.name


class OldLabel(models.Model):
    """The same table, which somebody else manages."""

    name = models.CharField(max_length=50)

    class Meta:
        managed = False
        db_table = "clinic_label"

    def __str__(self) -> str:
        return self.name


class Building(models.Model):
    name = models.CharField(max_length=50)
    beds = models.IntegerField(default=0)
    labels = models.ManyToManyField(Label, related_name="buildings")
    neighbours = models.ManyToManyField("self")
    feeds = models.ManyToManyField("self", symmetrical=False, related_name="fed_by")

    def __str__(self) -> str:
        return self.name


class Landmark(Building):
    """A proxy."""

    class Meta:
        proxy = True


class Hospital(Building):
    """A child with a table of its own."""

    wards = models.IntegerField(default=1)


class TeachingHospital(Hospital):
    """A proxy of a child."""

    class Meta:
        proxy = True


class Dated(models.Model):
    """An abstract model."""

    day = models.IntegerField(default=1)
    labels = models.ManyToManyField(Label)

    class Meta:
        abstract = True


class Exam(Dated):
    def __str__(self) -> str:
        return f"exam {self.pk}"


class Scan(Exam):
    """A child of a child, with a table of its own."""


class Visit(Dated):
    def __str__(self) -> str:
        return f"visit {self.pk}"


class Childless(models.Model):
    """An abstract model that nobody inherits from."""

    class Meta:
        abstract = True
