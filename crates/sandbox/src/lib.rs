//! Landlock, seccomp, capabilities and descriptor passing.
