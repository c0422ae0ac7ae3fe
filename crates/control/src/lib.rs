//! Typed requests and replies of the control API.
