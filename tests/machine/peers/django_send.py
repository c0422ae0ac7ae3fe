"""The app server's mail, by Django's own SMTP backend (STARTTLS, login).

    django_send.py HOST PORT USER PASSWORD < JSON {from, to, subject, body, html, attachment}

The trust anchor for the server's certificate is taken from SSL_CERT_FILE, as everywhere in Python.
"""

import json
import sys

import django
from django.conf import settings
from django.core.mail import EmailMultiAlternatives

host, port, user, password = sys.argv[1:]
settings.configure(
    EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend",
    EMAIL_HOST=host, EMAIL_PORT=int(port), EMAIL_USE_TLS=True,
    EMAIL_HOST_USER=user, EMAIL_HOST_PASSWORD=password, EMAIL_TIMEOUT=120,
    DEFAULT_CHARSET="utf-8",
)
django.setup()
mail = json.load(sys.stdin)
message = EmailMultiAlternatives(mail["subject"], mail["body"], mail["from"], mail["to"])
message.attach_alternative(mail["html"], "text/html")
message.attach("invoice.csv", mail["attachment"], "text/csv")
message.extra_headers["Message-ID"] = mail["message-id"]
print(message.send())
