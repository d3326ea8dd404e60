from __future__ import annotations

from django.db import migrations

from django_gomq import emit


def tell(apps: object, schema_editor: object) -> None:
    emit("migration.done")


class Migration(migrations.Migration):
    operations = [migrations.RunPython(tell, migrations.RunPython.noop)]
