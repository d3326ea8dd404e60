"""The URLs of the live page for sites without admin, below those of django_gomq."""

from __future__ import annotations

from .mounting import Mount
from .pages import Pages

urlpatterns = Pages(Mount()).urls()
