//! `dovecot.conf` for Dovecot 2.4: LMTP (RFC 2033) in from the relay, IMAP over TLS (RFC 8314) on the inside
//! link alone, SASL for the relay's submission, quota, users from `users.db` (see `postern user`).

use super::header;
use crate::model::{Node, Site, Zone};

pub(super) fn render(site: &Site, node: &Node) -> String {
    let listen: Vec<String> = node
        .addresses(Zone::Internal)
        .iter()
        .map(ToString::to_string)
        .collect();
    let settings = TEMPLATE
        .replace("@hostname@", node.hostname())
        .replace("@postmaster@", &site.postmaster())
        .replace("@listen@", &listen.join(" "));
    // Dovecot wants its version before everything but comments.
    header(site, node.name()) + &settings
}

/// All that does not depend on the site. Every query gives the user's name in lower case by way of
/// `auth_username_format`, and Dovecot escapes what it puts between the quotes.
const TEMPLATE: &str = r"dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0

protocols = imap lmtp
hostname = @hostname@
postmaster_address = @postmaster@
base_dir = /run/dovecot
log_path = /dev/stderr
mail_plugins {
  quota = yes
}

# Maildir: a message is a file, on stable storage before LMTP says 250.
mail_driver = maildir
mail_home = /var/lib/postern/mail/%{user | domain}/%{user | username}
mail_path = ~/Maildir
mail_uid = vmail
mail_gid = vmail
first_valid_uid = 3020
last_valid_uid = 3020
mail_fsync = always
recipient_delimiter = +

namespace inbox {
  inbox = yes
  separator = /
  mailbox Drafts {
    auto = subscribe
    special_use = \Drafts
  }
  mailbox Junk {
    auto = subscribe
    special_use = \Junk
  }
  mailbox Sent {
    auto = subscribe
    special_use = \Sent
  }
  mailbox Trash {
    auto = subscribe
    special_use = \Trash
  }
}

quota user {
  driver = count
}
quota_storage_size = 1G
quota_full_tempfail = no

ssl = required
ssl_min_protocol = TLSv1.2
ssl_server_cert_file = /run/credentials/postern-dovecot.service/smtp.crt
ssl_server_key_file = /run/credentials/postern-dovecot.service/smtp.key

auth_allow_cleartext = no
auth_mechanisms = plain login
auth_username_format = %{user | lower}
sql_driver = sqlite
sqlite_path = /var/lib/postern/users.db
sqlite_readonly = yes

# A user's own password is for the inside, an app password for submission from outside and nothing else: the relay names that
# service. The first eight letters of an app password say which of the user's it is.
passdb users {
  driver = sql
  passdb_sql_query = SELECT address AS user, password FROM users \
    WHERE address = '%{user}' AND password IS NOT NULL AND '%{protocol}' <> 'postern-outside'
}
passdb app_passwords {
  driver = sql
  passdb_sql_query = SELECT address AS user, app_passwords.password FROM app_passwords JOIN users USING (address) \
    WHERE address = '%{user}' AND id = substr('%{password}', 1, 8) AND '%{protocol}' = 'postern-outside'
}
userdb sql {
  query = SELECT address AS user, quota || 'B' AS quota_storage_size FROM users \
    WHERE address = coalesce((SELECT target FROM aliases WHERE address = '%{user}'), '%{user}')
  iterate_query = SELECT address AS user FROM users
}

# One process for each connection (chrooted, without rights) until the login is done.
service imap-login {
  inet_listener imap {
    port = 0
  }
  inet_listener imaps {
    port = 993
    ssl = yes
    listen = @listen@
  }
}

protocol imap {
  mail_plugins {
    imap_quota = yes
  }
}

# The relay's processes reach these two by their group.
service lmtp {
  unix_listener lmtp {
    mode = 0660
    group = postern-dovecot
  }
}
service auth {
  unix_listener auth-postern {
    mode = 0660
    group = postern-dovecot
  }
}
";
