//! Provenance: through which socket a message came. It decides where mail may go, and nothing that the message
//! claims can change it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Through which handover socket a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provenance {
    /// Strangers' mail: never signed, never routed outward.
    Public,
    /// Mail of the inside: the internal node's (on the gateway), users' and app servers' (on the internal node).
    Inside,
    /// Mail that the gateway took from outside (on the internal node).
    Dmz,
    /// Mail that users submitted from outside, through the gateway (on the internal node).
    Submission,
    /// The queue's own notifications; routed as mail of the inside.
    Own,
}

impl Provenance {
    /// The provenance of a handover socket's instance name. Nobody hands over as `own`.
    pub fn of_instance(name: &str) -> Option<Self> {
        [Self::Public, Self::Inside, Self::Dmz, Self::Submission]
            .into_iter()
            .find(|provenance| provenance.as_str() == name)
    }

    /// The name in configuration, events and sockets.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Inside => "inside",
            Self::Dmz => "dmz",
            Self::Submission => "submission",
            Self::Own => "own",
        }
    }
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
