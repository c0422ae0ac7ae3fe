"""What Postfix's administrators put beside it to judge where mail comes from, each as an instance of its own in the
foreground, and the DNS server that all of them and Postern ask.

Configured fairly: all verify and none signs; refusals as the domain's owner asks; one thing done by one program; logs and
histories that Debian switches on are off where they only cost, as is what rspamd does besides authentication.
"""

import contextlib
import os
import pathlib
import pwd
import shutil
import socket
import subprocess

import world
from world import Daemon

UNBOUND = """\
server:
  interface: 127.0.0.1
  port: 53
  do-ip6: no
  do-daemonize: no
  chroot: ""
  directory: "{directory}"
  pidfile: "{directory}/unbound.pid"
  username: ""
  use-syslog: no
  logfile: ""
  module-config: "iterator"
  access-control: 127.0.0.0/8 allow
  local-zone: "." static
  local-data: ". 300 IN SOA ns.example. hostmaster.example. 1 3600 600 86400 300"
{records}
remote-control:
  control-enable: no
"""

OPENDKIM = """\
Mode                v
Background          no
Syslog              no
UserID              opendkim
Socket              inet:8891@127.0.0.1
Nameservers         127.0.0.1
AlwaysAddARHeader   yes
AuthservID          {hostname}
InternalHosts       127.0.0.1
"""

# SPF is policyd-spf's here, which says what it found in Authentication-Results.
OPENDMARC = """\
AuthservID          {hostname}
TrustedAuthservIDs  {hostname}
Background          false
Syslog              false
UserID              opendmarc
Socket              inet:8893@127.0.0.1
RejectFailures      true
SPFIgnoreResults    false
SPFSelfValidate     false
PublicSuffixList    /usr/share/publicsuffix/public_suffix_list.dat
"""

POLICYD_SPF = """\
debugLevel = -1
TestOnly = 1
HELO_reject = Fail
Mail_From_reject = Fail
PermError_reject = False
TempError_Defer = False
Header_Type = AR
Authserv_Id = {hostname}
skip_addresses = 127.0.0.0/8
"""

# main.cf and master.cf of the classical chain. Postfix's own limits are on, as Postern's are.
CLASSICAL_MAIN = """\
smtpd_recipient_restrictions = reject_unauth_destination,
  check_policy_service unix:private/policyd-spf, check_policy_service inet:127.0.0.1:10023
policyd-spf_time_limit = 3600
smtpd_milters = inet:127.0.0.1:8891, inet:127.0.0.1:8893{scanners}
milter_default_action = tempfail
smtpd_client_message_rate_limit = 1000000
smtpd_client_event_limit_exceptions =
"""
CLASSICAL_MASTER = """\
policyd-spf unix - n n - 0 spawn user=policyd-spf argv=/usr/bin/policyd-spf {policyd}
"""

# Rspamd inside its proxy worker (no second process to ask), with SPF, DKIM and DMARC and nothing else. It greylists and
# limits rates only with a Redis, so Postern does more here than it.
RSPAMD = """\
options {{
  pidfile = "{directory}/rspamd.pid";
  tempdir = "{directory}";
  filters = "dkim";
  local_addrs = "127.0.0.0/8";
  dns {{ nameserver = ["127.0.0.1:53:1"]; timeout = 1s; retransmits = 5; }}
}}
logging {{ type = "file"; filename = "{directory}/rspamd.log"; level = "warning"; }}
worker "rspamd_proxy" {{
  bind_socket = "127.0.0.1:11332";
  milter = yes;
  timeout = 120s;
  count = {processes};
  upstream "local" {{ default = yes; self_scan = yes; }}
}}
modules {{ path = "$PLUGINSDIR/spf.lua"; path = "$PLUGINSDIR/dmarc.lua"; path = "$PLUGINSDIR/milter_headers.lua"; }}
spf {{ }}
dkim {{ }}
dmarc {{ actions = {{ reject = "reject"; quarantine = "add_header"; }} }}
milter_headers {{ use = ["authentication-results"]; }}
actions {{ reject = 15; add_header = 6; }}
"""
RSPAMD_MAIN = """\
smtpd_milters = inet:127.0.0.1:11332
milter_default_action = tempfail
smtpd_client_message_rate_limit = 1000000
smtpd_client_event_limit_exceptions =
"""

# What each chain needs, as programs; where one is missing, the comparison is left out and said to be.
CLASSICAL = ("opendkim", "opendmarc", "policyd-spf", "postgrey")


def missing(programs):
    return [program for program in programs if not shutil.which(program)]


def listens(port):
    def ready():
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    return ready


def open_directory(path, user):
    path.mkdir()
    entry = pwd.getpwnam(user)
    os.chown(path, entry.pw_uid, entry.pw_gid)
    return path


def name_server(directory, records):
    """unbound, which serves these records and knows no others."""
    directory.mkdir()
    config = directory / "unbound.conf"
    data = "\n".join(f"  local-data: '{record.replace(' IN ', ' 300 IN ', 1)}'" for record in records)
    config.write_text(UNBOUND.format(directory=directory, records=data))
    return Daemon("unbound", ["unbound", "-d", "-p", "-c", config], directory / "log", listens(53))


@contextlib.contextmanager
def classical(base):
    """opendkim, opendmarc, postgrey; policyd-spf is Postfix's child. Yields what it needs in main.cf and master.cf."""
    directory = pathlib.Path(base, "filters")
    directory.mkdir()
    for name, text in (("opendkim", OPENDKIM), ("opendmarc", OPENDMARC), ("policyd-spf", POLICYD_SPF)):
        (directory / f"{name}.conf").write_text(text.format(hostname=world.HOSTNAME))
    grey = open_directory(directory / "postgrey", "postgrey")
    with contextlib.ExitStack() as stack:
        for daemon in (
            lambda: Daemon("opendkim", ["opendkim", "-f", "-x", directory / "opendkim.conf"], directory / "opendkim.log", listens(8891)),
            lambda: Daemon("opendmarc", ["opendmarc", "-f", "-c", directory / "opendmarc.conf"], directory / "opendmarc.log", listens(8893)),
            lambda: Daemon("postgrey", ["postgrey", "--inet=127.0.0.1:10023", "--delay=1", f"--dbdir={grey}",
                                        f"--pidfile={grey}/pid"], directory / "postgrey.log", listens(10023)),
        ):
            stack.enter_context(daemon())
        yield {"main": CLASSICAL_MAIN, "master": CLASSICAL_MASTER.format(policyd=directory / "policyd-spf.conf")}


@contextlib.contextmanager
def rspamd(base):
    """rspamd, authentication alone. Yields what Postfix needs in main.cf."""
    directory = open_directory(pathlib.Path(base, "rspamd"), "_rspamd")
    config = directory / "rspamd.conf"
    config.write_text(RSPAMD.format(directory=directory, processes=os.cpu_count()))
    words = ["rspamd", "-f", "-c", config, "-u", "_rspamd", "-g", "_rspamd"]
    with Daemon("rspamd", words, directory / "log", listens(11332), patience=240):
        yield {"main": RSPAMD_MAIN}


def version(package):
    """The package's version, as Debian numbers it."""
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True)
    return f"{package} {done.stdout}" if done.returncode == 0 else f"{package} ?"
