# Tells systemd that spamd is ready (sd_notify(3): READY=1 to $NOTIFY_SOCKET). spamd calls prefork_init when the rules
# are compiled, the socket listens and the PID file is written, just before it makes its children.
package Postern::Ready;

use strict;
use warnings;

use IO::Socket::UNIX;
use Mail::SpamAssassin::Plugin;
use Socket qw(SOCK_DGRAM);

our @ISA = qw(Mail::SpamAssassin::Plugin);

sub new {
    my ($class, $main) = @_;
    return bless $class->SUPER::new($main), $class;
}

sub prefork_init {
    # spamd runs in taint mode; the pattern is what a socket's path may look like. '@' stands for an abstract one.
    my ($path) = ($ENV{NOTIFY_SOCKET} // '') =~ m{^([/\@][\w./-]+)$} or return;
    $path =~ s/^\@/\0/;
    my $socket = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Peer => $path)
        or die "spamd: cannot tell systemd that it is ready, by $ENV{NOTIFY_SOCKET}: $!\n";
    $socket->send("READY=1\nSTATUS=Rules compiled, listening\n");
    return;
}

1;
