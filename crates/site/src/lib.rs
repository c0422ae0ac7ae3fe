//! The site file: checked, then rendered to each node's files.
