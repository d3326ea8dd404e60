"""Patients and their health records: the app that emits."""
