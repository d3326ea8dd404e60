"""gunicorn for the clinic: one process of threads."""

from __future__ import annotations

wsgi_app = "clinic.wsgi:application"
# Memory queues live in the process: one process makes its numbers the whole site's.
workers = 1
worker_class = "gthread"
threads = 8
# Longer than any pause of the traffic, so that no request meets a closing socket.
keepalive = 75
# What each answer said it had emitted, and to whom: `acceptance.visitors` reads this.
access_log_format = "%({x-clinic-events}o)s\t%({user-agent}i)s"
# gunicorn's own remote control would be one file for every clinic of this user.
control_socket_disable = True
