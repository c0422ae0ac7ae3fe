//! `dovecot.conf`.
use crate::model::{Node, Site};
pub(super) fn render(_site: &Site, _node: &Node) -> String {
    String::new()
}
