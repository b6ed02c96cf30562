//! The relay daemon as a library.
