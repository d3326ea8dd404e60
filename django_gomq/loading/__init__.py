"""Makes, from dotted paths in the settings, what nothing else imports."""
