"""The gateways, each started and ended by its own process id, each in a directory of its own."""

import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import time

import flushes
from load import free_port, wait_for_greeting

# Parallel deliveries to the next hop: Postfix's default, given to both.
CONCURRENCY = 20

RELAY_TOML = """\
role = "gateway"
hostname = "mx1.{domain}"
local-domains = ["{domain}"]
postmaster = "postmaster@{domain}"
state-directory = "state"
runtime-directory = "run"

[resolver]
address = "127.0.0.1:53"

[limits]
max-message-size = 52428800
max-recipients = 100
max-connections = {connections}
max-connections-per-address = {connections}
messages-per-hour = {hourly}
greeting-delay = 0

[instance.public]
listen = ["{address}:{port}"]
{tls}
relay-for = "local-domains"
authentication = "none"
checks = {checks}
{more}

[next-hop.sink]
kind = "smtp"
host = "127.0.0.1"
port = {sink}
tls = "off"

[[route]]
from = ["public"]
domains = ["{domain}"]
next-hop = "sink"

[queue]
retry = [60]
expire = 86400
concurrency-per-destination = {concurrency}
"""

# What Postern's template takes beside the port and the sink; the lines that measure checks say otherwise.
PLAIN = {"address": "127.0.0.1", "concurrency": CONCURRENCY, "connections": 1000, "hourly": 0, "checks": "[]", "more": "",
         "tls": 'tls = "off"'}

# What is not the default is there to do the same job (first part), or to take a brake off Postfix (second part).
MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
command_directory = /usr/sbin
daemon_directory = {daemons}
mail_owner = postfix
setgid_group = postdrop
maillog_file = {directory}/log
myhostname = mx1.{domain}
mydestination =
mynetworks =
relay_domains = {domain}
relay_transport = relay:[127.0.0.1]:{sink}
smtpd_relay_restrictions = reject_unauth_destination
inet_interfaces = {address}
inet_protocols = ipv4
disable_dns_lookups = yes
smtpd_peername_lookup = no
smtp_tls_security_level = none
smtpd_tls_security_level = none
smtputf8_enable = yes
message_size_limit = 52428800
alias_maps =
alias_database =
local_recipient_maps =

in_flow_delay = 0
default_process_limit = 200
smtpd_client_connection_count_limit = 0
relay_destination_concurrency_limit = {concurrency}
relay_initial_destination_concurrency = {concurrency}
{main}"""

MASTER_CF = """\
{port}    inet  n - n - -    smtpd
cleanup   unix  n - n - 0    cleanup
qmgr      unix  n - n 300 1  qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - -    trivial-rewrite
bounce    unix  - - n - 0    bounce
defer     unix  - - n - 0    bounce
trace     unix  - - n - 0    bounce
verify    unix  - - n - 1    verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - -    proxymap
proxywrite unix - - n - 1    proxymap
smtp      unix  - - n - -    smtp
relay     unix  - - n - -    smtp
error     unix  - - n - -    error
retry     unix  - - n - -    error
discard   unix  - - n - -    discard
anvil     unix  - - n - 1    anvil
scache    unix  - - n - 1    scache
postlog   unix-dgram n - n - 1 postlogd
{master}"""

# Debian's build; it does not deliver as root, and asks neither DNS nor ident about its clients: so does nobody here.
EXIM_CONF = """\
exim_path = {program}
exim_user = nobody
exim_group = nogroup
primary_hostname = mx1.{domain}
spool_directory = {directory}/spool
log_file_path = {directory}/%slog
pid_file_path = {directory}/exim.pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
deliver_drop_privilege
tls_advertise_hosts =
host_lookup =
rfc1413_hosts =
never_users =
message_size_limit = 50M
acl_smtp_rcpt = rcpt

smtp_accept_max = 1000
smtp_accept_queue_per_connection = 0
smtp_connect_backlog = 1000
split_spool_directory

begin acl
rcpt:
  accept domains = {domain}

begin routers
sink:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = sink

begin transports
sink:
  driver = smtp
  port = {sink}
  hosts_try_chunking =

begin retry
* * F,1h,1m
"""


def new_directory(base, name, counted):
    """A directory of its own for each running peer."""
    directory = pathlib.Path(base, name + ("-counted" if counted else ""))
    directory.mkdir()
    return directory


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def children(pid):
    """Ids of the processes that this one's first thread has started."""
    return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Peer:
    """A running gateway: its name, its port and the process that all others of it descend from."""

    name = version = ""
    address = "127.0.0.1"

    def __init__(self, directory, port, command, counted, **more):
        self.directory, self.port, self.log = directory, port, directory / "log"
        self.flush_log = directory / "flushes"
        if counted:
            command = flushes.prefix(self.flush_log) + command
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=open(self.log, "ab"),
                                        stderr=subprocess.STDOUT, start_new_session=True, **more)

    def __enter__(self):
        try:
            wait_for_greeting(self.port, self.process, self.name, self.log, self.address)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            # The group is the one that this peer was started in: nobody else's processes are in it.
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        # Postfix's master does not wait for its processes, and they still write to the directory.
        for _ in range(200):
            try:
                # Orphans are ours in this namespace, and stay in their group until they are waited for.
                while os.waitpid(-self.process.pid, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                pass
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.05)
        raise SystemExit(f"bench: processes of {self.name} (group {self.process.pid}) do not end")


class Postern(Peer):
    """postern-relay run, as an ordinary user; its sandboxes are those of the appliance."""

    name = "Postern"

    def __init__(self, base, relay, sink, domain, counted=False, **more):
        directory, port = new_directory(base, "postern", counted), free_port()
        values = {**PLAIN, **more}
        self.address = values["address"]
        config = directory / "relay.toml"
        config.write_text(RELAY_TOML.format(port=port, sink=sink, domain=domain, **values))
        nobody = pwd.getpwnam("nobody")
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
        # A copy, since a build directory need not be open to other users.
        program = shutil.copy(relay, pathlib.Path(base, "postern-relay"))
        self.version = output(program, "--version")
        super().__init__(directory, port, [program, "run", "--config", str(config)], counted,
                         user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[])

    def processes(self):
        """Process ids by name: smtpd, queue, where there are any proxy and scan, and run, which starts them."""
        found = {"run": self.process.pid}
        for pid in children(self.process.pid):
            found[pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1].decode()] = pid
        return found


class Postfix(Peer):
    """Debian's Postfix, as an instance of its own: own configuration, queue and data directories."""

    name = "Postfix"

    def __init__(self, base, sink, domain, counted=False, name="postfix", address="127.0.0.1", main="", master=""):
        directory, port, self.address = new_directory(base, name, counted), free_port(), address
        # An absolute path: the system's own instance, if there is one, may name another.
        daemons = output("postconf", "-dh", "daemon_directory")
        values = {"directory": directory, "port": port, "sink": sink, "domain": domain, "concurrency": CONCURRENCY,
                  "daemons": daemons, "address": address, "main": main, "master": master}
        config = directory / "config"
        config.mkdir()
        (config / "main.cf").write_text(MAIN_CF.format(**values))
        (config / "master.cf").write_text(MASTER_CF.format(**values))
        (directory / "queue").mkdir()
        data = directory / "data"
        data.mkdir()
        postfix = pwd.getpwnam("postfix")
        os.chown(data, postfix.pw_uid, postfix.pw_gid)
        self.version = "Postfix " + output("postconf", "-c", str(config), "-h", "mail_version")
        # "check" makes the queue's directories, with their owners.
        made = subprocess.run(["postfix", "-c", str(config), "check"], capture_output=True, text=True)
        if made.returncode != 0:
            raise SystemExit(f"bench: postfix check failed: {made.stderr}")
        super().__init__(directory, port, [f"{daemons}/master", "-c", str(config), "-s"], counted)


class Exim(Peer):
    """Debian's Exim, unpacked by the install step beside Postfix, which it could not be installed with."""

    name = "Exim"

    def __init__(self, base, program, sink, domain, counted=False):
        directory, port = new_directory(base, "exim", counted), free_port()
        nobody = pwd.getpwnam("nobody")
        for place in (directory, directory / "spool"):
            place.mkdir(exist_ok=True)
            os.chown(place, nobody.pw_uid, nobody.pw_gid)
        # A copy in a place that all may enter: Exim starts itself anew for each delivery, as its own user.
        program = shutil.copy(program, pathlib.Path(base, "exim4"))
        config = directory / "exim.conf"
        config.write_text(EXIM_CONF.format(directory=directory, program=program, port=port, sink=sink, domain=domain))
        self.version = output(program, "-C", str(config), "-bV").splitlines()[0].split("#")[0].strip()
        super().__init__(directory, port, [program, "-C", str(config), "-bdf"], counted)
