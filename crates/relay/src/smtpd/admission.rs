//! How many connections are held: in all, and of one address (an IPv6 /64 counts as one).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::rate::client;

/// Connections held now.
#[derive(Debug)]
pub(super) struct Admission {
    most: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// All connections are taken.
    Server,
    /// This address holds its share.
    Address,
}

/// A place held until dropped.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Admission {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            held: Mutex::default(),
        })
    }

    /// A place, where less than `most` connections of this address are held.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr, most: usize) -> Result<Place, Full> {
        let address = client(address);
        let mut held = self.held();
        if held.all >= self.most {
            return Err(Full::Server);
        }
        let of_address = held.by_address.entry(address).or_default();
        if *of_address >= most {
            if *of_address == 0 {
                held.by_address.remove(&address);
            }
            return Err(Full::Address);
        }
        *of_address += 1;
        held.all += 1;
        Ok(Place {
            admission: Arc::clone(self),
            address,
        })
    }

    /// Connections held.
    pub(super) fn count(&self) -> usize {
        self.held().all
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.admission.held();
        held.all -= 1;
        if let Some(of_address) = held.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                held.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let admission = Admission::new(3);
        let (a, b): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = admission.admit(a, 2).unwrap();
        let _second = admission.admit(a, 2).unwrap();
        assert_eq!(admission.admit(a, 2).unwrap_err(), Full::Address);
        let _third = admission.admit(b, 2).unwrap();
        assert_eq!(admission.admit(b, 2).unwrap_err(), Full::Server);
        drop(first);
        assert!(admission.admit(b, 2).is_ok());
        assert_eq!(admission.count(), 2);
    }

    #[test]
    fn a_64_is_one_address() {
        let admission = Admission::new(3);
        let _place = admission.admit("2001:db8::1".parse().unwrap(), 1).unwrap();
        assert_eq!(
            admission.admit("2001:db8::2".parse().unwrap(), 1).unwrap_err(),
            Full::Address
        );
        assert!(admission.admit("2001:db8:0:1::1".parse().unwrap(), 1).is_ok());
    }
}
