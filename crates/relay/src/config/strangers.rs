//! What strangers may do in an hour, and when there is little room.

use serde::Deserialize;

use super::Limits;

/// `[stress]`: limits of strangers near the capacity of connections or of `message-memory`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Stress {
    /// Percent of either at which it begins; 0 = never.
    pub at_percent: u8,
    /// Seconds to wait for a command.
    pub command_timeout: u64,
    /// Seconds to wait for the next octets of a message.
    pub data_timeout: u64,
    /// Wrong commands before the connection is closed.
    pub max_errors: usize,
    /// Connections of one client address at one instance.
    pub max_connections_per_address: usize,
}

impl Default for Stress {
    fn default() -> Self {
        Self {
            at_percent: 80,
            command_timeout: 30,
            data_timeout: 60,
            max_errors: 5,
            max_connections_per_address: 10,
        }
    }
}

/// Messages per hour; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerHour {
    /// Of one client address.
    pub address: u32,
    /// Of one network.
    pub network: u32,
    /// Of one reverse-path.
    pub sender: u32,
    /// For one mailbox.
    pub recipient: u32,
}

impl Limits {
    /// The hourly limits, those that were left out included.
    pub fn per_hour(&self) -> PerHour {
        let or_default = |limit: Option<u32>| limit.unwrap_or(self.messages_per_hour.saturating_mul(10));
        PerHour {
            address: self.messages_per_hour,
            network: or_default(self.messages_per_hour_network),
            sender: or_default(self.messages_per_hour_sender),
            recipient: or_default(self.messages_per_hour_recipient),
        }
    }
}
